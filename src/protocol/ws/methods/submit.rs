//! `job.submit` over a WebSocket: with `tail` the job's output follows the reply.
//! `protocol::methods::submit` stores the job.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{MethodFuture, Outcome, tail::TailRequest};
use crate::{
    access::Scope,
    executor::StartAt,
    job::{Job, JobRef, JobSpec},
    protocol::{jsonrpc::error::Refusal, methods::submit, ws::session::Session},
};

#[derive(Serialize)]
struct SubmitTailReply<'a> {
    job: &'a Job,
    created: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<u32>,
    /// Why there is no subscription although the request asked for one: the job itself is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    tail_error: Option<Refusal>,
}

/// Prepares a submit without `tail`; the future stores the job.
pub async fn begin(
    session: &Session,
    params: Map<String, Value>,
) -> Result<MethodFuture<'_>, Refusal> {
    let caller = &session.caller;
    let job = submit::read(caller, &params)?;
    drop(params);
    let prepared = submit::prepare(caller, job).await?;
    Ok(Box::pin(async move {
        let submitted = submit::store_prepared(caller, prepared).await?;
        Ok(submit::reply(&submitted).into())
    }))
}

/// A submit with `tail`.
pub async fn execute(session: &Session, params: Map<String, Value>) -> Result<Outcome, Refusal> {
    let caller = &session.caller;
    let tail = params.get("tail").unwrap_or(&Value::Null);
    caller.require(&[Scope::Read])?;
    let wanted = TailRequest::nested(tail);
    let job = submit::read(caller, &params)?;
    let wanted = wanted?;
    drop(params);
    let place = session.tails.reserve()?;
    check_start(&wanted, &job)?;
    let submitted = submit::store(caller, job).await?;
    let opened = wanted
        .open(session, JobRef::Id(submitted.job.id), place)
        .await;
    let (opened, tail_error) = match opened {
        Ok(opened) => (Some(opened), None),
        Err(refusal) => (None, Some(refusal)),
    };
    // The tail sends only what happens after it was opened, so the reply has the job as it was then.
    let (granted, job) = opened.unzip();
    let outcome = Outcome::of(&SubmitTailReply {
        job: job.as_ref().unwrap_or(&submitted.job),
        created: submitted.created,
        subscription: granted.as_ref().map(|granted| granted.subscription),
        tail_error,
    });
    Ok(Outcome { granted, ..outcome })
}

/// A new job has no output yet, so a later start makes sense only with an idempotency key, which may name
/// an earlier job.
fn check_start(wanted: &TailRequest, job: &JobSpec) -> Result<(), Refusal> {
    match wanted.options.from {
        StartAt::Offset(offset) if offset > 0 && job.idempotency_key.is_none() => {
            let refusal = Refusal::params("tail.from", "lies beyond the end: the job is new");
            Err(refusal.with("output_bytes", 0))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::Command;

    fn job() -> JobSpec {
        JobSpec::new(Command::Argv(vec!["true".to_owned()]))
    }

    #[test]
    fn a_later_beginning_needs_a_key() {
        let wanted = TailRequest::nested(&json!({"from": 5})).expect("valid");
        assert!(check_start(&wanted, &job()).is_err());
        let keyed = JobSpec {
            idempotency_key: Some("k".into()),
            ..job()
        };
        assert!(check_start(&wanted, &keyed).is_ok());
        let whole = TailRequest::nested(&json!({"from": 0})).expect("valid");
        assert!(check_start(&whole, &job()).is_ok());
    }
}
