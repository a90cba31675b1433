//! How a job of a flow talks to its server: it waits for one that is gone, and starts none, because
//! whoever ended it may be about to start it again. And what it asks for.

use std::{io::Read, process::ExitCode};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::new_jobs::UNDECIDED;
use crate::{
    cli::{
        connect::{client::RequestError, link::Link, target::Connect},
        render::exit_code,
    },
    job::JobSpec,
    sys::waiting_io::WaitingIo,
};

/// Bytes of one read: the most that `job.read` returns.
const READ_BYTES: u64 = 512 << 10;

/// A job that runs one of our verbs, and its connection.
pub struct OwnJob {
    /// The connection.
    pub link: Link,
    /// The job as it was at its start.
    pub job: Value,
}

impl OwnJob {
    /// The job that this process is, and what it was given on stdin.
    pub async fn find<T: DeserializeOwned>(connect: &Connect) -> anyhow::Result<(Self, T)> {
        let id = std::env::var("CC_EXECUTOR_JOB_ID");
        let id = id.context("this verb is for jobs of `cc-executor flow run` only")?;
        let mut given = String::new();
        WaitingIo(std::io::stdin())
            .read_to_string(&mut given)
            .context("stdin cannot be read")?;
        let given = serde_json::from_str(&given).context("stdin has no rules of this version")?;
        let mut link = Link::unconnected(connect.target()?);
        let job = ask(&mut link, "job.get", &json!({"job": id})).await?;
        Ok((Self { link, job }, given))
    }

    /// A label of this job.
    pub fn label(&self, name: &str) -> anyhow::Result<&str> {
        let label = self.job["labels"][name].as_str();
        label.with_context(|| format!("this job has no label {name}"))
    }

    /// The id of the job that this one waits for.
    pub fn subject(&self) -> anyhow::Result<String> {
        let subject = self.job["after"][0]["job"].as_str();
        subject
            .map(str::to_owned)
            .context("this job waits for no other")
    }
}

/// Asks until there is an answer: only for requests that do no harm when they are done twice.
pub async fn ask(link: &mut Link, method: &str, params: &Value) -> anyhow::Result<Value> {
    loop {
        if let Some(reply) = link.try_request(method, params).await? {
            return Ok(reply);
        }
    }
}

/// The exit code of a job that could not decide: whether another try may help.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    let may_help = match error.downcast_ref() {
        Some(RequestError::Refused(refusal)) => refusal.is_temporary(),
        Some(RequestError::Lost(_)) => true,
        Some(RequestError::TooLong { .. }) | None => false,
    };
    ExitCode::from(match may_help {
        true => UNDECIDED,
        false => exit_code::FAILURE,
    })
}

/// Reads output of a job from an offset to its end, or with one stream only; `take` gets it piece by
/// piece, and says whether it wants more.
pub async fn output(
    link: &mut Link,
    job: &str,
    mut from: u64,
    stream: Option<&str>,
    mut take: impl AsyncFnMut(&[u8]) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    loop {
        let mut params = json!({"job": job, "from": from, "max_bytes": READ_BYTES});
        if let Some(stream) = stream {
            params["streams"] = json!([stream]);
        }
        let reply = ask(link, "job.read", &params).await?;
        for chunk in reply["chunks"].as_array().into_iter().flatten() {
            if !take(&bytes(chunk)?).await? {
                return Ok(());
            }
        }
        let next = reply["next_offset"]
            .as_u64()
            .context("the server's answer has no offset")?;
        if next == from || !reply["end"].is_null() {
            return Ok(());
        }
        from = next;
    }
}

/// The bytes of a chunk of `job.read`; none of a gap.
fn bytes(chunk: &Value) -> anyhow::Result<Vec<u8>> {
    match (chunk["data"].as_str(), chunk["data_base64"].as_str()) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(encoded)) => Ok(STANDARD.decode(encoded)?),
        (None, None) => Ok(Vec::new()),
    }
}

/// A job's NewJob, with environment and stdin.
pub async fn new_job_of(link: &mut Link, job: &str) -> anyhow::Result<Map<String, Value>> {
    let job = ask(
        link,
        "job.get",
        &json!({"job": job, "include": ["env", "stdin"]}),
    )
    .await?;
    resubmission(job)
}

/// The NewJob of a Job that has `env` and `stdin`.
fn resubmission(mut job: Value) -> anyhow::Result<Map<String, Value>> {
    let secrets = ["env", "stdin"].map(|key| (key.to_owned(), job[key].take()));
    let id = job.get("id").cloned();
    let mut notify = job["notify"].as_array().into_iter().flatten();
    let is_signed = notify.any(|entry| entry["has_secret"] == true);
    let spec: JobSpec = serde_json::from_value(job)
        .context("the server described a job that this version does not understand")?;
    let Value::Object(mut keys) = serde_json::to_value(spec)? else {
        anyhow::bail!("a job is not an object");
    };
    keys.extend(secrets);
    // Null keeps a queue's default away, but of these one is left out.
    keys.retain(|key, value| !value.is_null() || !["argv", "shell"].contains(&key.as_str()));
    let notify = keys.get_mut("notify").and_then(Value::as_array_mut);
    for entry in notify
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        entry.retain(|key, value| key != "has_secret" && !value.is_null());
    }
    // Only the server has the secrets.
    if let Some(id) = id.filter(|_| is_signed) {
        keys.insert("secrets_of".to_owned(), id);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_becomes_the_new_job_that_it_was() {
        let id = uuid::Uuid::nil().to_string();
        let new = json!({"shell": "x", "cwd": "/a", "env": {"A": "b"}, "stdin": "in", "queue": "q",
            "after": [{"job": id, "on": "finish"}], "labels": {"flow": "f"}, "name": "n",
            "retry": {"max_attempts": 2, "backoff_s": 1.0, "max_backoff_s": 300.0, "on": ["signal", 75]},
            "timeout_s": 5.0, "notify": [{"on": ["failed"], "url": "http://h/"},
                {"on": ["queued"], "argv": ["tell"]}]});
        let mut job = new.clone();
        job["notify"] = json!([{"on": ["failed"], "argv": null, "url": "http://h/", "has_secret": true},
            {"on": ["queued"], "argv": ["tell"], "url": null, "has_secret": false}]);
        for (key, value) in [
            ("id", json!(id)),
            ("number", json!(7)),
            ("state", json!("failed")),
            ("argv", Value::Null),
            ("limits", Value::Null),
            ("env_names", json!(["A"])),
        ] {
            job[key] = value;
        }
        let mut again = resubmission(job).expect("a NewJob");
        for (key, value) in new.as_object().expect("an object") {
            assert_eq!(&again[key], value, "{key}");
        }
        assert!(!again.contains_key("number") && !again.contains_key("argv"));
        assert_eq!(again.remove("secrets_of"), Some(json!(id)));
        JobSpec::read(again).expect("a job that the server takes");
    }

    #[test]
    fn chunks_are_bytes_and_gaps_are_none() {
        assert_eq!(bytes(&json!({"data": "ü"})).expect("text"), "ü".as_bytes());
        assert_eq!(
            bytes(&json!({"data_base64": "/w=="})).expect("bytes"),
            [0xff]
        );
        assert_eq!(bytes(&json!({"gap": {}})).expect("none"), [0u8; 0]);
    }
}
