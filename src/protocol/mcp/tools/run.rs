//! `run`: stores a command as a job first, then waits for its end for a while. The job is never bound to
//! the call.

use serde_json::{Map, Value, json};

use super::{
    super::{
        client::{ASK_USER_LABEL, CLIENT_LABEL, SESSION_LABEL, bounded},
        reply::{self, NextCall, Reply, is_failure},
        shared::Awaited,
    },
    arguments,
    call::{ToolCall, object},
    output::{self, JobReport},
    waiting::{self, Ending},
};
use crate::{
    executor::{Submitted, Until},
    job::{Job, JobRef, JobSpec},
    protocol::{
        ErrorKind,
        jsonrpc::{error::Refusal, params::Params},
        methods::submit,
    },
};

const KEYS: [&str; 14] = [
    "command",
    "argv",
    "cwd",
    "env",
    "wait_s",
    "until",
    "timeout_s",
    "stdin",
    "interactive",
    "name",
    "queue",
    "max_chars",
    "idempotency_key",
    "ask_user",
];

/// Arguments that are keys of a NewJob with the same meaning.
const SAME_KEYS: [&str; 5] = ["argv", "cwd", "timeout_s", "stdin", "name"];

/// The arguments.
pub fn schema() -> Value {
    object(
        &[],
        json!({
            "command": {"type": "string", "description": "shell command line"},
            "argv": {"type": "array", "items": {"type": "string"}, "description": "instead of command"},
            "cwd": {"type": "string", "description": "absolute directory"},
            "env": {"type": "object", "additionalProperties": {"type": ["string", "object"]}, "description": "strings, or {\"secret\": NAME}"},
            "wait_s": {"type": "number", "description": "up to 50, or 240 with a progress token; default 10"},
            "until": {"type": "string", "description": "return when the output matches this regex"},
            "timeout_s": {"type": "number", "description": "the command is ended after this run time"},
            "stdin": {"type": "string", "description": "written to stdin, which is then closed"},
            "interactive": {"type": "boolean", "description": "false: stdin is /dev/null"},
            "name": {"type": "string"},
            "queue": {"type": "string"},
            "max_chars": {"type": "integer", "description": "length of the answer, 500-9500"},
            "idempotency_key": {"type": "string", "description": "the same key never runs twice"},
            "ask_user": {"type": "boolean", "description": "a task asks the user when the command waits for input"},
        }),
    )
}

/// What a call asks for besides its job.
struct RunOptions {
    until: Until,
    /// `until` as it was given.
    condition: Option<Value>,
    wait: std::time::Duration,
    chars: usize,
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    let params = arguments::known(&call, &KEYS)?;
    let asked = RunOptions {
        until: match arguments::pattern(&params, "until")? {
            None => Until::Final,
            Some(pattern) => Until::Match {
                pattern,
                stream: None,
                from: 0,
            },
        },
        condition: params.get("until").cloned(),
        wait: arguments::wait(&call, &params, arguments::WAIT_DEFAULT)?,
        chars: arguments::max_chars(&params)?,
    };
    let new_job = new_job(&call, &params)?;
    let has_key = params.get("idempotency_key").is_some();
    let (job, note, awaited) = {
        let _turn = call
            .caller
            .server
            .mcp
            .turn_to_start(&same_run(&call, &new_job))
            .await;
        let (job, note) = start(&call, new_job, has_key).await.map_err(in_our_words)?;
        let awaited = call.caller.server.mcp.await_reply(job.number, call.left());
        (job, note, awaited)
    };
    answer(&call, &job, asked, note, awaited).await
}

/// The NewJob that the arguments mean.
fn new_job(call: &ToolCall<'_>, params: &Params<'_>) -> Result<Map<String, Value>, Refusal> {
    let mut job = Map::new();
    if let Some(command) = params.text("command")? {
        job.insert("shell".to_owned(), command.into());
    }
    for key in SAME_KEYS {
        if let Some(value) = params.get(key) {
            job.insert(key.to_owned(), value.clone());
        }
    }
    if !job.contains_key("shell") && !job.contains_key("argv") {
        let message = "missing; give a shell command line, or argv";
        return Err(Refusal::params("command", message));
    }
    if let Some(place) = call.place.as_deref() {
        let told = [
            ("cwd", place.cwd.clone().map(Value::from)),
            ("umask", place.umask.clone().map(Value::from)),
            ("limits", place.limits.clone()),
        ];
        for (key, value) in told {
            if let Some(value) = value {
                job.entry(key).or_insert(value);
            }
        }
    }
    job.insert("env".to_owned(), environment(call, params)?.into());
    job.insert("queue".to_owned(), queue(call, params)?.into());
    let interactive = params.flag("interactive")?;
    let ask_user = params.flag("ask_user")?.unwrap_or(false);
    let has_stdin = params.get("stdin").is_some();
    let interactive = interactive.unwrap_or(!has_stdin) || ask_user;
    job.insert("interactive".to_owned(), interactive.into());
    // Whatever its queue says: the client closes and opens connections as it likes.
    job.insert("on_disconnect".to_owned(), "continue".into());
    let mut labels = call.client.labels();
    if ask_user {
        labels.insert(ASK_USER_LABEL.to_owned(), "true".to_owned());
    }
    job.insert("labels".to_owned(), json!(labels));
    if let Some(key) = params.text("idempotency_key")? {
        job.insert("idempotency_key".to_owned(), key.into());
    }
    Ok(job)
}

