//! `search_output`: a regex over the logs of one job or of all history.

use serde_json::{Value, json};

use super::{
    super::{
        jobs,
        reply::{self, NextCall, Reply, body_chars},
    },
    arguments,
    call::{ToolCall, job_schema, object},
    output,
};
use crate::protocol::jsonrpc::error::Refusal;

const KEYS: [&str; 4] = ["pattern", "job", "limit", "max_chars"];

/// The arguments.
pub fn schema() -> Value {
    object(
        &["pattern"],
        json!({
            "pattern": {"type": "string", "description": "regex, one line"},
            "job": job_schema(),
            "limit": {"type": "integer"},
            "max_chars": {"type": "integer"},
        }),
    )
}

/// A call that works.
pub fn example() -> Value {
    json!({"pattern": "error|FAILED", "job": "last"})
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let chars = arguments::max_chars(&params)?;
    let pattern = arguments::line_pattern(&params, "pattern")?;
    let pattern = pattern.ok_or_else(|| params.wrong("pattern", "missing"))?;
    let executor = &call.caller.server.executor;
    let job = jobs::required(executor, &call.arguments, "job").await?;
    let job = executor.get(job, Default::default()).await?;
    let status = reply::status_line(&job);
    let next = NextCall::new("read_output", json!({"job": job.number}));
    let body = output::grep(
        call.caller,
        &job,
        pattern,
        0,
        None,
        body_chars(&status, &next, chars),
    )
    .await?;
    Ok(Reply::text(reply::compose(&status, &body, &next, chars)))
}
