//! Finds the job that an argument means: a number, an id (which is a task's id, too), a name, or `last`.

use serde_json::{Map, Value};

use crate::{
    executor::ListFilter,
    job::{Job, JobRef},
    protocol::{
        ErrorKind,
        caller::Caller,
        jsonrpc::{error::Refusal, params::job_ref},
    },
};

/// What an argument that names a job may be.
const NOT_A_JOB: &str = "must be a job's number, its id, its name or \"last\"";

/// The job under `key`.
pub async fn required(
    caller: &Caller,
    arguments: &Map<String, Value>,
    key: &str,
) -> Result<JobRef, Refusal> {
    match arguments.get(key).filter(|value| !value.is_null()) {
        Some(value) => resolve(caller, key, value).await,
        None => Err(Refusal::params(key, &format!("missing; it {NOT_A_JOB}"))),
    }
}

/// The jobs under `key`: a list, or a single one.
pub async fn several(
    caller: &Caller,
    arguments: &Map<String, Value>,
    key: &str,
    max: usize,
) -> Result<Vec<JobRef>, Refusal> {
    let values = match arguments.get(key) {
        Some(Value::Array(values)) if !values.is_empty() => values.as_slice(),
        Some(value @ (Value::String(_) | Value::Number(_))) => std::slice::from_ref(value),
        _ => return Err(Refusal::params(key, "must be a list of at least one job")),
    };
    if values.len() > max {
        let message = format!("{key}: at most {max} in one call");
        return Err(Refusal::limit("mcp_jobs_max", message));
    }
    let mut jobs = Vec::with_capacity(values.len());
    for value in values {
        jobs.push(resolve(caller, key, value).await?);
    }
    Ok(jobs)
}

/// The id of the task that a job is: the number, which people use, and the UUID, which is never used again.
pub fn task_id(job: &Job) -> String {
    format!("{}-{}", job.number, job.id)
}

/// The job of a task's id; its number or its UUID alone will do.
pub fn of_task_id(text: &str) -> Option<JobRef> {
    if let Some(job) = JobRef::parse(text) {
        return Some(job);
    }
    let (number, id) = text.split_once('-')?;
    match (JobRef::parse(number)?, JobRef::parse(id)?) {
        (JobRef::Number(_), JobRef::Id(id)) => Some(JobRef::Id(id)),
        _ => None,
    }
}

/// The job that a value means, if the client reaches it.
async fn resolve(caller: &Caller, key: &str, value: &Value) -> Result<JobRef, Refusal> {
    let named = job_ref(value).or_else(|| value.as_str().and_then(of_task_id));
    if let Some(job) = named {
        caller.check_reach(job).await?;
        return Ok(job);
    }
    let name = value.as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::params(key, NOT_A_JOB))?;
    let name_filter = (name != "last").then(|| name.to_owned());
    let filter = ListFilter {
        name: name_filter,
        limit: 1,
        ..ListFilter::default()
    };
    let principal = caller.principal();
    let listed = caller.server.executor.list(filter, &principal).await?;
    let newest = listed.jobs.into_iter().next();
    newest
        .map(|job| JobRef::Number(job.number))
        .ok_or_else(|| unknown(key, name))
}

fn unknown(key: &str, name: &str) -> Refusal {
    let message = match name {
        "last" => format!("{key}: there are no jobs yet"),
        _ => format!("{key}: no job is called {name:?}; list_jobs shows the jobs there are"),
    };
    Refusal::new(ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tasks_id_is_its_jobs_number_and_uuid() {
        let id = "01a22b3e-870a-715f-85ff-eb93f9f9e093";
        let job = JobRef::parse(id);
        assert_eq!(of_task_id(&format!("42-{id}")), job);
        assert_eq!(of_task_id(id), job);
        assert_eq!(of_task_id("42"), Some(JobRef::Number(42)));
        for wrong in ["", "-", "42-", "42-43", "x-01a22b3e", "42-01a22b3e-870a"] {
            assert_eq!(of_task_id(wrong), None, "{wrong:?}");
        }
    }
}
