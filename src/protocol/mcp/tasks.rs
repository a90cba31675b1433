//! Tasks, the extension `io.modelcontextprotocol/tasks`: a job as a client sees it that polls. A task is its
//! job: nothing of it is kept besides, so it survives restarts of both sides.

use std::time::Duration;

use rmcp::{
    ErrorData, RoleServer,
    model::{
        DetailedTask, ElicitRequest, ElicitRequestParams, ElicitationSchema, GetTaskResult,
        InputRequest, InputRequests, InputResponses, JsonObject, Task, TaskPayload, TaskStatus,
    },
    service::RequestContext,
};
use serde_json::{Value, json};

use super::{
    client::ASK_USER_LABEL,
    errors::data,
    jobs, reply,
    tools::{
        last_line,
        output::{self, JobReport},
    },
};
use crate::{
    executor::{Action, Error, Executor},
    job::{Input, Job, JobRef, JobState, Micros},
    protocol::{ErrorKind, caller::Caller},
    sys::clock,
};

/// How often a client should ask, by the age of the job: up to this age, at this interval.
const POLL_INTERVALS: [(Duration, Duration); 2] = [
    (Duration::from_secs(30), Duration::from_secs(1)),
    (Duration::from_secs(300), Duration::from_secs(5)),
];
/// The same for older jobs.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(15);
/// A prompt without a line end that is this old waits for its answer.
const PROMPT_AGE: Duration = Duration::from_secs(1);
/// The key of the answer in the form that the user fills in.
const ANSWER: &str = "answer";

/// The task that a job is.
pub fn of(job: &Job) -> Task {
    let status = match job.state {
        JobState::Cancelled => TaskStatus::Cancelled,
        state if state.is_final() => TaskStatus::Completed,
        _ => TaskStatus::Working,
    };
    let updated = job
        .finished_at
        .or(job.started_at)
        .unwrap_or(job.submitted_at);
    let id = jobs::task_id(job);
    Task::new(
        id,
        status,
        job.submitted_at.to_rfc3339(),
        updated.to_rfc3339(),
    )
    .with_status_message(reply::status_line(job))
    .with_poll_interval_ms(poll_interval(job.submitted_at))
}

fn poll_interval(since: Micros) -> u64 {
    let age = Duration::from_micros(u64::try_from(clock::now().0 - since.0).unwrap_or(0));
    let found = POLL_INTERVALS.iter().find(|(up_to, _)| age < *up_to);
    let interval = found.map_or(POLL_INTERVAL_MAX, |(_, interval)| *interval);
    interval.as_millis() as u64
}

/// `tasks/get`: the task as it is, with its result once the job is final.
pub async fn get(
    caller: &Caller,
    id: &str,
    context: &RequestContext<RoleServer>,
) -> Result<GetTaskResult, ErrorData> {
    let job = find(caller, id).await?;
    let payload = match job.state {
        JobState::Cancelled => TaskPayload::Cancelled,
        state if state.is_final() => TaskPayload::Completed {
            result: result(caller, &job, context).await?,
        },
        _ => match question(caller, &job, context).await {
            Some(input_requests) => TaskPayload::InputRequired { input_requests },
            None => TaskPayload::Working,
        },
    };
    Ok(GetTaskResult::new(DetailedTask::new(of(&job), payload)))
}

/// `tasks/cancel`: cancels the job. A second cancel, and one of a final job, change nothing.
pub async fn cancel(caller: &Caller, id: &str) -> Result<(), ErrorData> {
    let job = find(caller, id).await?;
    let (executor, actor) = (&caller.executor(), caller.actor());
    let done = executor.control(JobRef::Number(job.number), Action::Cancel, &actor);
    done.await.map(drop).map_err(|error| data(error.into()))
}

