//! `job.update`: changes a job that has not started.
//!
//! What may be changed is `job::change`'s business.

use serde_json::{Map, Value};

use super::{
    super::{envelope::to_json, params::Params, refusal::Refusal, session::Session},
    Outcome, job_bytes_max,
};
use crate::{
    job::{JobChange, JobRef},
    store::Include,
};

const KEYS: [&str; 6] = ["job", "queue", "priority", "labels", "name", "run_at"];

/// Room for everything else that may become longer about a job, bytes.
const SLACK_BYTES: usize = 8 << 10;

pub async fn execute(session: &Session, params: &Map<String, Value>) -> Result<Outcome, Refusal> {
    let job = Params::new(params, &KEYS)?.job()?;
    let change = JobChange::read(params)?;
    check_size(session, job, &change).await?;
    let job = session.door.executor.update(job, change).await?;
    Ok(Outcome::of(&job))
}

/// A job that no message can tell is not made of one that could be told.
async fn check_size(session: &Session, job: JobRef, change: &JobChange) -> Result<(), Refusal> {
    let Some(labels) = &change.labels else {
        return Ok(());
    };
    let mut shown = session.door.executor.get(job, Include::default()).await?;
    shown.spec.labels.clone_from(labels);
    let bytes = to_json(&shown).len() + SLACK_BYTES;
    let bytes_max = job_bytes_max(&session.door.settings);
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!("the job would take {bytes} bytes to show; at most {bytes_max} will do");
    Err(Refusal::limit("job_bytes_max", message))
}
