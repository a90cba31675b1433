//! `wait`: waits for jobs and says what has changed.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{
        jobs,
        reply::{self, NextCall, Reply},
    },
    arguments,
    call::{ToolCall, object},
    last_line,
    output::{self, JobReport},
    waiting::{self, Ending},
};
use crate::{
    executor::{Until, Waited},
    job::{Job, JobRef, JobState, Offset},
    protocol::jsonrpc::{
        error::Refusal,
        params::{OFFSET_MAX, Params},
    },
};

const KEYS: [&str; 5] = ["jobs", "until", "from", "wait_s", "max_chars"];
/// Most jobs of one wait.
const JOBS_MAX: usize = 50;
/// A last line without a line end that is this old is a prompt.
const PROMPT_AGE: Duration = Duration::from_secs(1);
/// Seconds without output that are suggested where waiting for the end was in vain.
const SUGGESTED_IDLE_S: u64 = 20;

/// The arguments.
pub fn schema() -> Value {
    object(
        &["jobs"],
        json!({
            "jobs": {"type": "array", "items": {"type": ["integer", "string"]}},
            "until": {"description": "\"end\", {\"pattern\": regex}, {\"idle_s\": n} or {\"bytes\": n}"},
            "from": {"type": "integer", "description": "byte offset"},
            "wait_s": {"type": "number", "description": "up to 50, or 240 with a progress token"},
            "max_chars": {"type": "integer"},
        }),
    )
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let from = params.offset("from")?.unwrap_or(0);
    let until = until(&params, from)?;
    let longest = arguments::wait(&call, &params, arguments::most(&call))?;
    let chars = arguments::max_chars(&params)?;
    let executor = &call.caller.server.executor;
    let jobs = jobs::several(call.caller, &call.arguments, "jobs", JOBS_MAX).await?;
    let first = executor.get(jobs[0], Default::default()).await?;
    if from > first.output_bytes {
        let message = format!("from: the output has only {} bytes", first.output_bytes);
        return Err(Refusal::params("from", &message));
    }
    let key = format!(
        "{} {:?} {until:?}",
        call.client.name,
        call.arguments.get("jobs")
    );
    match waiting::wait(&call, jobs, until, longest).await? {
        Ending::Over(waited) => report(&call, *waited, &first, &key, from, chars).await,
        Ending::Unwanted => Ok(Reply::text(reply::status_line(&first))),
        Ending::Stopping => {
            let next = NextCall::new("wait", Value::Object(call.arguments.clone()));
            let status = "the server restarts, the jobs run on; call again";
            Ok(Reply::text(reply::compose(status, "", &next, chars)))
        }
    }
}

fn until(params: &Params<'_>, from: Offset) -> Result<Until, Refusal> {
    const WRONG: &str =
        "must be \"end\", {\"pattern\": regex}, {\"idle_s\": seconds} or {\"bytes\": n}";
    let condition = match params.get("until") {
        None => return Ok(Until::Final),
        Some(Value::String(word)) if matches!(word.as_str(), "end" | "final") => {
            return Ok(Until::Final);
        }
        Some(Value::Object(condition)) if condition.len() == 1 => condition,
        Some(_) => return Err(params.wrong("until", WRONG)),
    };
    let inner = Params::nested(
        condition,
        "until.",
        &["pattern", "regex", "idle_s", "bytes"],
    )?;
    if let Some(quiet) = inner.seconds("idle_s")? {
        return Ok(Until::Quiet(quiet));
    }
    if let Some(bytes) = inner.number("bytes", 0, OFFSET_MAX)? {
        return Ok(Until::Bytes(bytes));
    }
    let pattern = arguments::pattern(params, "until")?;
    let pattern = pattern.ok_or_else(|| params.wrong("until", WRONG))?;
    Ok(Until::Match {
        pattern,
        stream: None,
        from,
    })
}

/// Says what has changed: the job that decided the wait with its output, and how the others stand.
async fn report(
    call: &ToolCall<'_>,
    waited: Waited,
    first_before: &Job,
    key: &str,
    from: Offset,
    chars: usize,
) -> Result<Reply, Refusal> {
    let shared = &call.caller.server.mcp;
    let decided = waited
        .job
        .as_ref()
        .filter(|job| waited.met || job.state.is_final());
    let grown = waited.jobs.first().is_some_and(|job| {
        job.output_bytes > first_before.output_bytes.max(from) || job.state != first_before.state
    });
    let shown = decided.or_else(|| waited.jobs.first().filter(|_| grown));
    let Some(job) = shown else {
        return Ok(Reply::text(
            nothing_new(call, &waited, key, from, chars).await,
        ));
    };
    shared.forget_empty_wait(key);
    for job in &waited.jobs {
        if !job.state.is_final() {
            call.caller
                .server
                .executor
                .set_mcp_answered(job.number)
                .await?;
        }
    }
    let note = match (decided.is_some(), waited.met, job.state.is_final()) {
        (true, true, false) => Some("the condition is met"),
        (true, false, true) => Some("ended before the condition was met"),
        (false, ..) => Some("new output"),
        _ => None,
    };
    let beside = others(&waited, job.number, chars / 3);
    let report = JobReport {
        note,
        beside: &beside,
        from: from.min(job.output_bytes),
        next: next(call, &waited, job),
        chars,
    };
    let text = output::report(call.caller, job, report).await?;
    Ok(Reply::text(text))
}

