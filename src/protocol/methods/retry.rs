//! `job.retry`: runs a final job again, as a new job; and on request all that depend on it.

use serde_json::{Map, Value, value::RawValue};

use super::{submit::check_not_draining, submit_many};
use crate::{
    executor::Tie,
    job::OnDisconnect,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["job", "with_dependants", "on_disconnect"])?;
    let job = params.job()?;
    let with_dependants = params.flag("with_dependants")?.unwrap_or(false);
    let policies = [OnDisconnect::Continue, OnDisconnect::Cancel];
    let words = policies.map(|policy| (policy.name(), policy));
    let on_disconnect = params.one_of("on_disconnect", &words)?;
    check_not_draining(caller)?;
    let executor = &caller.executor();
    if with_dependants {
        let actor = caller.actor();
        let retried = executor.retry_with_dependants(job, on_disconnect, &actor);
        let (jobs, ties) = retried.await.map_err(|refused| refused.error)?;
        executor.tie(&caller.id, &ties).await;
        return Ok(submit_many::reply(jobs));
    }
    let job = executor.retry(job, on_disconnect, &caller.actor()).await?;
    executor.tie(&caller.id, Tie::of(&job).as_slice()).await;
    Ok(to_raw(&job))
}