/// The queue that the call names; else the only one of the client's token, or that of interactive jobs.
fn queue(call: &ToolCall<'_>, params: &Params<'_>) -> Result<String, Refusal> {
    if let Some(named) = params.text("queue")? {
        return Ok(named.to_owned());
    }
    let principal = call.caller.principal();
    let mut own = principal.grant.reach.queues.iter().flatten();
    Ok(match (own.next(), own.next()) {
        (Some(only), None) => only.clone(),
        _ => JobSpec::INTERACTIVE_QUEUE.to_owned(),
    })
}

/// The client's environment, what the call adds, and the trace that it is part of.
fn environment(call: &ToolCall<'_>, params: &Params<'_>) -> Result<Map<String, Value>, Refusal> {
    let place = call.place.as_deref().into_iter();
    let told = place.flat_map(|place| place.env.clone());
    let mut env: Map<String, Value> = told
        .chain(call.client.environment())
        .map(|(name, value)| (name, value.into()))
        .collect();
    let Some(value) = params.get("env") else {
        return Ok(env);
    };
    // The values are read with the job.
    let wrong = || params.wrong("env", "must be an object whose values are strings");
    env.extend(value.as_object().ok_or_else(wrong)?.clone());
    Ok(env)
}

/// Names runs of which the second has to see the first: those of one command by one client.
fn same_run(call: &ToolCall<'_>, new_job: &Map<String, Value>) -> String {
    let command = new_job.get("shell").or_else(|| new_job.get("argv"));
    format!("{} {}", call.client.name, command.unwrap_or(&Value::Null))
}

/// The key of the command has another name here.
fn in_our_words(mut refusal: Refusal) -> Refusal {
    let words = [
        ("shell: ", "command: "),
        ("argv or shell", "command or argv"),
        (
            "make it first, or take one that a list of the queues shows",
            "leave queue out, or name one that there is",
        ),
    ];
    for (theirs, ours) in words {
        refusal.message = refusal.message.replacen(theirs, ours, 1);
    }
    refusal
}

/// Stores the job, unless it is one that its client has lost sight of. The note says why nothing was
/// started.
async fn start(
    call: &ToolCall<'_>,
    mut new_job: Map<String, Value>,
    has_key: bool,
) -> Result<(Job, Option<&'static str>), Refusal> {
    let spec = submit::read(call.caller, &new_job)?;
    if has_key {
        return start_with_key(call, spec).await;
    }
    let Some(key) = call.client.call_key() else {
        return match unanswered(call, &spec).await? {
            Some(job) => Ok((job, Some(ALREADY))),
            None => Ok((submit::store(call.caller, spec).await?.job, None)),
        };
    };
    new_job.insert("idempotency_key".to_owned(), key.into());
    let keyed = submit::read(call.caller, &new_job)?;
    if let Some(job) = run_with_key(call, &keyed).await? {
        return Ok(came_again(call, job));
    }
    if let Some(job) = unanswered(call, &spec).await? {
        return Ok((job, Some(ALREADY)));
    }
    match submit::store(call.caller, keyed).await {
        Ok(Submitted { job, created: true }) => Ok((job, None)),
        Ok(Submitted { job, .. }) => Ok(came_again(call, job)),
        // The client has used the id before, for another command.
        Err(refusal) if refusal.kind == ErrorKind::Conflict => {
            Ok((submit::store(call.caller, spec).await?.job, None))
        }
        Err(refusal) => Err(refusal),
    }
}

/// The job that has the key of `spec`, if it runs the same.
async fn run_with_key(call: &ToolCall<'_>, spec: &JobSpec) -> Result<Option<Job>, Refusal> {
    let executor = &call.caller.executor();
    Ok(executor
        .run_with_key(spec, &call.caller.principal())
        .await?)
}

