//! `job.wait`: waits until jobs are final or running, or until their output meets a condition. It runs
//! beside the session's other requests.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    executor::{Decision, Pattern, PatternError, Until, WaitOptions, Waited},
    job::{JobRef, Offset, Stream},
    protocol::{
        caller::Caller,
        encode::chunk_json::ChunkView,
        jsonrpc::{
            envelope::{to_json, to_raw},
            error::Refusal,
            params::{NOT_A_JOB, OFFSET_MAX, Params, job_ref},
        },
        methods::{fitting, job_bytes_max},
    },
};

/// Most jobs of one wait.
pub const JOBS_MAX: usize = 1000;

const KEYS: [&str; 4] = ["jobs", "mode", "until", "timeout_s"];
/// The keys of a condition over output, by the key that names the condition.
const CONDITIONS: [(&str, &[&str]); 3] = [
    ("regex", &["regex", "stream", "from"]),
    ("idle_s", &["idle_s"]),
    ("bytes", &["bytes"]),
];

fn options(params: &Params<'_>) -> Result<WaitOptions, Refusal> {
    Ok(WaitOptions {
        jobs: jobs(params)?,
        all: params
            .one_of("mode", &[("any", false), ("all", true)])?
            .unwrap_or(false),
        until: until(params)?,
        timeout: params.seconds("timeout_s")?,
    })
}

fn jobs(params: &Params<'_>) -> Result<Vec<JobRef>, Refusal> {
    let list = params
        .get("jobs")
        .and_then(Value::as_array)
        .filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| params.wrong("jobs", "must be a list of at least one job"))?;
    if list.len() > JOBS_MAX {
        let message = format!("jobs: at most {JOBS_MAX} in one wait");
        return Err(Refusal::limit("wait_jobs_max", message));
    }
    let jobs = list.iter().map(job_ref).collect::<Option<_>>();
    jobs.ok_or_else(|| params.wrong("jobs", &format!("each {NOT_A_JOB}")))
}

fn until(params: &Params<'_>) -> Result<Until, Refusal> {
    if let Some(Value::Object(condition)) = params.get("until") {
        return until_output(condition);
    }
    let words = [("final", Until::Final), ("running", Until::Running)];
    let Some(value) = params.get("until") else {
        return Ok(Until::Final);
    };
    let found = words.into_iter().find(|(word, _)| value == word);
    found.map(|(_, until)| until).ok_or_else(|| {
        let message = "must be \"final\", \"running\", {regex}, {idle_s} or {bytes}";
        params.wrong("until", message)
    })
}

fn until_output(condition: &Map<String, Value>) -> Result<Until, Refusal> {
    let named = CONDITIONS
        .iter()
        .find(|(key, _)| condition.get(*key).is_some_and(|value| !value.is_null()));
    let (key, keys) = named
        .ok_or_else(|| Refusal::params("until", "an object must have regex, idle_s or bytes"))?;
    let others = CONDITIONS.iter().flat_map(|(_, keys)| keys.iter());
    let nulls = others.filter(|key| condition.get(**key).is_some_and(Value::is_null));
    let known: Vec<&str> = keys.iter().chain(nulls).copied().collect();
    let params = Params::nested(condition, "until.", &known)?;
    let missing = || params.wrong(key, "missing");
    match *key {
        "regex" => until_match(&params),
        "idle_s" => Ok(Until::Quiet(params.seconds(key)?.ok_or_else(missing)?)),
        _ => {
            let bytes = params.number(key, 0, OFFSET_MAX)?;
            Ok(Until::Bytes(bytes.ok_or_else(missing)?))
        }
    }
}

fn until_match(params: &Params<'_>) -> Result<Until, Refusal> {
    let text = params
        .text("regex")?
        .ok_or_else(|| params.wrong("regex", "missing"))?;
    let pattern = Pattern::new(text).map_err(|error| match error {
        PatternError::TooLong => Refusal::limit("pattern_bytes_max", error.to_string()),
        error => params.wrong("regex", &error.to_string()),
    })?;
    let streams = [Stream::Stdout, Stream::Stderr, Stream::Pty];
    Ok(Until::Match {
        pattern,
        stream: params.one_of("stream", &streams.map(|stream| (stream.name(), stream)))?,
        from: params.offset("from")?.unwrap_or(0),
    })
}

#[derive(Debug, Serialize)]
struct WaitView<'a> {
    met: bool,
    job: Option<Box<RawValue>>,
    jobs: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Offset>,
    last_output: Option<ChunkView<'a>>,
    /// Present if not all jobs fit into one message.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl<'a> WaitView<'a> {
    fn of(waited: &'a Waited, bytes_max: usize) -> Self {
        let job = waited.job.as_ref().map(to_raw);
        let last_output = waited.last_output.as_ref().map(ChunkView::of);
        let other_bytes =
            job.as_ref().map_or(0, |job| job.get().len()) + to_json(&last_output).len();
        let left = bytes_max.saturating_sub(other_bytes);
        let (mut jobs, all) = fitting(&waited.jobs, left);
        // `fitting` always takes the first item, and `job` may have filled the message.
        if jobs.first().is_some_and(|first| first.get().len() > left) {
            jobs.clear();
        }
        let truncated = waited.truncated || !all || jobs.len() < waited.jobs.len();
        Self {
            met: waited.met,
            job,
            jobs,
            offset: waited.offset,
            last_output,
            truncated,
        }
    }
}

