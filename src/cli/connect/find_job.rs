//! Finds the job that a JOB argument means: a number, an id, a name (the newest job of that name) or `last`.

use std::collections::HashMap;

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::link::Link;
use crate::{cli::render::job::ShownJob, escape::visible, job::JobRef};

/// The `job` parameter for a JOB argument: its number or its id.
pub async fn resolve(link: &mut Link, name: &str) -> anyhow::Result<Value> {
    match JobRef::parse(name) {
        Some(JobRef::Number(number)) => Ok(json!(number)),
        Some(JobRef::Id(id)) => Ok(json!(id)),
        None if name == "last" => last(link).await,
        None => match newest(link, &json!({"name": name})).await? {
            Some(job) => Ok(job),
            None => bail!(
                "no job is called {}; `cc-executor ls --all` lists all jobs",
                visible(name)
            ),
        },
    }
}

/// The same for what only jobs that are not final can do: of a name the newest one that is not, if there
/// is one.
pub async fn resolve_live(link: &mut Link, name: &str) -> anyhow::Result<Value> {
    if JobRef::parse(name).is_none() && name != "last" {
        let live = json!({"name": name, "state": LIVE});
        if let Some(job) = newest(link, &live).await? {
            return Ok(job);
        }
    }
    resolve(link, name).await
}

/// The same for several, in the same order.
pub async fn resolve_all(link: &mut Link, names: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        found.push(resolve(link, name).await?);
    }
    Ok(found)
}

/// Replaces the names in `after` of a NewJob by ids; `known` remembers them.
pub async fn resolve_after(
    link: &mut Link,
    job: &mut Map<String, Value>,
    known: &mut HashMap<String, Value>,
) -> anyhow::Result<()> {
    let after = job.get_mut("after").and_then(Value::as_array_mut);
    for entry in after.into_iter().flatten() {
        let name = entry["job"].as_str().unwrap_or("#");
        if name.starts_with('#') || JobRef::parse(name).is_some() {
            continue;
        }
        let id = match known.get(name) {
            Some(id) => id.clone(),
            None => resolve(link, name).await?,
        };
        known.insert(name.to_owned(), id.clone());
        entry["job"] = id;
    }
    Ok(())
}

/// The error for a data directory without a database or without jobs.
pub fn no_jobs<T>() -> anyhow::Result<T> {
    bail!(
        "there are no jobs in this data directory; submit one with `cc-executor run -- COMMAND`, or give another directory with --data-dir"
    )
}

async fn last(link: &mut Link) -> anyhow::Result<Value> {
    match newest(link, &json!({})).await? {
        Some(job) => Ok(job),
        None => no_jobs(),
    }
}

/// The id of the newest job of those that a filter of `job.list` matches.
async fn newest(link: &mut Link, filter: &Value) -> anyhow::Result<Option<Value>> {
    let mut filter = filter.clone();
    filter["limit"] = json!(1);
    let jobs = list(link, &filter).await?;
    Ok(jobs.first().map(|job| json!(job.id)))
}

/// One page of jobs, newest first.
pub async fn list(link: &mut Link, filter: &Value) -> anyhow::Result<Vec<ShownJob>> {
    let page = link.request("job.list", filter).await?;
    page["jobs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(ShownJob::read)
        .collect()
}

/// Up to `max` jobs as the server sent them, newest first, over as many pages as needed.
pub async fn list_raw(link: &mut Link, filter: &Value, max: usize) -> anyhow::Result<Vec<Value>> {
    let mut filter = filter.clone();
    let mut jobs = Vec::new();
    while jobs.len() < max {
        filter["limit"] = json!((max - jobs.len()).min(PAGE_JOBS));
        let mut page = link.request("job.list", &filter).await?;
        if let Some(page) = page["jobs"].as_array_mut() {
            jobs.append(page);
        }
        match page["next_cursor"].take() {
            Value::Null => break,
            cursor => filter["cursor"] = cursor,
        }
    }
    Ok(jobs)
}

/// Jobs of a page: the most that the contract allows.
const PAGE_JOBS: usize = 1000;

/// The states of jobs that are not final.
pub const LIVE: [&str; 5] = ["scheduled", "blocked", "queued", "running", "paused"];
/// The final states: a job in one never changes again.
pub const FINAL: [&str; 3] = ["succeeded", "failed", "cancelled"];
