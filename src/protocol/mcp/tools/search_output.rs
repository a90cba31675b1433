//! `search_output`: a regex over the outputs of one job or of all jobs, like grep.

use serde_json::{Map, Value, json};

use super::{
    super::{
        jobs,
        reply::{self, NextCall, Reply, body_chars},
    },
    arguments,
    call::{ToolCall, job_schema, object},
};
use crate::{
    escape,
    protocol::{
        jsonrpc::{error::Refusal, params::Params},
        methods::search,
    },
};

const KEYS: [&str; 10] = [
    "pattern",
    "job",
    "ignore_case",
    "state",
    "queue",
    "name",
    "since",
    "limit",
    "cursor",
    "max_chars",
];
/// Arguments that the search of the protocol takes under the same name.
const SAME_KEYS: [&str; 6] = ["ignore_case", "state", "queue", "name", "since", "cursor"];
/// Hits of an answer if the call does not say.
const LIMIT_DEFAULT: u64 = 50;
/// Most hits that a call may ask for.
const LIMIT_MAX: u64 = 200;
/// Longest line of an answer, characters.
const LINE_CHARS_MAX: usize = 300;

/// The arguments.
pub fn schema() -> Value {
    object(
        &["pattern"],
        json!({
            "pattern": {"type": "string", "description": "regex, one line"},
            "job": job_schema(),
            "ignore_case": {"type": "boolean"},
            "state": {"type": "string"},
            "queue": {"type": "string"},
            "name": {"type": "string"},
            "since": {"type": "string", "description": "RFC 3339 time"},
            "limit": {"type": "integer"},
            "cursor": {"type": "string"},
            "max_chars": {"type": "integer"},
        }),
    )
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let chars = arguments::max_chars(&params)?;
    let asked = asked(&call, &params).await?;
    let (found, _turn) = search::execute(call.caller, asked)
        .await
        .map_err(in_our_words)?;
    let found: Value = serde_json::from_str(found.get()).unwrap_or_default();
    Ok(Reply::text(shown(&call, &found, chars)))
}

/// The parameters of `history.search`.
async fn asked(call: &ToolCall<'_>, params: &Params<'_>) -> Result<Map<String, Value>, Refusal> {
    let pattern = params.text("pattern")?;
    let pattern = pattern.ok_or_else(|| params.wrong("pattern", "missing"))?;
    let limit = params
        .number("limit", 1, LIMIT_MAX)?
        .unwrap_or(LIMIT_DEFAULT);
    let mut asked = Map::new();
    asked.insert("regex".to_owned(), pattern.into());
    asked.insert("limit".to_owned(), limit.into());
    for key in SAME_KEYS {
        if let Some(value) = params.get(key) {
            asked.insert(key.to_owned(), value.clone());
        }
    }
    if params.get("job").is_some() {
        let job = jobs::required(call.caller, &call.arguments, "job").await?;
        asked.insert("job".to_owned(), job.to_string().into());
    }
    Ok(asked)
}

/// The key of the pattern has another name here.
fn in_our_words(mut refusal: Refusal) -> Refusal {
    if let Some(rest) = refusal.message.strip_prefix("regex: ") {
        refusal.message = format!("pattern: {rest}");
    }
    refusal
}

/// The hits that fit, and how far the search came.
fn shown(call: &ToolCall<'_>, found: &Value, chars: usize) -> String {
    let none = Vec::new();
    let hits = found["hits"].as_array().unwrap_or(&none);
    let next = next(call, found, hits);
    let mut left = body_chars(&" ".repeat(120), &next, chars);
    let mut body = String::new();
    let mut count = 0;
    for hit in hits {
        let line = line(hit);
        let Some(rest) = left.checked_sub(line.chars().count() + 1) else {
            break;
        };
        left = rest;
        body.push_str(&line);
        body.push('\n');
        count += 1;
    }
    let searched = match found["jobs_searched"].as_u64() {
        Some(1) => format!("1 job with {} bytes searched", found["bytes_searched"]),
        jobs => format!(
            "{} jobs with {} bytes searched",
            jobs.unwrap_or(0),
            found["bytes_searched"]
        ),
    };
    let status = match (hits.len(), found["truncated"] == true) {
        (0, false) => format!("no line matches; {searched}"),
        (0, true) => format!("no line matches so far; {searched}, there is more to search"),
        (all, more) => {
            let more = if more { ", there may be more" } else { "" };
            let hidden = match all - count {
                0 => String::new(),
                hidden => format!(", {hidden} of them not shown"),
            };
            let lines = if all == 1 {
                "line matches"
            } else {
                "lines match"
            };
            format!("{all} {lines}{hidden}{more}; {searched}")
        }
    };
    reply::compose(&status, &body, &next, chars)
}

/// A hit in one line: job, line number, byte offset and text.
fn line(hit: &Value) -> String {
    let number = match hit["line_number"].as_u64() {
        Some(number) => format!(", line {number}"),
        None => String::new(),
    };
    let text = escape::visible(hit["line"].as_str().unwrap_or_default());
    let cut = match text.char_indices().nth(LINE_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    };
    format!(
        "job {}{number}, byte {}: {cut}",
        hit["number"], hit["offset"]
    )
}

/// Goes on where the search stopped, or reads the first hit.
fn next(call: &ToolCall<'_>, found: &Value, hits: &[Value]) -> NextCall {
    if let Some(cursor) = found["cursor"].as_str() {
        let mut arguments = call.arguments.clone();
        arguments.insert("cursor".to_owned(), cursor.into());
        return NextCall::new("search_output", Value::Object(arguments));
    }
    match hits.first() {
        Some(hit) => {
            let arguments = json!({"job": hit["number"], "from": hit["offset"]});
            NextCall::new("read_output", arguments)
        }
        None => NextCall::new("list_jobs", json!({"limit": 10})),
    }
}
