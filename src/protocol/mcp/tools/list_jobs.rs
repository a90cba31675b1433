//! `list_jobs`: one line per job, newest first, and a second where it waits for other jobs.

use serde_json::{Map, Value, json};

use super::{
    super::reply::{self, NextCall, Reply, body_chars},
    arguments,
    call::{ToolCall, object},
};
use crate::{
    job::{Command, Job, JobNumber, JobState},
    protocol::{jsonrpc::error::Refusal, methods},
};

const KEYS: [&str; 8] = [
    "state",
    "queue",
    "name",
    "labels",
    "since",
    "limit",
    "cursor",
    "max_chars",
];
/// Jobs of an answer if the call does not say.
const LIMIT_DEFAULT: u64 = 20;
/// Most jobs that a call may ask for.
const LIMIT_MAX: u64 = 200;
/// Longest command in a line, characters.
const COMMAND_CHARS_MAX: usize = 100;

/// The arguments.
pub fn schema() -> Value {
    object(
        &[],
        json!({
            "state": {"description": "one or a list of scheduled, blocked, queued, running, paused, succeeded, failed, cancelled"},
            "queue": {"type": "string"},
            "name": {"type": "string"},
            "labels": {"type": "object"},
            "since": {"type": "string", "description": "RFC 3339 time of the submission"},
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
    let limit = params
        .number("limit", 1, LIMIT_MAX)?
        .unwrap_or(LIMIT_DEFAULT);
    let mut filter: Map<String, Value> = call.arguments.clone();
    filter.remove("max_chars");
    filter.insert("limit".to_owned(), limit.into());
    let filter = methods::list::filter_of(&filter)?;
    let executor = &call.caller.server.executor;
    let page = executor.list(filter, &call.caller.principal()).await?;
    let next_of = |below: Option<JobNumber>| match (below, page.jobs.first()) {
        (Some(below), _) => {
            let mut arguments = call.arguments.clone();
            arguments.insert("cursor".to_owned(), below.to_string().into());
            NextCall::new("list_jobs", Value::Object(arguments))
        }
        (None, Some(newest)) => NextCall::new("read_output", json!({"job": newest.number})),
        (None, None) => NextCall::new("list_jobs", json!({"limit": 10})),
    };
    let longest_next = next_of(page.jobs.first().map(|job| job.number).or(page.next));
    let mut left = body_chars("1000 jobs, newest first; more follow", &longest_next, chars);
    let mut body = String::new();
    let mut shown = 0;
    for job in &page.jobs {
        let line = line(job, &reasons(&call, job).await?);
        let chars = line.chars().count() + 1;
        // One at least, so that the next page begins after it.
        if chars > left && shown > 0 {
            break;
        }
        left = left.saturating_sub(chars);
        body.push_str(&line);
        body.push('\n');
        shown += 1;
    }
    let below = match shown < page.jobs.len() {
        true => page.jobs[..shown].last().map(|job| job.number),
        false => page.next,
    };
    let status = match (shown, below) {
        (0, None) => "no jobs match".to_owned(),
        (0, Some(below)) => format!("no jobs match down to job {below}; older ones may"),
        (_, None) => format!("{shown} jobs, newest first; these are all"),
        (_, Some(_)) => format!("{shown} jobs, newest first; more follow"),
    };
    let next = next_of(below);
    Ok(Reply::text(reply::compose(&status, &body, &next, chars)))
}

/// Why a job is blocked or has failed without a fault of its process; the place of queued ones in their
/// line would be too much for each.
async fn reasons(call: &ToolCall<'_>, job: &Job) -> Result<String, Refusal> {
    if job.state != JobState::Blocked && !job.state.is_final() {
        return Ok(String::new());
    }
    let principal = call.caller.principal();
    let reasons = call.caller.server.executor.reasons(job, &principal);
    Ok(match reasons.await?.as_str() {
        "" => String::new(),
        reasons => format!("\n  {}", reply::brief(reasons)),
    })
}

/// A job in one line: how it stands, when it was submitted, and what it runs; then the reasons.
fn line(job: &Job, reasons: &str) -> String {
    let name = reply::name(job).map(|name| format!(" [{name}]"));
    format!(
        "{}{} {}, submitted {} ago, {} bytes: {}{reasons}",
        job.number,
        name.unwrap_or_default(),
        reply::outcome(job),
        reply::age(job.submitted_at),
        job.output_bytes,
        command(job)
    )
}

fn command(job: &Job) -> String {
    let text = match &job.spec.command {
        Command::Shell(text) => text.clone(),
        Command::Argv(words) => words.join(" "),
    };
    let text = crate::escape::visible(&text).to_string();
    match text.char_indices().nth(COMMAND_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
