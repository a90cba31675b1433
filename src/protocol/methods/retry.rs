//! `job.retry`: runs a final job again, as a new job; and on request all that depend on it.

use serde_json::{Map, Value, value::RawValue};

use super::{submit::check_not_draining, submit_many};
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
    let params = Params::new(&params, &["job", "with_dependants"])?;
    let job = params.job()?;
    let with_dependants = params.flag("with_dependants")?.unwrap_or(false);
    check_not_draining(caller)?;
    let executor = &caller.executor();
    if with_dependants {
        let jobs = executor.retry_with_dependants(job, &caller.actor()).await;
        return Ok(submit_many::reply(jobs.map_err(|refused| refused.error)?));
    }
    let job = executor.retry(job, &caller.actor()).await?;
    executor.tie(&caller.id, Tie::of(&job).as_slice()).await;
    Ok(to_raw(&job))
}
