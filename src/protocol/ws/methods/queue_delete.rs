//! `queue.delete`: takes a queue away.
//!
//! Which one may go is the executor's business.

use serde_json::{Map, Value, json};

use super::{Outcome, queue_set::name};
use crate::protocol::{
    jsonrpc::{error::Refusal, params::Params},
    ws::session::Session,
};

pub async fn execute(session: &Session, params: &Map<String, Value>) -> Result<Outcome, Refusal> {
    let name = name(&Params::new(params, &["queue"])?)?;
    session.door.executor.delete_queue(&name).await?;
    Ok(Outcome::of(&json!({})))
}
