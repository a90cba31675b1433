//! `read_output`: the log of a job from an offset, its last lines, its lines that match, or an excerpt.

use serde_json::{Value, json};

use super::{
    super::{
        excerpt::ShownLinePattern,
        jobs,
        reply::{self, NextCall, Reply, body_chars},
    },
    arguments,
    call::{ToolCall, job_schema, object},
    output::{self, JobReport},
};
use crate::{
    job::{Job, Offset, Stream},
    protocol::jsonrpc::error::Refusal,
};

const KEYS: [&str; 7] = [
    "job",
    "from",
    "tail_lines",
    "max_chars",
    "grep",
    "stream",
    "raw",
];
/// Most lines that a call may ask for.
const TAIL_LINES_MAX: u64 = 10_000;

/// The arguments.
pub fn schema() -> Value {
    object(
        &["job"],
        json!({
            "job": job_schema(),
            "from": {"type": "integer", "description": "byte offset"},
            "tail_lines": {"type": "integer"},
            "grep": {"type": "string", "description": "regex"},
            "stream": {"enum": ["stdout", "stderr"]},
            "raw": {"type": "boolean"},
            "max_chars": {"type": "integer"},
        }),
    )
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let chars = arguments::max_chars(&params)?;
    let streams =
        [Stream::Stdout, Stream::Stderr, Stream::Pty].map(|stream| (stream.name(), stream));
    let stream = params.one_of("stream", &streams)?;
    let raw = params.flag("raw")?.unwrap_or(false);
    let lines = params.number("tail_lines", 1, TAIL_LINES_MAX)?;
    let from = params.offset("from")?;
    let pattern = arguments::line_pattern(&params, "grep")?;
    if lines.is_some() && from.is_some() {
        return Err(params.wrong("tail_lines", "either tail_lines or from, not both"));
    }
    let executor = &call.caller.server.executor;
    let job = jobs::required(call.caller, &call.arguments, "job").await?;
    let job = executor.get(job, Default::default()).await?;
    if from.is_some_and(|from| from > job.output_bytes) {
        let message = format!("the output has only {} bytes", job.output_bytes);
        return Err(Refusal::params("from", &message).with("output_bytes", job.output_bytes));
    }
    let text = match (pattern, lines, from) {
        (Some(pattern), ..) => {
            matches(&call, &job, pattern, from.unwrap_or(0), stream, chars).await?
        }
        (None, Some(lines), _) => last_lines(&call, &job, lines, stream, chars).await?,
        (None, None, Some(from)) => page(&call, &job, from, (stream, raw), chars).await?,
        (None, None, None) if raw || stream.is_some() => {
            page(&call, &job, 0, (stream, raw), chars).await?
        }
        (None, None, None) => {
            output::report(
                call.caller,
                &job,
                JobReport {
                    chars,
                    ..JobReport::default()
                },
            )
            .await?
        }
    };
    Ok(Reply::text(text))
}

/// The output from an offset on, as it was written.
async fn page(
    call: &ToolCall<'_>,
    job: &Job,
    from: Offset,
    (stream, raw): (Option<Stream>, bool),
    chars: usize,
) -> Result<String, Refusal> {
    let status = reply::status_line(job);
    let next = next_page(call, job, job.output_bytes);
    let left = body_chars(&status, &next, chars).saturating_sub(60);
    let page = output::page(call.caller, job, from, stream, raw, left).await?;
    let range = format!("bytes {from}-{} of {}", page.next_offset, job.output_bytes);
    let status = format!("{status}, {range}");
    Ok(reply::compose(
        &status,
        &page.text,
        &next_page(call, job, page.next_offset),
        chars,
    ))
}

/// The call that reads on, with the other arguments of this one, or waits for more.
fn next_page(call: &ToolCall<'_>, job: &Job, next: Offset) -> NextCall {
    match (next < job.output_bytes, job.state.is_final()) {
        (true, _) => {
            let mut arguments = call.arguments.clone();
            arguments.remove("tail_lines");
            arguments.insert("job".to_owned(), job.number.into());
            arguments.insert("from".to_owned(), next.into());
            NextCall::new("read_output", Value::Object(arguments))
        }
        (false, true) => NextCall::new("list_jobs", json!({"limit": 10})),
        (false, false) => NextCall::new("wait", json!({"jobs": [job.number], "from": next})),
    }
}

async fn last_lines(
    call: &ToolCall<'_>,
    job: &Job,
    lines: u64,
    stream: Option<Stream>,
    chars: usize,
) -> Result<String, Refusal> {
    let status = reply::status_line(job);
    let next = next_page(call, job, job.output_bytes);
    let left = body_chars(&status, &next, chars);
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let body = output::last_lines(call.caller, job, lines, stream, left).await?;
    Ok(reply::compose(&status, &body, &next, chars))
}

/// The lines that match, with their offsets.
async fn matches(
    call: &ToolCall<'_>,
    job: &Job,
    pattern: ShownLinePattern,
    from: Offset,
    stream: Option<Stream>,
    chars: usize,
) -> Result<String, Refusal> {
    let longest = json!({"job": job.number, "from": job.output_bytes});
    let longest = NextCall::new("read_output", longest);
    let left = body_chars(&reply::status_line(job), &longest, chars).saturating_sub(40);
    let found = output::grep(call.caller, job, pattern, from, stream, left).await?;
    let next = match found.hits.first() {
        Some(hit) => json!({"job": job.number, "from": hit.from}),
        None => json!({"job": job.number, "tail_lines": 60}),
    };
    let lines = match found.found {
        1 => "line matches",
        _ => "lines match",
    };
    let status = format!("{}; {} {lines}", reply::status_line(job), found.found);
    let next = NextCall::new("read_output", next);
    Ok(reply::compose(&status, &found.text, &next, chars))
}