/// `tasks/update`: writes the user's answer to the job's stdin, once. Answers to questions that are no
/// longer open are ignored.
pub async fn update(caller: &Caller, id: &str, responses: InputResponses) -> Result<(), ErrorData> {
    let job = find(caller, id).await?;
    for (key, response) in responses {
        let Some(text) = answer(&response) else {
            continue;
        };
        let input = Input {
            data: format!("{text}\n").into_bytes(),
            eof: false,
            write_id: Some(format!("mcp.task:{key}")),
        };
        if is_open(&job, &key) {
            let executor = caller.executor();
            let written = executor.input(JobRef::Number(job.number), input);
            match written.await {
                // The process reads no more, so the question is not open any more either.
                Ok(_) | Err(Error::Conflict(_)) => {}
                Err(error) => return Err(data(error.into())),
            }
        }
    }
    Ok(())
}

/// What the user has answered; `None` if the form was declined.
fn answer(response: &Value) -> Option<String> {
    if response["action"] != "accept" {
        return None;
    }
    response["content"][ANSWER].as_str().map(str::to_owned)
}

async fn find(caller: &Caller, id: &str) -> Result<Job, ErrorData> {
    let unknown = || {
        ErrorData::invalid_params(
            format!("there is no task {id:?}; list_jobs shows the jobs there are"),
            None,
        )
    };
    let job = jobs::of_task_id(id).ok_or_else(unknown)?;
    caller.check_reach(job).await.map_err(data)?;
    let executor: &Executor = &caller.server.executor;
    executor
        .get(job, Default::default())
        .await
        .map_err(|error| match ErrorKind::of(&error) {
            ErrorKind::NotFound => unknown(),
            _ => data(error.into()),
        })
}

/// The result of the `run` that the task stands for.
async fn result(
    caller: &Caller,
    job: &Job,
    context: &RequestContext<RoleServer>,
) -> Result<JsonObject, ErrorData> {
    let text = output::report(
        caller,
        job,
        JobReport {
            chars: reply::CHARS_DEFAULT,
            ..JobReport::default()
        },
    )
    .await;
    let _ = context;
    let result = reply::result(text.map_err(data)?, reply::is_failure(job));
    match serde_json::to_value(result) {
        Ok(Value::Object(result)) => Ok(result),
        _ => Err(ErrorData::internal_error("the result is no object", None)),
    }
}

/// The question that a job asks its user: the prompt at the end of its output, if it asked for that and
/// the prompt has been there for a while.
async fn question(
    caller: &Caller,
    job: &Job,
    context: &RequestContext<RoleServer>,
) -> Option<InputRequests> {
    let declared = context.client_capabilities()?;
    declared.elicitation.as_ref()?;
    if job.state != JobState::Running || !job.spec.labels.contains_key(ASK_USER_LABEL) {
        return None;
    }
    let prompt = last_line::prompt(caller, job, PROMPT_AGE).await?;
    let schema: ElicitationSchema = serde_json::from_value(json!({
        "type": "object",
        "properties": {ANSWER: {"type": "string", "title": "Answer"}},
        "required": [ANSWER],
    }))
    .ok()?;
    let params = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: format!("job {} asks: {prompt}", job.number),
        requested_schema: schema,
    };
    let request = InputRequest::Elicitation(ElicitRequest::new(params));
    Some([(question_key(job), request)].into())
}

/// Names a question: where its prompt ends.
fn question_key(job: &Job) -> String {
    format!("prompt-{}", job.output_bytes)
}

/// Whether the question still stands: nothing was printed since.
fn is_open(job: &Job, key: &str) -> bool {
    !job.state.is_final() && question_key(job) == key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_job_is_asked_about_less_often() {
        let ago = |seconds: i64| Micros(clock::now().0 - seconds * 1_000_000);
        assert_eq!(poll_interval(ago(1)), 1_000);
        assert_eq!(poll_interval(ago(31)), 5_000);
        assert_eq!(poll_interval(ago(301)), 15_000);
    }

    #[test]
    fn only_an_accepted_form_has_an_answer() {
        let accepted = json!({"action": "accept", "content": {"answer": "yes"}});
        assert_eq!(answer(&accepted).as_deref(), Some("yes"));
        assert_eq!(answer(&json!({"action": "decline"})), None);
        assert_eq!(answer(&json!({"action": "accept"})), None);
    }
}
