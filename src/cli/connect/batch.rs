//! Many jobs in one commit: what they have in common is sent once, and what is longer than a message in
//! parts.

use std::cell::Cell;

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::{client::RequestError, link::Link, wire};
use crate::job::JobSpec;

/// A NewJob.
pub type NewJob = Map<String, Value>;

/// Most jobs of one commit, whatever the server's setting.
pub const JOBS_MAX: usize = 10_000;
/// Bytes of a message that are not jobs, at most.
const ENVELOPE_BYTES: usize = 1 << 10;
/// How much longer an id is than `#N`, at most, bytes.
const ID_BYTES: usize = 36;
/// Keys that each job keeps for itself.
const OWN_KEYS: [&str; 4] = ["idempotency_key", "after", "tail", "secrets_of"];

/// What a server takes in one commit.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Most jobs.
    pub jobs: usize,
    /// Most bytes of the jobs with what they have in common.
    pub bytes: usize,
    /// Most bytes of the jobs without it.
    pub own_bytes: usize,
    /// Whether what they have in common can be sent once.
    pub has_defaults: bool,
}

impl BatchLimits {
    /// Those of a server, from its greeting. Earlier versions take one message.
    pub async fn of(link: &mut Link) -> anyhow::Result<Self> {
        let client = link.client().await?;
        let limit = |name| usize::try_from(client.limit(name)?).ok();
        let jobs = limit("submit_many_max").unwrap_or(JOBS_MAX);
        let of_parts = (
            limit("submit_many_bytes_max"),
            limit("submit_many_parts_bytes_max"),
        );
        Ok(match of_parts {
            (Some(bytes), Some(own_bytes)) => Self {
                jobs,
                bytes,
                own_bytes,
                has_defaults: true,
            },
            _ => Self::of_one_message(jobs),
        })
    }

    fn of_one_message(jobs: usize) -> Self {
        let bytes = wire::MESSAGE_BYTES_MAX - ENVELOPE_BYTES;
        Self {
            jobs,
            bytes,
            own_bytes: bytes,
            has_defaults: false,
        }
    }
}

/// Jobs, and what all of them have in common.
#[derive(Debug, Default, PartialEq)]
pub struct SharedJobs {
    /// Keys of each of the jobs.
    pub defaults: NewJob,
    /// The jobs without these keys.
    pub jobs: Vec<NewJob>,
}

impl SharedJobs {
    /// Takes out of the jobs what all of them have in common, if the server knows `defaults`.
    pub fn new(jobs: Vec<NewJob>, limits: BatchLimits) -> Self {
        let Some(mut defaults) = jobs.first().filter(|_| limits.has_defaults).cloned() else {
            return Self {
                defaults: Map::new(),
                jobs,
            };
        };
        defaults.retain(|key, _| !OWN_KEYS.contains(&key.as_str()));
        for job in &jobs {
            defaults.retain(|key, shared| match (job.get(key), shared) {
                (Some(Value::Object(own)), Value::Object(shared)) if is_merged(key) => {
                    shared.retain(|name, value| own.get(name) == Some(value));
                    true
                }
                (own, shared) => own == Some(shared),
            });
        }
        let own = jobs.into_iter().map(|job| without(job, &defaults));
        Self {
            jobs: own.collect(),
            defaults,
        }
    }

    /// How many bytes the keys in common have.
    pub fn defaults_bytes(&self) -> usize {
        bytes(&self.defaults)
    }
}

fn is_merged(key: &str) -> bool {
    JobSpec::MERGED_KEYS.contains(&key)
}

/// A job without what `defaults` has of it.
fn without(mut job: NewJob, defaults: &NewJob) -> NewJob {
    job.retain(|key, own| match (defaults.get(key), own) {
        (None, _) => true,
        (Some(Value::Object(shared)), Value::Object(own)) if is_merged(key) => {
            own.retain(|name, _| !shared.contains_key(name));
            !own.is_empty()
        }
        (Some(_), _) => false,
    });
    job
}

/// Bytes of a job in a message, at most.
pub fn bytes(job: &NewJob) -> usize {
    let after = job.get("after").and_then(Value::as_array);
    let text = serde_json::to_string(job).map_or(usize::MAX / 2, |text| text.len());
    text + 1 + ID_BYTES * after.map_or(0, Vec::len)
}

/// Submits all jobs in one commit; `request` calls `job.submit_many` with parameters, and may repeat it.
/// The server's answers have the jobs' order.
///
/// # Errors
///
/// The server refuses a job or all of them, and then none is stored; or `request` fails.
pub async fn submit(
    defaults: &NewJob,
    jobs: &[NewJob],
    mut request: impl AsyncFnMut(&Value) -> anyhow::Result<Value>,
) -> anyhow::Result<Vec<Value>> {
    let parts = parts(defaults, jobs);
    let mut at = 0;
    loop {
        let is_last = at + 1 == parts.len();
        let mut params = json!({"jobs": parts[at]});
        if !defaults.is_empty() {
            params["defaults"] = json!(defaults);
        }
        if parts.len() > 1 {
            params["part"] = json!(at);
            params["more"] = json!(!is_last);
        }
        match request(&params).await {
            Ok(mut reply) if is_last => match reply["jobs"].take() {
                Value::Array(jobs) => return Ok(jobs),
                _ => bail!("the server's answer has no jobs"),
            },
            Ok(_) => at += 1,
            // The session that had the earlier parts was lost.
            Err(error) if is_refused_part(&error) => at = 0,
            Err(error) => return Err(error),
        }
    }
}

