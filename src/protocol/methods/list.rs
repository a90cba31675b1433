//! `job.list`: jobs, newest first, page by page.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    executor::{JobPage, ListFilter},
    job::{JobNumber, JobState, Micros},
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        methods::{fitting, job_bytes_max},
    },
};

/// Most jobs of one page.
pub const LIMIT_MAX: u64 = 1000;
/// Jobs of a page if `limit` is not given.
const LIMIT_DEFAULT: u64 = 50;

/// The keys that say which jobs.
pub const FILTER_KEYS: [&str; 5] = ["state", "queue", "labels", "name", "since"];

const KEYS: [&str; 7] = [
    "state", "queue", "labels", "name", "since", "limit", "cursor",
];

fn page(params: &Params<'_>) -> Result<ListFilter, Refusal> {
    let limit = params
        .number("limit", 1, LIMIT_MAX)?
        .unwrap_or(LIMIT_DEFAULT);
    Ok(ListFilter {
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        below: cursor(params)?,
        ..filter(params)?
    })
}

/// The jobs that [`FILTER_KEYS`] choose, without the bounds of a page.
pub fn filter(params: &Params<'_>) -> Result<ListFilter, Refusal> {
    Ok(ListFilter {
        states: states(params)?,
        queue: params.text("queue")?.map(str::to_owned),
        labels: labels(params)?,
        name: params.text("name")?.map(str::to_owned),
        since: since(params)?,
        ..ListFilter::default()
    })
}

/// One state or a list of them.
fn states(params: &Params<'_>) -> Result<Vec<JobState>, Refusal> {
    let names = match params.get("state") {
        Some(Value::String(name)) => vec![name.as_str()],
        _ => params.texts("state")?.unwrap_or_default(),
    };
    let states = names.iter().map(|name| JobState::from_name(name));
    states.collect::<Option<_>>().ok_or_else(|| {
        let all = JobState::ALL.map(JobState::name).join(", ");
        params.wrong("state", &format!("must be one or several of {all}"))
    })
}

fn labels(params: &Params<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    let wrong = || params.wrong("labels", "must be an object whose values are strings");
    let Some(value) = params.get("labels") else {
        return Ok(BTreeMap::new());
    };
    let map = value.as_object().ok_or_else(wrong)?;
    map.iter()
        .map(|(key, value)| Ok((key.clone(), value.as_str().ok_or_else(wrong)?.to_owned())))
        .collect()
}

fn since(params: &Params<'_>) -> Result<Option<Micros>, Refusal> {
    let Some(text) = params.text("since")? else {
        return Ok(None);
    };
    let moment = DateTime::parse_from_rfc3339(text);
    let moment = moment.map_err(|_| params.wrong("since", "must be a time as in RFC 3339"))?;
    Ok(Some(Micros(moment.timestamp_micros())))
}

/// The cursor is the number of the last job on the previous page; to clients it is an opaque string.
fn cursor(params: &Params<'_>) -> Result<Option<JobNumber>, Refusal> {
    let Some(text) = params.text("cursor")? else {
        return Ok(None);
    };
    let number = text.parse().ok().filter(|number: &JobNumber| *number >= 0);
    number
        .map(Some)
        .ok_or_else(|| params.wrong("cursor", "must be next_cursor of the previous page"))
}

#[derive(Debug, Serialize)]
struct ListView {
    jobs: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl ListView {
    /// A page ends earlier if it would be longer than a message may be.
    fn of(page: &JobPage, bytes_max: usize) -> Self {
        let (jobs, all) = fitting(&page.jobs, bytes_max);
        let last_shown = page
            .jobs
            .get(jobs.len().wrapping_sub(1))
            .map(|job| job.number);
        let next = if all { page.next } else { last_shown };
        Self {
            jobs,
            next_cursor: next.map(|number| number.to_string()),
        }
    }
}

/// Reads the filter of a page, with its bounds.
pub fn filter_of(params: &Map<String, Value>) -> Result<ListFilter, Refusal> {
    page(&Params::new(params, &KEYS)?)
}

pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let filter = filter_of(&params)?;
    let page = caller
        .server
        .executor
        .list(filter, &caller.principal())
        .await?;
    Ok(to_raw(&ListView::of(
        &page,
        job_bytes_max(&caller.server.settings),
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<ListFilter, Refusal> {
        page(&Params::new(value.as_object().expect("an object"), &KEYS)?)
    }

    #[test]
    fn filters_are_read() {
        let all = parse(json!({})).expect("valid");
        assert_eq!(
            all,
            ListFilter {
                limit: 50,
                ..ListFilter::default()
            }
        );
        let one = parse(json!({
            "state": "queued", "queue": "q", "labels": {"a": "b"}, "name": "n",
            "since": "1970-01-01T01:00:00.000001+01:00", "limit": 1000, "cursor": "42",
        }));
        let expected = ListFilter {
            states: vec![JobState::Queued],
            queue: Some("q".into()),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            name: Some("n".into()),
            since: Some(Micros(1)),
            limit: 1000,
            below: Some(42),
            ..ListFilter::default()
        };
        assert_eq!(one, Ok(expected));
        let two = parse(json!({"state": ["running", "paused"]})).expect("valid");
        assert_eq!(two.states, [JobState::Running, JobState::Paused]);
    }

    #[test]
    fn wrong_filters_are_refused() {
        for wrong in [
            json!({"state": "done"}),
            json!({"state": ["queued", 1]}),
            json!({"state": 1}),
            json!({"labels": {"a": 1}}),
            json!({"labels": []}),
            json!({"since": "yesterday"}),
            json!({"since": 0}),
            json!({"limit": 0}),
            json!({"limit": 1001}),
            json!({"cursor": "x"}),
            json!({"cursor": 4}),
            json!({"cursor": "-1"}),
            json!({"order": "up"}),
        ] {
            assert!(parse(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
