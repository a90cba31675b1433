//! `job.submit`: a NewJob, and with `tail` its output at once.
//!
//! What a NewJob may be is `job::spec`'s business.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    super::{super::Kind, envelope::to_json, refusal::Refusal, session::Session},
    Outcome, job_bytes_max,
    tail::Wanted,
};
use crate::{
    executor::{From, Tie},
    job::{Job, JobRef, JobSpec},
};

#[derive(Serialize)]
struct Result_<'a> {
    job: &'a Job,
    created: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<u32>,
    /// Why there is no subscription although one was asked for: the job itself is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    tail_error: Option<Refusal>,
}

pub async fn execute(session: &Session, params: Map<String, Value>) -> Result<Outcome, Refusal> {
    let job = session.door.executor.read_new_job(&params)?;
    let tail = params.get("tail").filter(|tail| !tail.is_null());
    let wanted = tail.map(Wanted::nested).transpose()?;
    drop(params);
    // Everything that can be refused is refused before anything is stored.
    check_size(&job, job_bytes_max(&session.door.settings))?;
    if let Some(wanted) = &wanted {
        session.tails.check_room()?;
        check_begin(wanted, &job)?;
    }
    check_open(session)?;
    let executor = &session.door.executor;
    executor.check_ties(std::slice::from_ref(&job))?;
    let submitted = executor.submit(job, &session.actor()).await?;
    let tie = Tie::of(&submitted.job);
    executor.tie(&session.id, tie.as_slice()).await;
    let opened = match wanted {
        Some(wanted) => Some(wanted.open(session, JobRef::Id(submitted.job.id)).await),
        None => None,
    };
    let (granted, tail_error) = match opened.transpose() {
        Ok(opened) => (opened, None),
        Err(refusal) => (None, Some(refusal)),
    };
    // What has happened before the tail began, the tail does not tell.
    let (granted, job) = granted.unzip();
    let outcome = Outcome::of(&Result_ {
        job: job.as_ref().unwrap_or(&submitted.job),
        created: submitted.created,
        subscription: granted.as_ref().map(|granted| granted.subscription),
        tail_error,
    });
    Ok(Outcome { granted, ..outcome })
}

/// A server that drains takes no new jobs.
pub fn check_open(session: &Session) -> Result<(), Refusal> {
    if !session.door.draining.is_cancelled() {
        return Ok(());
    }
    let message = "the server is stopping; try again later";
    Err(Refusal::new(Kind::Unavailable, message))
}

/// A new job has no output yet, so only an idempotency key, which may name an earlier one, makes
/// sense of a later beginning.
fn check_begin(wanted: &Wanted, job: &JobSpec) -> Result<(), Refusal> {
    match wanted.options.from {
        From::Offset(offset) if offset > 0 && job.idempotency_key.is_none() => {
            let refusal = Refusal::params("tail.from", "lies beyond the end: the job is new");
            Err(refusal.with("output_bytes", 0))
        }
        _ => Ok(()),
    }
}

/// A job that no message can tell is not taken: what its view shows must fit into one.
pub fn check_size(job: &JobSpec, bytes_max: usize) -> Result<(), Refusal> {
    let names: Vec<&String> = job.env.keys().collect();
    // What a job has besides.
    let bytes = to_json(&json!([job, names])).len() + (8 << 10);
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!("the job would take {bytes} bytes to show; at most {bytes_max} will do");
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
        assert_eq!(refusal.kind, Kind::LimitExceeded);
    }

    #[test]
    fn a_later_beginning_needs_a_key() {
        let wanted = Wanted::nested(&json!({"from": 5})).expect("valid");
        assert!(check_begin(&wanted, &job(0, 0)).is_err());
        let keyed = JobSpec {
            idempotency_key: Some("k".into()),
            ..job(0, 0)
        };
        assert!(check_begin(&wanted, &keyed).is_ok());
        let whole = Wanted::nested(&json!({"from": 0})).expect("valid");
        assert!(check_begin(&whole, &job(0, 0)).is_ok());
    }
}
