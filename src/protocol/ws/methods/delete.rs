//! `job.delete`: takes a final job away.
//!
//! What goes with it is the executor's business.

use serde_json::{Map, Value, json};

use super::Outcome;
use crate::protocol::{
    jsonrpc::{error::Refusal, params::Params},
    ws::session::Session,
};

pub async fn execute(session: &Session, params: &Map<String, Value>) -> Result<Outcome, Refusal> {
    let job = Params::new(params, &["job"])?.job()?;
    session.door.executor.delete(job).await?;
    Ok(Outcome::of(&json!({})))
}
