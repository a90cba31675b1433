//! `job.retry`: runs a final job again, as a new job.

use serde_json::{Map, Value, value::RawValue};

use super::submit::check_not_draining;
use crate::{
    executor::Tie,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let job = Params::new(&params, &["job"])?.job()?;
    check_not_draining(caller)?;
    let executor = &caller.server.executor;
    let job = executor.retry(job, &caller.actor()).await?;
    executor.tie(&caller.id, Tie::of(&job).as_slice()).await;
    Ok(to_raw(&job))
}
