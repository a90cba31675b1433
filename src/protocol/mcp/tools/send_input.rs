//! `send_input`: writes to a job's stdin and waits for what it prints.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{
        jobs,
        reply::{self, NextCall, Reply},
    },
    arguments,
    call::{ToolCall, job_schema, object},
    output::{self, JobReport},
    waiting::{self, Ending},
};
use crate::{
    executor::Until,
    job::{Input, Job, JobRef, Offset},
    protocol::{
        ErrorKind,
        jsonrpc::{error::Refusal, params::Params},
    },
};

const KEYS: [&str; 7] = [
    "job",
    "text",
    "enter",
    "eof",
    "until",
    "wait_s",
    "max_chars",
];
/// Without `until`, the answer comes once the program has been quiet for this time.
const QUIET: Duration = Duration::from_millis(700);

/// The arguments.
pub fn schema() -> Value {
    object(
        &["job", "text"],
        json!({
            "job": job_schema(),
            "text": {"type": "string"},
            "enter": {"type": "boolean", "description": "add a newline"},
            "eof": {"type": "boolean", "description": "close stdin after the text"},
            "until": {"type": "string", "description": "regex to wait for"},
            "wait_s": {"type": "number"},
            "max_chars": {"type": "integer"},
        }),
    )
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let pattern = arguments::pattern(&params, "until")?;
    let longest = arguments::wait(&call, &params, arguments::WAIT_DEFAULT)?;
    let chars = arguments::max_chars(&params)?;
    let input = input(&call, &params)?;
    let executor = &call.caller.executor();
    let job = jobs::required(call.caller, &call.arguments, "job").await?;
    let job = executor.get(job, Default::default()).await?;
    let (number, from) = (JobRef::Number(job.number), job.output_bytes);
    executor
        .input(number, input)
        .await
        .map_err(|error| refused(error.into(), &job))?;
    let is_pattern = pattern.is_some();
    let until = pattern.map_or(Until::Quiet(QUIET), |pattern| Until::Match {
        pattern,
        stream: None,
        from,
    });
    match waiting::wait(&call, vec![number], until, longest).await? {
        Ending::Over(waited) => {
            let job = waited.jobs.into_iter().next().unwrap_or(job);
            let note = note(waited.met, is_pattern, &job, from);
            let text = output::report(
                call.caller,
                &job,
                JobReport {
                    note: Some(note),
                    from,
                    chars,
                    ..JobReport::default()
                },
            )
            .await?;
            Ok(Reply::text(text))
        }
        Ending::Unwanted => Ok(Reply::text(reply::status_line(&job))),
        Ending::Stopping => {
            let note = "the text is written; the server restarts, the job goes on";
            let status = format!("{}; {note}", reply::status_line(&job));
            let next = NextCall::new("wait", json!({"jobs": [job.number], "from": from}));
            Ok(Reply::text(reply::compose(&status, "", &next, chars)))
        }
    }
}

/// What happened after the text was written.
fn note(met: bool, is_pattern: bool, job: &Job, from: Offset) -> &'static str {
    match (job.state.is_final(), met, is_pattern) {
        (true, ..) => "written; the job has ended",
        (false, true, true) => "written; the output matches",
        (false, ..) if job.output_bytes == from => "written; no output since",
        (false, false, true) => "written; the output does not match yet",
        (false, ..) => "written; it printed this",
    }
}

/// The bytes to write. A call that arrives twice writes once.
fn input(call: &ToolCall<'_>, params: &Params<'_>) -> Result<Input, Refusal> {
    let eof = params.flag("eof")?.unwrap_or(false);
    let text = match params.text("text")? {
        None if eof => "",
        None => return Err(params.wrong("text", "missing")),
        Some(text) => text,
    };
    // Without a word about it, a text that ends its line is not given a second end.
    let ends_line = text.ends_with('\n') || (eof && text.is_empty());
    let enter = params.flag("enter")?.unwrap_or(!ends_line);
    let mut data = text.as_bytes().to_vec();
    if enter {
        data.push(b'\n');
    }
    Ok(Input {
        data,
        eof,
        write_id: call.client.call_key(),
    })
}

/// Says what to do where the job takes no input.
fn refused(refusal: Refusal, job: &Job) -> Refusal {
    if refusal.kind != ErrorKind::Conflict || job.state.is_final() || job.spec.interactive {
        return refusal;
    }
    let message = format!(
        "job {} was started without an open stdin (interactive: false, or with stdin: \"…\"); start it \
         again with run and interactive: true",
        job.number
    );
    Refusal::new(ErrorKind::Conflict, message)
}