/// What to wait for next: the same condition if it has not come, or the jobs that still run.
fn next(call: &ToolCall<'_>, waited: &Waited, shown: &Job) -> Option<NextCall> {
    if !waited.met && !shown.state.is_final() && call.arguments.contains_key("until") {
        let mut arguments = call.arguments.clone();
        arguments.insert("from".to_owned(), shown.output_bytes.into());
        return Some(NextCall::new("wait", Value::Object(arguments)));
    }
    let live = waited.jobs.iter().filter(|job| !job.state.is_final());
    let rest: Vec<i64> = live.map(|job| job.number).collect();
    let goes_on = shown.state.is_final() && !rest.is_empty();
    goes_on.then(|| NextCall::new("wait", json!({"jobs": rest})))
}

/// One line for each job but the one that is shown, as many as fit.
fn others(waited: &Waited, shown: i64, chars_max: usize) -> String {
    let others = waited.jobs.iter().filter(|job| job.number != shown);
    let lines: Vec<String> = others.map(reply::status_line).collect();
    reply::fitting_lines(&lines, chars_max)
}

/// How each job stands, with its last line, or with what it waits for if it does not run.
async fn unchanged_lines(call: &ToolCall<'_>, waited: &Waited) -> Vec<String> {
    let mut lines = Vec::new();
    for job in &waited.jobs {
        let last = last_line::last_line(call.caller, JobRef::Number(job.number)).await;
        let last = match last.as_str() {
            "" => "no output yet".to_owned(),
            last => format!("last line: {last}"),
        };
        let principal = call.caller.principal();
        let reasons = call.caller.server.executor.reasons(job, &principal);
        let reasons = match reasons.await.unwrap_or_default().as_str() {
            "" => String::new(),
            reasons => format!(". {}", reply::brief(reasons)),
        };
        let status = reply::status_line(job);
        lines.push(format!("{status}; no change; {last}{reasons}"));
    }
    lines
}

/// The answer of a wait without news: how long, the last line, and, the second time, a better call.
async fn nothing_new(
    call: &ToolCall<'_>,
    waited: &Waited,
    key: &str,
    from: Offset,
    chars: usize,
) -> String {
    let times = call.caller.server.mcp.count_empty_wait(key);
    let numbers: Vec<_> = waited.jobs.iter().map(|job| job.number).collect();
    let lines = unchanged_lines(call, waited).await;
    let mut arguments = json!({"jobs": numbers, "from": from});
    if let Some(until) = call.arguments.get("until") {
        arguments["until"] = until.clone();
    }
    let mut advice = String::new();
    let runs = waited.jobs.iter().any(|job| job.state == JobState::Running);
    if times > 1 && runs {
        arguments["until"] = json!({"idle_s": SUGGESTED_IDLE_S});
        advice = format!(
            "This wait was in vain {times} times in a row. Do other work and come back, wait for a text of the \
             output (until: {{\"pattern\": …}}) or for silence (until: {{\"idle_s\": …}}), or stop the job with \
             control.\n"
        );
    }
    let mut next = NextCall::new("wait", arguments);
    if times > 1 && !runs {
        advice = format!(
            "This wait was in vain {times} times in a row, and none of its jobs runs. Do other work and come back, \
             or use control to cancel it, or to resume it if it is paused.\n"
        );
        let active = json!({"state": ["running", "paused"]});
        next = NextCall::new("list_jobs", active);
    }
    let only = (waited.jobs.len() == 1)
        .then(|| waited.jobs.first())
        .flatten();
    if let Some(job) = only
        && job.spec.interactive
        && job.state == JobState::Running
        && let Some(prompt) = last_line::prompt(call.caller, job, PROMPT_AGE).await
    {
        advice = format!("It may wait for input: {prompt}\n{advice}");
        let answer = json!({"job": job.number, "text": "…", "enter": true});
        next = NextCall::new("send_input", answer);
    }
    let (status, rest) = match lines.split_first() {
        Some((status, rest)) => (status.clone(), rest),
        None => (String::new(), &[][..]),
    };
    let left = reply::body_chars(&status, &next, chars).saturating_sub(advice.chars().count());
    let body = format!("{}{advice}", reply::fitting_lines(rest, left));
    reply::compose(&status, &body, &next, chars)
}
