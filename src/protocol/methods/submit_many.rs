//! `job.submit_many`: stores many NewJobs in one commit, all of them or none.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use tokio::sync::SemaphorePermit;

use super::submit::{check_not_draining, check_size};
use crate::{
    executor::{SubmitOutcome, Tie},
    job::{JobId, JobNumber, JobRef, JobSpec, JobState, Queue},
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

/// Most requests for so many jobs that are executed at a time: each takes up to three times
/// `submit_many_bytes_max` of memory.
pub const LARGE_AT_ONCE: usize = 1;
/// From so many entries on a request counts as one of these.
const LARGE_ENTRIES: usize = 64;

const KEYS: [&str; 2] = ["jobs", "defaults"];
/// Key of an entry that is no key of NewJob: the job whose notices' secrets it gets.
const SECRETS_OF: &str = "secrets_of";
/// Keys of NewJob that each entry has for itself.
const OWN_KEYS: [&str; 3] = ["idempotency_key", "tail", SECRETS_OF];

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

/// Jobs that are stored in one commit, from one request or from several.
#[derive(Debug)]
pub struct Batch<'a> {
    caller: &'a Caller,
    entries: Vec<ManyEntry>,
    /// Bytes of their texts.
    bytes: u64,
    /// Held by the one large batch that is executed at a time.
    large: Option<SemaphorePermit<'a>>,
}

impl<'a> Batch<'a> {
    /// A batch without jobs.
    pub fn new(caller: &'a Caller) -> Self {
        Self {
            caller,
            entries: Vec::new(),
            bytes: 0,
            large: None,
        }
    }

    /// Adds the jobs of a request, with its `defaults` for the keys that they leave out.
    ///
    /// # Errors
    ///
    /// One of them is wrong, which `index` names among all jobs of the batch, or there are too many.
    pub async fn add(&mut self, params: &Map<String, Value>) -> Result<(), Refusal> {
        let params = Params::new(params, &KEYS)?;
        let list = params.get("jobs").and_then(Value::as_array);
        let list = list.ok_or_else(|| params.wrong("jobs", "must be a list of jobs"))?;
        let defaults = defaults(&params)?;
        let count = self.entries.len() + list.len();
        check_count(count, self.caller.server.settings.submit_many_max)?;
        if count > LARGE_ENTRIES && self.large.is_none() {
            // The semaphore is never closed.
            self.large = self.caller.server.large_batches.acquire().await.ok();
        }
        for entry in list {
            let at = self.entries.len();
            let read = self.read(defaults, entry);
            self.entries
                .push(read.map_err(|refusal| refusal.at("jobs", at))?);
        }
        Ok(())
    }

    fn read(
        &mut self,
        defaults: Option<&Map<String, Value>>,
        entry: &Value,
    ) -> Result<ManyEntry, Refusal> {
        let settings = &self.caller.server.settings;
        let (job, signed_like) = new_job(self.caller, defaults, entry)?;
        self.bytes += job.text_bytes() as u64;
        let max = settings.submit_many_bytes();
        if self.bytes > max {
            let message = format!(
                "the jobs up to this one have more than {max} bytes of commands, environments and stdin; \
                 submit fewer at once"
            );
            return Err(Refusal::limit("submit_many_bytes_max", message));
        }
        Ok((job, signed_like))
    }

