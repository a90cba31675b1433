//! `job.retry`: a final job once more, as a new one.
//!
//! What is the same about it is the executor's business.

use serde_json::{Map, Value};

use super::{Outcome, submit::check_open};
use crate::{
    executor::Tie,
    protocol::{
        jsonrpc::{error::Refusal, params::Params},
        ws::session::Session,
    },
};

pub async fn execute(session: &Session, params: &Map<String, Value>) -> Result<Outcome, Refusal> {
    let job = Params::new(params, &["job"])?.job()?;
    check_open(session)?;
    let executor = &session.door.executor;
    let job = executor.retry(job, &session.actor()).await?;
    executor.tie(&session.id, Tie::of(&job).as_slice()).await;
    Ok(Outcome::of(&job))
}
