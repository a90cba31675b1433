//! `job.update`: changes a job that has not started. `job::change` decides what may be changed.

use serde_json::{Map, Value, value::RawValue};

use crate::{
    executor::Include,
    job::{JobChange, JobRef},
    protocol::{
        caller::Caller,
        jsonrpc::{
            envelope::{to_json, to_raw},
            error::Refusal,
            params::Params,
        },
        methods::job_bytes_max,
    },
};

const KEYS: [&str; 6] = ["job", "queue", "priority", "labels", "name", "run_at"];

/// Bytes for everything else in a job's view that may become longer.
const SLACK_BYTES: usize = 8 << 10;

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let job = Params::new(&params, &KEYS)?.job()?;
    let change = JobChange::read(&params)?;
    check_size(caller, job, &change).await?;
    let actor = caller.actor();
    let job = caller.executor().update(job, change, &actor).await?;
    Ok(to_raw(&job))
}

/// Refuses a change after which the job's view would not fit into one message.
async fn check_size(caller: &Caller, job: JobRef, change: &JobChange) -> Result<(), Refusal> {
    let Some(labels) = &change.labels else {
        return Ok(());
    };
    let mut shown = caller.server.executor.get(job, Include::default()).await?;
    shown.spec.labels.clone_from(labels);
    let bytes = to_json(&shown).len() + SLACK_BYTES;
    let bytes_max = job_bytes_max(&caller.server.settings);
    if bytes <= bytes_max {
        return Ok(());
    }
    let message =
        format!("the job would take {bytes} bytes to show; at most {bytes_max} are allowed");
    Err(Refusal::limit("job_bytes_max", message))
}