/// The same for a job whose key the client chose.
async fn start_with_key(
    call: &ToolCall<'_>,
    spec: JobSpec,
) -> Result<(Job, Option<&'static str>), Refusal> {
    const KNOWN: &str = "NOT started again: the idempotency key is known";
    let own = call
        .client
        .session
        .as_ref()
        .filter(|_| call.client.sends_again);
    // What a relay sends again is one call.
    let known = |job: Job| {
        let is_own = own.is_some() && job.spec.labels.get(SESSION_LABEL) == own;
        (job, (!is_own).then_some(KNOWN))
    };
    match submit::store(call.caller, spec.clone()).await {
        Ok(Submitted { job, created: true }) => Ok((job, None)),
        Ok(Submitted { job, .. }) => Ok(known(job)),
        Err(refusal) if refusal.kind == ErrorKind::Conflict => {
            let job = run_with_key(call, &spec).await?;
            Ok(known(job.ok_or(refusal)?))
        }
        Err(refusal) => Err(refusal),
    }
}

/// The same call has come again. A client that sends calls again is answered as if it had come once; for
/// others it may be another call with an id that was used before.
fn came_again(call: &ToolCall<'_>, job: Job) -> (Job, Option<&'static str>) {
    const SAME_ID: &str = "NOT started again: a call with this id ran the same command before; to run it \
                           again, use another id or an idempotency_key";
    let note = (job.state.is_final() && !call.client.sends_again).then_some(SAME_ID);
    (job, note)
}

/// Ends the status line where the client has lost sight of its job.
const ALREADY: &str = "NOT started again: it is the same command, and the reply of its first call has not \
                       arrived; to run it once more, give an idempotency_key";

/// The live job that runs the same for the same client, if the reply of its call has not arrived. A
/// program with the same name in another session is another client while its own call waits.
async fn unanswered(call: &ToolCall<'_>, spec: &JobSpec) -> Result<Option<Job>, Refusal> {
    let client = bounded(&call.client.name);
    let executor = &call.caller.executor();
    let job = executor
        .unanswered_run(
            spec,
            (CLIENT_LABEL, client.as_str()),
            &call.caller.principal(),
        )
        .await?;
    let own = call.client.session.as_ref();
    Ok(job.filter(|job| {
        let theirs = job.spec.labels.get(SESSION_LABEL);
        let is_other = own.is_some() && theirs.is_some() && own != theirs;
        !(is_other && call.caller.server.mcp.is_awaited(job.number))
    }))
}

/// Waits for a while, and says how it stands.
async fn answer(
    call: &ToolCall<'_>,
    job: &Job,
    asked: RunOptions,
    note: Option<&'static str>,
    awaited: Awaited<'_>,
) -> Result<Reply, Refusal> {
    let executor = &call.caller.executor();
    let number = JobRef::Number(job.number);
    let ending = waiting::wait(call, vec![number], asked.until, asked.wait).await?;
    drop(awaited);
    let (job, ending_note, is_known) = match ending {
        Ending::Over(waited) => {
            let job = waited.jobs.into_iter().next();
            let job =
                job.ok_or_else(|| Refusal::new(ErrorKind::NotFound, "the job was deleted"))?;
            let note = match (waited.met, &asked.condition) {
                _ if job.state.is_final() => None,
                (true, _) => Some("the output matches"),
                (false, Some(_)) => Some("the output does not match yet"),
                (false, None) => None,
            };
            (job, note, true)
        }
        // Nobody reads this answer: the next call of the same command is told about the job.
        Ending::Unwanted => (executor.get(number, Default::default()).await?, None, false),
        Ending::Stopping => {
            let now = executor.get(number, Default::default()).await;
            return Ok(Reply::text(stopping(now.as_ref().unwrap_or(job))));
        }
    };
    if is_known && !job.state.is_final() && !call.left().is_cancelled() {
        executor.set_mcp_answered(job.number).await?;
    }
    let is_met = ending_note == Some("the output matches");
    if call.takes_tasks && !job.state.is_final() && !is_met {
        return Ok(Reply::Task(Box::new(job)));
    }
    let condition = asked.condition.filter(|_| !job.state.is_final() && !is_met);
    let next = condition.map(|condition| {
        let until = match condition {
            Value::String(pattern) => json!({"pattern": pattern}),
            other => other,
        };
        let from = job.output_bytes;
        NextCall::new(
            "wait",
            json!({"jobs": [job.number], "from": from, "until": until}),
        )
    });
    let report = JobReport {
        note: note.or(ending_note),
        next,
        chars: asked.chars,
        ..JobReport::default()
    };
    let text = output::report(call.caller, &job, report).await?;
    Ok(Reply::Text {
        text,
        is_error: is_failure(&job),
    })
}

/// The answer while the server stops: the output cannot be read any more.
fn stopping(job: &Job) -> String {
    let note = "the server restarts, the job goes on";
    let next = NextCall::new("wait", json!({"jobs": [job.number], "from": 0}));
    let status = format!("{}; {note}", reply::status_line(job));
    reply::compose(&status, "", &next, reply::CHARS_MAX)
}
