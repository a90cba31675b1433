//! `submit --many`: jobs from a file, one NewJob as JSON on each line.
//!
//! They are one commit; only a file that is beyond the server's bounds of a commit becomes several. The
//! server stores a commit as a whole or not at all. Each job has an idempotency key, so that repeating
//! a request, or the command with the same `--key`, makes no second job. `#N` in an `after` is a job of the file, whichever commit it is in.

use std::{cell::Cell, collections::HashMap, io::Read, path::Path, process::ExitCode};

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        connect::{
            batch::{self, BatchLimits, NewJob, SharedJobs},
            client::RequestError,
            find_job,
            link::Link,
        },
        render::print,
    },
    job::Queue,
    sys::waiting_io::WaitingIo,
};

/// A job and the number of its line, counted from 1.
type NumberedJob = (usize, NewJob);

/// The jobs of a file, and what is known of them.
pub struct ManyJobs {
    jobs: Cell<Vec<NumberedJob>>,
    key: String,
    /// How many were submitted, as replies told.
    done: Cell<usize>,
    /// Whether a commit may have been made of which no reply has told.
    may_exist: Cell<bool>,
}

impl ManyJobs {
    /// Reads a file (`-`: our stdin); `template` fills in the keys that the jobs leave out. The idempotency
    /// key of each is `key` with its place.
    pub fn read(path: &Path, template: &Map<String, Value>, key: String) -> anyhow::Result<Self> {
        Ok(Self {
            jobs: read(path, template, &key)?.into(),
            key,
            done: Cell::new(0),
            may_exist: Cell::new(false),
        })
    }

    /// How many jobs were submitted, as far as it is known.
    pub fn progress(&self) -> String {
        let done = match self.done.get() {
            0 if !self.may_exist.get() => return "nothing was submitted".to_owned(),
            0 => String::new(),
            done => format!("the first {done} jobs were submitted, "),
        };
        let others = match (self.may_exist.get(), done.is_empty()) {
            (false, _) => "these were not",
            (true, false) => "and it is unknown whether others were",
            (true, true) => "it is unknown whether the jobs were submitted",
        };
        let key = &self.key;
        format!(
            "{done}{others}; the same command with --key {key} submits only those that were not"
        )
    }

    /// The error, with the line of the refused job, and how many jobs were submitted before.
    fn refusal(&self, error: &anyhow::Error, lines: &[usize]) -> anyhow::Error {
        let refused = match error.downcast_ref() {
            Some(RequestError::Refused(refusal)) => refusal.data["index"].as_u64(),
            _ => None,
        };
        let line = refused.and_then(|index| lines.get(usize::try_from(index).ok()?));
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        anyhow!("{line}{error:#} ({})", self.progress())
    }

