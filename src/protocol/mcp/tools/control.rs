//! `control`: pauses, resumes, stops or signals a job.

use serde_json::{Map, Value, json};

use super::{
    super::{
        jobs,
        reply::{self, NextCall, Reply},
    },
    arguments,
    call::{ToolCall, job_schema, object},
};
use crate::{
    job::JobRef,
    protocol::{jsonrpc::error::Refusal, methods},
};

const KEYS: [&str; 3] = ["job", "action", "signal"];

/// The arguments.
pub fn schema() -> Value {
    object(
        &["job", "action"],
        json!({
            "job": job_schema(),
            "action": {"enum": ["pause", "resume", "cancel", "kill", "signal"]},
            "signal": {"type": "string", "description": "for action signal, such as SIGUSR1"},
        }),
    )
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let action = params.text("action")?;
    let action = action
        .ok_or_else(|| params.wrong("action", "missing"))?
        .to_owned();
    let executor = &call.caller.server.executor;
    let job = jobs::required(call.caller, &call.arguments, "job").await?;
    let before = executor.get(job, Default::default()).await?;
    let mut asked: Map<String, Value> = call.arguments.clone();
    asked.insert("job".to_owned(), before.number.into());
    methods::control::execute(call.caller, asked).await?;
    let job = executor
        .get(JobRef::Number(before.number), Default::default())
        .await?;
    let status = reply::status_line(&job);
    let status = match (before.state.is_final(), job.stop.is_some()) {
        (true, _) => format!("{status}; nothing to do"),
        (false, true) if !job.state.is_final() => format!("{status}; {action} is asked for"),
        (false, _) => format!("{status}; {action} is done"),
    };
    let next = match job.state.is_final() {
        true => NextCall::new("read_output", json!({"job": job.number, "tail_lines": 40})),
        false => NextCall::new(
            "wait",
            json!({"jobs": [job.number], "from": job.output_bytes}),
        ),
    };
    Ok(Reply::text(reply::compose(
        &status,
        "",
        &next,
        reply::CHARS_MAX,
    )))
}