    /// Stores the jobs, and ties those to their client's connection that ask for it.
    ///
    /// # Errors
    ///
    /// One of them cannot be stored, and then none is.
    pub async fn store(self) -> Result<Box<RawValue>, Refusal> {
        let Self {
            caller, entries, ..
        } = self;
        check_not_draining(caller)?;
        let executor = &caller.executor();
        let mut jobs = Vec::with_capacity(entries.len());
        for (at, (mut job, signed_like)) in entries.into_iter().enumerate() {
            if let Some(other) = signed_like {
                let signed = executor.sign_like(&mut job, other, &caller.actor()).await;
                signed.map_err(|error| Refusal::from(error).at("jobs", at))?;
            }
            jobs.push(job);
        }
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
}

/// Refuses more jobs than one commit may have.
pub fn check_count(count: usize, max: u64) -> Result<(), Refusal> {
    if count as u64 <= max {
        return Ok(());
    }
    let message = format!("jobs: at most {max} at once; submit the rest with another request");
    Err(Refusal::limit("submit_many_max", message))
}

fn defaults<'a>(params: &Params<'a>) -> Result<Option<&'a Map<String, Value>>, Refusal> {
    let Some(value) = params.get("defaults") else {
        return Ok(None);
    };
    let wrong = |message: &str| params.wrong("defaults", message);
    let defaults = value
        .as_object()
        .ok_or_else(|| wrong("must be an object with keys of a job"))?;
    let is_given = |key: &&str| defaults.get(*key).is_some_and(|value| !value.is_null());
    match OWN_KEYS.into_iter().find(is_given) {
        None => Ok(Some(defaults)),
        Some(key) => {
            let message = "each job has its own, so it can be no default";
            Err(params.wrong(&format!("defaults.{key}"), message))
        }
    }
}

fn new_job(
    caller: &Caller,
    defaults: Option<&Map<String, Value>>,
    entry: &Value,
) -> Result<ManyEntry, Refusal> {
    let map = entry
        .as_object()
        .ok_or_else(|| Refusal::params("jobs", "each must be an object"))?;
    if map.get("tail").is_some_and(|tail| !tail.is_null()) {
        return Err(Refusal::params("tail", "allowed only in job.submit"));
    }
    let mut map = match defaults {
        Some(defaults) => Cow::Owned(Queue::fill_in(defaults, map)),
        None => Cow::Borrowed(map),
    };
    let signed_like = match map.contains_key(SECRETS_OF) {
        true => map.to_mut().remove(SECRETS_OF),
        false => None,
    };
    let signed_like = signed_like.filter(|of| !of.is_null()).map(|of| {
        let wrong = "must be a job's number or id";
        job_ref(&of).ok_or_else(|| Refusal::params(SECRETS_OF, wrong))
    });
    let job = caller.server.executor.read_new_job(&map)?;
    check_size(&job, job_bytes_max(&caller.server.settings))?;
    Ok((job, signed_like.transpose()?))
}

/// The reply with what became of each entry.
pub fn reply(outcomes: Vec<SubmitOutcome>) -> Box<RawValue> {
    let jobs = outcomes.into_iter().map(SubmittedView::from).collect();
    to_raw(&SubmitManyReply { jobs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_what_jobs_may_share() {
        let read = |value: Value| {
            let map = value.as_object().expect("an object");
            let params = Params::new(map, &KEYS).map_err(|refusal| refusal.message)?;
            let read = defaults(&params).map_err(|refusal| refusal.message);
            read.map(|defaults| defaults.map(Map::len))
        };
        assert_eq!(read(json!({"jobs": []})), Ok(None));
        assert_eq!(read(json!({"defaults": null})), Ok(None));
        assert_eq!(
            read(json!({"defaults": {"cwd": "/", "env": {}}})),
            Ok(Some(2))
        );
        let nulls = json!({"tail": null, "idempotency_key": null, "secrets_of": null});
        assert_eq!(read(json!({"defaults": nulls})), Ok(Some(3)));
        for (wrong, key) in [
            (json!({"defaults": []}), "defaults: "),
            (json!({"defaults": {"tail": {}}}), "defaults.tail: "),
            (
                json!({"defaults": {"idempotency_key": "k"}}),
                "defaults.idempotency_key: ",
            ),
            (json!({"colour": 1}), "colour: "),
        ] {
            let message = read(wrong.clone()).expect_err("wrong");
            assert!(message.starts_with(key), "{wrong}: {message}");
        }
        assert!(check_count(3, 3).is_ok() && check_count(4, 3).is_err());
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