/// Waits. The jobs for the reply are read only after the reply's permit is there.
pub async fn wait_for_decision(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Decision, Refusal> {
    let options = options(&Params::new(&params, &KEYS)?)?;
    drop(params);
    Ok(caller.server.executor.wait(&caller.turns, options).await?)
}

/// Makes the reply for the decision of a wait.
pub async fn reply(caller: &Caller, decision: Decision) -> Result<Box<RawValue>, Refusal> {
    let waited = caller.server.executor.waited(decision).await?;
    Ok(to_raw(&WaitView::of(
        &waited,
        job_bytes_max(&caller.server.settings),
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::protocol::ErrorKind;

    fn parse(value: Value) -> Result<WaitOptions, Refusal> {
        options(&Params::new(value.as_object().expect("an object"), &KEYS)?)
    }

    #[test]
    fn options_are_read() {
        let options = parse(json!({"jobs": [1, "2"]})).expect("valid");
        let expected = WaitOptions {
            jobs: vec![JobRef::Number(1), JobRef::Number(2)],
            all: false,
            until: Until::Final,
            timeout: None,
        };
        assert_eq!(options, expected);
        let options = parse(json!({
            "jobs": [1], "mode": "all", "until": "running", "timeout_s": 0.5,
        }));
        let options = options.expect("valid");
        assert_eq!((options.all, options.until), (true, Until::Running));
        assert_eq!(options.timeout, Some(Duration::from_millis(500)));
    }

    #[test]
    fn conditions_over_output_are_read() {
        let until = |until: Value| {
            let options = parse(json!({"jobs": [1], "until": until}));
            options.expect("valid").until
        };
        let pattern = Pattern::new("x+").expect("valid");
        assert_eq!(
            until(json!({"regex": "x+", "stream": "stderr", "from": 7})),
            Until::Match {
                pattern,
                stream: Some(Stream::Stderr),
                from: 7
            }
        );
        let quiet = Until::Quiet(Duration::from_millis(1500));
        assert_eq!(until(json!({"idle_s": 1.5})), quiet);
        assert_eq!(until(json!({"bytes": 0})), Until::Bytes(0));
        let nulls =
            json!({"bytes": 7, "regex": null, "stream": null, "from": null, "idle_s": null});
        assert_eq!(until(nulls), Until::Bytes(7));
    }

    #[test]
    fn wrong_options_are_refused_in_their_own_ways() {
        for (wrong, kind) in [
            (json!({}), ErrorKind::InvalidParams),
            (json!({"jobs": []}), ErrorKind::InvalidParams),
            (json!({"jobs": 1}), ErrorKind::InvalidParams),
            (json!({"jobs": ["x"]}), ErrorKind::InvalidParams),
            (
                json!({"jobs": [1], "mode": "some"}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "until": "idle"}),
                ErrorKind::InvalidParams,
            ),
            (json!({"jobs": [1], "until": {}}), ErrorKind::InvalidParams),
            (
                json!({"jobs": [1], "until": {"colour": 1}}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "until": {"bytes": 1, "colour": 1}}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "timeout_s": -1}),
                ErrorKind::InvalidParams,
            ),
            (json!({"jobs": vec![1; 1001]}), ErrorKind::LimitExceeded),
            (
                json!({"jobs": [1], "until": {"regex": "("}}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "until": {"regex": null}}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "until": {"regex": "x", "stream": "stdin"}}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "until": {"regex": "x", "idle_s": 1}}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "until": {"regex": "x".repeat(4097)}}),
                ErrorKind::LimitExceeded,
            ),
            (
                json!({"jobs": [1], "until": {"idle_s": -1}}),
                ErrorKind::InvalidParams,
            ),
            (
                json!({"jobs": [1], "until": {"bytes": "1"}}),
                ErrorKind::InvalidParams,
            ),
        ] {
            assert_eq!(
                parse(wrong.clone()).map_err(|r| r.kind).err(),
                Some(kind),
                "{wrong}"
            );
        }
    }

    #[test]
    fn nothing_met_is_told_with_nulls() {
        let waited = Waited {
            met: false,
            job: None,
            jobs: Vec::new(),
            truncated: false,
            offset: None,
            last_output: None,
        };
        let shown = json!(WaitView::of(&waited, 1000));
        assert_eq!(
            shown,
            json!({"met": false, "job": null, "jobs": [], "last_output": null})
        );
    }
}