/// Sends a part of a batch; `may_exist` as in [`Link::submit`]. Parts before the last one make no jobs.
pub async fn send(
    link: &mut Link,
    params: &Value,
    may_exist: &Cell<bool>,
) -> anyhow::Result<Value> {
    const METHOD: &str = "job.submit_many";
    match params["more"] == true {
        true => link.request(METHOD, params).await,
        false => link.submit(METHOD, params, may_exist).await,
    }
}

/// Divides jobs into parts that fit into a message each.
fn parts<'a>(defaults: &NewJob, jobs: &'a [NewJob]) -> Vec<&'a [NewJob]> {
    let room = (wire::MESSAGE_BYTES_MAX - ENVELOPE_BYTES).saturating_sub(bytes(defaults));
    let (mut parts, mut begin, mut filled) = (Vec::new(), 0, 0);
    for (at, job) in jobs.iter().enumerate() {
        let bytes = bytes(job);
        if filled + bytes > room && at > begin {
            parts.push(&jobs[begin..at]);
            (begin, filled) = (at, 0);
        }
        filled += bytes;
    }
    parts.push(&jobs[begin..]);
    parts
}

fn is_refused_part(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<RequestError>();
    matches!(refused, Some(RequestError::Refused(error)) if error.data["key"] == "part")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Queue;

    const LIMITS: BatchLimits = BatchLimits {
        jobs: 10,
        bytes: 1 << 20,
        own_bytes: 1 << 20,
        has_defaults: true,
    };

    fn map(value: Value) -> NewJob {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn what_all_jobs_have_in_common_is_taken_out_and_can_be_filled_in_again() {
        let jobs = [
            json!({"shell": "a", "cwd": "/", "env": {"A": "1", "B": "2"}, "labels": null, "after": [{"job": 1}]}),
            json!({"shell": "b", "cwd": "/", "env": {"A": "1", "B": "3"}, "labels": null, "after": [{"job": 1}]}),
            json!({"shell": "c", "cwd": "/", "env": {"A": "1"}, "labels": null, "umask": "022"}),
        ]
        .map(map);
        let shared = SharedJobs::new(jobs.to_vec(), LIMITS);
        assert_eq!(
            shared.defaults,
            map(json!({"cwd": "/", "env": {"A": "1"}, "labels": null}))
        );
        assert_eq!(shared.jobs[2], map(json!({"shell": "c", "umask": "022"})));
        let filled = |job| Queue::fill_in(&shared.defaults, job);
        assert_eq!(shared.jobs.iter().map(filled).collect::<Vec<_>>(), jobs);
    }

    #[test]
    fn an_earlier_server_gets_each_job_as_a_whole() {
        let jobs = vec![map(json!({"cwd": "/"})); 2];
        let shared = SharedJobs::new(jobs.clone(), BatchLimits::of_one_message(10));
        assert_eq!((shared.defaults.len(), shared.jobs), (0, jobs));
        assert_eq!(SharedJobs::new(Vec::new(), LIMITS), SharedJobs::default());
    }

    #[test]
    fn parts_fit_into_messages() {
        let of = |count: usize, bytes: usize, defaults: usize| {
            let job = map(json!({"shell": "x".repeat(bytes)}));
            let defaults = map(json!({"stdin": "x".repeat(defaults)}));
            let jobs = vec![job; count];
            let parts = parts(&defaults, &jobs);
            parts.iter().map(|part| part.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(0, 1, 0), [0]);
        assert_eq!(of(10_000, 20, 0), [10_000]);
        assert_eq!(of(5, 400 << 10, 0), [2, 2, 1]);
        assert_eq!(of(5, 400 << 10, 400 << 10), [1, 1, 1, 1, 1]);
        // One that fits nowhere is refused with a message of its own.
        assert_eq!(of(2, 2 << 20, 0), [1, 1]);
    }

    #[tokio::test]
    async fn a_lost_session_gets_all_parts_again() {
        let jobs: Vec<NewJob> = (0..3)
            .map(|n| map(json!({"shell": "x".repeat(600 << 10), "name": n.to_string()})))
            .collect();
        let mut asked = Vec::new();
        let nothing = Map::new();
        let stored = submit(&nothing, &jobs, async |params: &Value| {
            asked.push((params["part"].clone(), params["more"].clone()));
            if asked.len() == 3 {
                let data = json!({"key": "part"});
                let error = json!({"code": -32006, "message": "lost", "data": data});
                let error = serde_json::from_value(error).expect("an error");
                return Err(RequestError::Refused(error).into());
            }
            Ok(json!({"jobs": [params["jobs"][0]["name"]]}))
        });
        assert_eq!(stored.await.expect("stored"), ["2"]);
        let parts = [
            (0, true),
            (1, true),
            (2, false),
            (0, true),
            (1, true),
            (2, false),
        ];
        let parts = parts.map(|(part, more)| (json!(part), json!(more)));
        assert_eq!(asked, parts);
    }
}