    /// Submits the jobs and prints their numbers.
    pub async fn submit(&self, link: &mut Link, json: bool) -> anyhow::Result<ExitCode> {
        let (lines, jobs): (Vec<usize>, Vec<NewJob>) = self.jobs.take().into_iter().unzip();
        let limits = BatchLimits::of(link).await?;
        let shared = SharedJobs::new(jobs, limits);
        let counts = commits(&shared, limits);
        let (defaults, mut jobs) = (shared.defaults, shared.jobs);
        let (mut submitted, mut known) = (Vec::new(), HashMap::new());
        for count in &counts {
            let done = submitted.len();
            let commit = &mut jobs[done..done + count];
            for job in &mut *commit {
                rename_references(job, &submitted);
                find_job::resolve_after(link, job, &mut known).await?;
            }
            let stored = batch::submit(&defaults, commit, async |params| {
                batch::send(link, params, &self.may_exist).await
            });
            let stored = stored.await;
            let stored = stored.map_err(|error| self.refusal(&error, &lines[done..]))?;
            if !json {
                let numbers = stored.iter().map(|job| format!("{}\n", job["number"]));
                print::page(&numbers.collect::<String>())?;
            }
            submitted.extend(stored);
            self.done.set(submitted.len());
        }
        let (done, count) = (submitted.len(), counts.len());
        if json {
            print::json(&Value::Array(submitted))?;
        }
        let commits = if count == 1 { "commit" } else { "commits" };
        print::line_on_terminal(&format!("{done} jobs submitted in {count} {commits}"));
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &Path, template: &Map<String, Value>, key: &str) -> anyhow::Result<Vec<NumberedJob>> {
    let text = match path == Path::new("-") {
        true => {
            let mut text = String::new();
            let read = WaitingIo(std::io::stdin()).read_to_string(&mut text);
            read.map(|_| text)
        }
        false => std::fs::read_to_string(path),
    };
    let text =
        text.with_context(|| format!("{} cannot be read; it must be UTF-8", path.display()))?;
    jobs(&text, template, key)
}

fn jobs(text: &str, template: &Map<String, Value>, key: &str) -> anyhow::Result<Vec<NumberedJob>> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    let filled = lines.filter(|(_, line)| !line.trim().is_empty());
    let jobs = filled
        .enumerate()
        .map(|(place, (number, line))| {
            let job: Map<String, Value> = serde_json::from_str(line).with_context(|| {
                format!("line {number} is not a JSON object; each line must be one job")
            })?;
            let mut job = Queue::fill_in(template, &job);
            let key = || json!(format!("{key}-{place}"));
            job.entry("idempotency_key").or_insert_with(key);
            Ok((number, job))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    check_references(&jobs)?;
    Ok(jobs)
}

/// Refuses an `after` that names no earlier job of the file.
fn check_references(jobs: &[NumberedJob]) -> anyhow::Result<()> {
    for (index, (line, job)) in jobs.iter().enumerate() {
        let later = |entry: &&Value| reference(entry).is_some_and(|named| named >= index);
        if let Some(entry) = after(job).find(later) {
            bail!(
                "line {line}: after: {} is no earlier job of the file; the first one is \"#0\" (nothing was \
                 submitted)",
                entry["job"]
            );
        }
    }
    Ok(())
}

/// The entries of a job's `after`.
fn after(job: &NewJob) -> impl Iterator<Item = &Value> {
    job.get("after")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The job of the file that an entry of `after` names, counted from 0.
fn reference(entry: &Value) -> Option<usize> {
    entry["job"].as_str()?.strip_prefix('#')?.parse().ok()
}

/// Names the jobs of earlier commits by their ids, and those of this one by their places in it.
fn rename_references(job: &mut NewJob, submitted: &[Value]) {
    let after = job.get_mut("after").and_then(Value::as_array_mut);
    for entry in after.into_iter().flatten() {
        if let Some(named) = reference(entry) {
            entry["job"] = match submitted.get(named) {
                Some(earlier) => earlier["id"].clone(),
                None => json!(format!("#{}", named - submitted.len())),
            };
        }
    }
}

/// How many jobs go into each commit.
fn commits(shared: &SharedJobs, limits: BatchLimits) -> Vec<usize> {
    let in_common = shared.defaults_bytes();
    let mut counts: Vec<usize> = Vec::new();
    let (mut own, mut all) = (0, 0);
    for job in &shared.jobs {
        let bytes = batch::bytes(job);
        (own, all) = (own + bytes, all + bytes + in_common);
        match counts.last_mut() {
            Some(count)
                if own <= limits.own_bytes && all <= limits.bytes && *count < limits.jobs =>
            {
                *count += 1;
            }
            _ => {
                (own, all) = (bytes, bytes + in_common);
                counts.push(1);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_jobs_and_get_what_they_do_not_name() {
        let template = json!({"cwd": "/here", "env": {"A": "shell", "B": "shell"}});
        let template = template.as_object().expect("an object");
        let text = "{\"argv\":[\"a\"],\"env\":{\"A\":\"job\"}}\n\n  \n{\"shell\":\"b\",\"cwd\":\"/there\",\"idempotency_key\":\"k\"}";
        let read = jobs(text, template, "cli-k").expect("jobs");
        assert_eq!((read.len(), read[0].0, read[1].0), (2, 1, 4));
        assert_eq!(read[0].1["env"], json!({"A": "job", "B": "shell"}));
        assert_eq!(read[0].1["idempotency_key"], "cli-k-0");
        assert_eq!(
            (&read[1].1["cwd"], &read[1].1["idempotency_key"]),
            (&json!("/there"), &json!("k"))
        );
        let error = jobs("{}\n[1]", template, "k").expect_err("no object");
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }

    #[test]
    fn a_reference_means_a_job_of_the_file_in_every_request() {
        let after = |job: &str| json!({"after": [{"job": job}, {"job": 7}]}).to_string();
        let text = ["{}", &after("#0"), &after("#1")].join("\n");
        let mut read = jobs(&text, &Map::new(), "k").expect("jobs");
        let submitted = [json!({"id": "01a2"})];
        for (job, expected) in [(1, "01a2"), (2, "#0")] {
            rename_references(&mut read[job].1, &submitted);
            let after = &read[job].1["after"];
            assert_eq!(
                (&after[0]["job"], &after[1]["job"]),
                (&json!(expected), &json!(7))
            );
        }
        for wrong in ["#2", "#9"] {
            let text = ["{}", "", &after("#0"), &after(wrong)].join("\n");
            let error = jobs(&text, &Map::new(), "k")
                .expect_err("not earlier")
                .to_string();
            assert!(error.starts_with("line 4: after: "), "{error}");
        }
    }

    #[test]
    fn a_file_is_one_commit_up_to_the_bounds_of_the_server() {
        let limits = BatchLimits {
            jobs: 3,
            bytes: 2000,
            own_bytes: 1000,
            has_defaults: true,
        };
        let of = |count, own: usize, in_common: usize| {
            let job = |n: usize| json!({"shell": format!("{n}{}", "x".repeat(own)), "cwd": "x".repeat(in_common)});
            let jobs = (0..count).map(|n| job(n).as_object().expect("a job").clone());
            commits(&SharedJobs::new(jobs.collect(), limits), limits)
        };
        assert_eq!(of(0, 1, 1), Vec::<usize>::new());
        assert_eq!(of(4, 1, 1), [3, 1]);
        assert_eq!(of(3, 400, 1), [2, 1]);
        assert_eq!(of(3, 1, 900), [2, 1]);
        assert_eq!(of(2, 5000, 1), [1, 1]);
    }
}
