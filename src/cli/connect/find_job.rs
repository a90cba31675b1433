//! Finds the job that a JOB argument means: a number, an id, a unique name or `last`.

use std::collections::HashMap;

use anyhow::bail;
use serde_json::{Map, Value, json};

use super::link::Link;
use crate::{cli::render::job::ShownJob, escape::visible, job::JobRef};

/// How many jobs the error for an ambiguous name lists.
const LISTED_MAX: usize = 5;

/// The `job` parameter for a JOB argument: its number or its id.
pub async fn resolve(link: &mut Link, name: &str) -> anyhow::Result<Value> {
    match JobRef::parse(name) {
        Some(JobRef::Number(number)) => Ok(json!(number)),
        Some(JobRef::Id(id)) => Ok(json!(id)),
        None if name == "last" => last(link).await,
        None => by_name(link, name).await,
    }
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
    let jobs = list(link, &json!({"limit": 1})).await?;
    match jobs.first() {
        Some(job) => Ok(json!(job.id)),
        None => no_jobs(),
    }
}

async fn by_name(link: &mut Link, name: &str) -> anyhow::Result<Value> {
    let jobs = list(link, &json!({"name": name, "limit": LISTED_MAX + 1})).await?;
    match jobs.as_slice() {
        [] => bail!(
            "no job is called {}; `cc-executor ls --all` lists all jobs",
            visible(name)
        ),
        [job] => Ok(json!(job.id)),
        several => bail!("{}", ambiguous(name, several)),
    }
}

fn ambiguous(name: &str, jobs: &[ShownJob]) -> String {
    let numbers: Vec<_> = jobs
        .iter()
        .take(LISTED_MAX)
        .map(|job| job.number.to_string())
        .collect();
    let more = if jobs.len() > LISTED_MAX { ", …" } else { "" };
    format!(
        "several jobs are called {}: {}{more}; give the number of one",
        visible(name),
        numbers.join(", ")
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::job::sample;

    #[test]
    fn an_ambiguous_name_lists_numbers_and_hides_escapes() {
        let jobs: Vec<ShownJob> = (1..=6).map(|n| sample(json!({"number": n}))).collect();
        assert_eq!(
            ambiguous("bu\x1bild", &jobs),
            "several jobs are called bu\\x1bild: 1, 2, 3, 4, 5, …; give the number of one"
        );
    }
}
