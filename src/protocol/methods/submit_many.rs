//! `job.submit_many`: stores many NewJobs in one commit, all of them or none.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::submit::{check_not_draining, check_size};
use crate::{
    executor::{SubmitOutcome, Tie},
    job::{JobId, JobNumber, JobRef, JobSpec, JobState},
    protocol::{
        caller::Caller,
        jsonrpc::{
            envelope::to_raw,
            error::Refusal,
            params::{Params, job_ref},
        },
        methods::job_bytes_max,
    },
};

/// Longest `id` of such a request, bytes: the reply for 10,000 jobs leaves no more space in a message of 1
/// MiB.
pub const ID_BYTES_MAX: usize = 1 << 10;

const KEYS: [&str; 1] = ["jobs"];
/// Key of an entry that is no key of NewJob: the job whose notices' secrets it gets.
const SECRETS_OF: &str = "secrets_of";

/// An entry, and the job whose secrets it gets.
type ManyEntry = (JobSpec, Option<JobRef>);

#[derive(Debug, Serialize)]
struct SubmitManyReply {
    jobs: Vec<SubmittedView>,
}

#[derive(Debug, Serialize)]
struct SubmittedView {
    id: JobId,
    number: JobNumber,
    state: JobState,
    created: bool,
}

impl From<SubmitOutcome> for SubmittedView {
    fn from(outcome: SubmitOutcome) -> Self {
        let SubmitOutcome {
            id,
            number,
            state,
            created,
        } = outcome;
        Self {
            id,
            number,
            state,
            created,
        }
    }
}

fn entries<'a>(params: &Params<'a>, max: u64) -> Result<&'a [Value], Refusal> {
    let list = params.get("jobs").and_then(Value::as_array);
    let list = list.ok_or_else(|| params.wrong("jobs", "must be a list of jobs"))?;
    if list.len() as u64 > max {
        let message = format!("jobs: at most {max} at once; submit the rest with another request");
        return Err(Refusal::limit("submit_many_max", message));
    }
    Ok(list)
}

fn new_job(caller: &Caller, entry: &Value) -> Result<ManyEntry, Refusal> {
    let map = entry
        .as_object()
        .ok_or_else(|| Refusal::params("jobs", "each must be an object"))?;
    if map.get("tail").is_some_and(|tail| !tail.is_null()) {
        return Err(Refusal::params("tail", "allowed only in job.submit"));
    }
    let executor = &caller.server.executor;
    let (job, signed_like) = match map.get(SECRETS_OF) {
        None => (executor.read_new_job(map)?, None),
        Some(of) => {
            let wrong = "must be a job's number or id";
            let of = job_ref(of).ok_or_else(|| Refusal::params(SECRETS_OF, wrong))?;
            let mut map = map.clone();
            map.remove(SECRETS_OF);
            (executor.read_new_job(&map)?, Some(of))
        }
    };
    check_size(&job, job_bytes_max(&caller.server.settings))?;
    Ok((job, signed_like))
}

async fn new_jobs(caller: &Caller, params: &Map<String, Value>) -> Result<Vec<JobSpec>, Refusal> {
    let params = Params::new(params, &KEYS)?;
    let entries = entries(&params, caller.server.settings.submit_many_max)?;
    let read = |(at, entry)| new_job(caller, entry).map_err(|refusal| refusal.at("jobs", at));
    let entries = entries.iter().enumerate().map(read);
    let entries = entries.collect::<Result<Vec<ManyEntry>, Refusal>>()?;
    let mut jobs = Vec::with_capacity(entries.len());
    for (at, (mut job, signed_like)) in entries.into_iter().enumerate() {
        if let Some(other) = signed_like {
            let signed = caller.server.executor.sign_like(&mut job, other).await;
            signed.map_err(|error| Refusal::from(error).at("jobs", at))?;
        }
        jobs.push(job);
    }
    Ok(jobs)
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let jobs = new_jobs(caller, &params).await?;
    drop(params);
    check_not_draining(caller)?;
    let executor = &caller.server.executor;
    executor.check_ties(&jobs)?;
    let delays: Vec<_> = jobs.iter().map(Tie::delay).collect();
    let outcomes = executor.submit_many(jobs, &caller.actor()).await?;
    let ties = outcomes.iter().zip(delays).filter_map(|(outcome, delay)| {
        let job = outcome.number;
        delay.map(|delay| Tie { job, delay })
    });
    executor.tie(&caller.id, &ties.collect::<Vec<_>>()).await;
    Ok(reply(outcomes))
}

/// The reply with what became of each entry.
pub fn reply(outcomes: Vec<SubmitOutcome>) -> Box<RawValue> {
    let jobs = outcomes.into_iter().map(SubmittedView::from).collect();
    to_raw(&SubmitManyReply { jobs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorKind;

    fn count(value: Value) -> Result<usize, ErrorKind> {
        let map = value.as_object().expect("an object");
        let params = Params::new(map, &KEYS).map_err(|refusal| refusal.kind)?;
        entries(&params, 3)
            .map(<[Value]>::len)
            .map_err(|refusal| refusal.kind)
    }

    #[test]
    fn a_batch_is_a_list_with_a_bound() {
        use serde_json::json;
        assert_eq!(count(json!({"jobs": []})), Ok(0));
        assert_eq!(count(json!({"jobs": [1, 2, 3]})), Ok(3));
        assert_eq!(
            count(json!({"jobs": [1, 2, 3, 4]})),
            Err(ErrorKind::LimitExceeded)
        );
        for wrong in [
            json!({}),
            json!({"jobs": {}}),
            json!({"jobs": [], "colour": 1}),
        ] {
            assert_eq!(
                count(wrong.clone()),
                Err(ErrorKind::InvalidParams),
                "{wrong}"
            );
        }
    }

    /// The longest possible reply before the 10^12th job.
    #[test]
    fn the_reply_for_the_most_jobs_fits_into_a_message() {
        let view = SubmittedView {
            id: JobId(uuid::Uuid::max()),
            number: 999_999_999_999,
            state: JobState::Succeeded,
            created: false,
        };
        let one = serde_json::to_string(&view).expect("JSON").len() + 1;
        let envelope = r#"{"jsonrpc":"2.0","id":,"result":{"jobs":[]}}"#.len() + ID_BYTES_MAX;
        assert!(10_000 * one + envelope <= 1 << 20, "{one} bytes each");
    }
}
