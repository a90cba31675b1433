//! `job.submit`: stores a NewJob as a job. `job::spec` reads it.

use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    executor::{PreparedJob, Submitted, Tie},
    job::{Job, JobSpec},
    protocol::{
        ErrorKind,
        caller::Caller,
        jsonrpc::{
            envelope::{to_json, to_raw},
            error::Refusal,
        },
        methods::job_bytes_max,
    },
};

#[derive(Serialize)]
struct SubmitReply<'a> {
    job: &'a Job,
    created: bool,
}

/// The view of a submitted job.
pub fn reply(submitted: &Submitted) -> Box<RawValue> {
    to_raw(&SubmitReply {
        job: &submitted.job,
        created: submitted.created,
    })
}

/// Reads the NewJob of a submit; everything in it that can be refused is refused here, before anything is
/// stored.
pub fn read(caller: &Caller, params: &Map<String, Value>) -> Result<JobSpec, Refusal> {
    let job = caller.server.executor.read_new_job(params)?;
    check_size(&job, job_bytes_max(&caller.server.settings))?;
    Ok(job)
}

/// Stores a job, and ties it to its client's connection if the job asks for that.
pub async fn store(caller: &Caller, job: JobSpec) -> Result<Submitted, Refusal> {
    let prepared = prepare(caller, job).await?;
    store_prepared(caller, prepared).await
}

/// The first half of [`store`]: checks and completes a job, and stores nothing.
pub async fn prepare(caller: &Caller, job: JobSpec) -> Result<PreparedJob, Refusal> {
    check_not_draining(caller)?;
    let executor = &caller.server.executor;
    executor.check_ties(std::slice::from_ref(&job))?;
    Ok(executor.prepare(job, &caller.actor()).await?)
}

/// The second half.
pub async fn store_prepared(caller: &Caller, prepared: PreparedJob) -> Result<Submitted, Refusal> {
    let executor = &caller.executor();
    let submitted = executor.submit_prepared(prepared).await?;
    let tie = Tie::of(&submitted.job);
    executor.tie(&caller.id, tie.as_slice()).await;
    Ok(submitted)
}

/// A server that drains takes no new jobs.
pub fn check_not_draining(caller: &Caller) -> Result<(), Refusal> {
    if !caller.server.draining.is_cancelled() {
        return Ok(());
    }
    let message = "the server is stopping; try again later";
    Err(Refusal::new(ErrorKind::Unavailable, message))
}

/// Refuses a job whose view would not fit into one message.
pub fn check_size(job: &JobSpec, bytes_max: usize) -> Result<(), Refusal> {
    let names: Vec<&String> = job.env.keys().collect();
    // What a job has besides.
    let bytes = to_json(&json!([job, names])).len() + (8 << 10);
    if bytes <= bytes_max {
        return Ok(());
    }
    let message =
        format!("the job would take {bytes} bytes to show; at most {bytes_max} are allowed");
    Err(Refusal::limit("job_bytes_max", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Command;

    fn job(argument: usize, stdin: usize) -> JobSpec {
        let argv = vec!["true".to_owned(), "x".repeat(argument)];
        JobSpec {
            stdin: Some("x".repeat(stdin)),
            ..JobSpec::new(Command::Argv(argv))
        }
    }

    #[test]
    fn only_what_is_shown_counts() {
        let max = 900 << 10;
        assert!(check_size(&job(100, 1 << 20), max).is_ok());
        assert!(check_size(&job(800 << 10, 0), max).is_ok());
        let refusal = check_size(&job(900 << 10, 0), max).expect_err("too large");
        assert_eq!(refusal.kind, ErrorKind::LimitExceeded);
    }
}
