//! What the audit trail says of each kind of write: one entry of a write that has changed something, none of one that was
//! refused or found nothing to do.
//!
//! Values of environments, of stdin, of inputs and of secrets never become part of an entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::keys::DigestKey;
use crate::{
    access::ClientOrigin,
    audit::{AuditEntry, canonical::canonical, chain::hex},
    job::{
        Command, Input, InputAnswer, Job, JobChange, JobNumber, JobSpec, Micros, QueueChange,
        RetentionScope, Schedule, StopCause,
    },
    store::{
        Fired, Firing, FiringCause, InputOutcome, NewToken, NoticeRef, NoticeRetried,
        PauseRequested, QueueDeleted, QueueSet, RetentionWrite, RetentionWritten, RunPlan,
        ScheduleSet, StopRequested, Submission, SubmitOutcome, TokenAdded, TokenChange, Updated,
        audit_types::AuditWrite,
        types::{Deleted, Epoch},
        write::{AuditedWrite, Write, WriteResult},
    },
};

/// The version of what an entry says of a firing. In the first one, which did not say so, the digest covered runs that were
/// skipped, too.
pub const FIRED_VERSION: u32 = 2;

/// An action with its target and its result.
type Said = (&'static str, Value, Value);

/// The entries of a write with this result.
pub(super) fn of(write: &AuditedWrite, result: &WriteResult, key: &DigestKey) -> Vec<AuditEntry> {
    let origin = || {
        let known = write.origin.clone();
        known.unwrap_or_else(|| Arc::new(ClientOrigin::server()))
    };
    if let Write::Audit(AuditWrite::Add(entries)) = &write.write {
        return entries.clone();
    }
    let said = said(&write.write, result, key);
    let entry =
        said.map(|(action, target, result)| AuditEntry::allowed(action, origin(), target, result));
    entry.into_iter().collect()
}

fn said(write: &Write, result: &WriteResult, key: &DigestKey) -> Option<Said> {
    match (write, result) {
        (Write::BeginEpoch(boot_id, _, policy), WriteResult::Epoch(epoch)) => {
            Some(started(boot_id, policy.as_deref(), epoch))
        }
        (Write::Submit(jobs), WriteResult::Submitted(Ok(outcomes))) => submitted(jobs, outcomes),
        (Write::Fire(firing), WriteResult::Fired(fired)) => fired_said(firing, fired),
        (Write::RequestStop(_, request), WriteResult::StopRequested(requested)) => {
            let action = match request.cause {
                StopCause::Kill => "job.kill",
                _ => "job.cancel",
            };
            let job = stopped(requested)?;
            Some((action, of_job(job), json!({"by": request.by})))
        }
        (Write::RequestPause(request), WriteResult::PauseRequested(requested)) => {
            let action = if request.pause {
                "job.pause"
            } else {
                "job.resume"
            };
            match &**requested {
                PauseRequested::ToShim { number, .. } => {
                    Some((action, of_job(*number), json!({"by": request.actor})))
                }
                _ => None,
            }
        }
        (Write::Input(_, input), WriteResult::InputOutcome(outcome)) => {
            let number = taken(outcome)?;
            Some(("job.input", of_job(number), input_said(input, key)))
        }
        (Write::Update(_, change, _), WriteResult::Updated(updated)) => match &**updated {
            Updated::Done(job) => Some(("job.update", of_job(job.number), changed(change))),
            _ => None,
        },
        (Write::Delete(_), WriteResult::Deleted(deleted)) => match &**deleted {
            Deleted::Done(deleted) => Some(("job.delete", of_job(deleted.job.number), json!({}))),
            _ => None,
        },
        (Write::Retention(write), WriteResult::Retention(written)) => removed(write, written),
        (write, result) => settings_said(write, result),
    }
}

/// The same for writes that are about no job.
fn settings_said(write: &Write, result: &WriteResult) -> Option<Said> {
    match (write, result) {
        (Write::SetQueue(change), WriteResult::QueueSet(QueueSet::Done(_))) => Some((
            "queue.set",
            json!({"queue": change.name}),
            queue_said(change),
        )),
        (Write::DeleteQueue(name), WriteResult::QueueDeleted(QueueDeleted::Done)) => {
            Some(("queue.delete", json!({"queue": name}), json!({})))
        }
        (Write::SetSchedule(..), WriteResult::ScheduleSet(ScheduleSet::Done(schedule))) => {
            Some(schedule_said(schedule))
        }
        (Write::DeleteSchedule(name), WriteResult::ScheduleDeleted(true)) => {
            Some(("schedule.delete", json!({"schedule": name}), json!({})))
        }
        (Write::AddToken(new), WriteResult::TokenAdded(TokenAdded::Done(number))) => {
            let target = json!({"token": number, "name": new.name});
            Some(("token.create", target, token_said(new)))
        }
        (Write::ChangeToken((number, change)), WriteResult::TokenChanged(true)) => {
            let (action, result) = match change {
                TokenChange::Revoked(_) => ("token.revoke", json!({})),
                TokenChange::Expired(_) => ("token.expire", json!({})),
                TokenChange::Rotated { expires_at, .. } => (
                    "token.rotate",
                    json!({"expires_at": expires_at.map(|at| at.0)}),
                ),
            };
            Some((action, json!({"token": number}), result))
        }
        (Write::RetryNotice { notice, .. }, WriteResult::NoticeRetried(retried)) => {
            let target = match notice {
                NoticeRef::Number(number) => json!({"notice": number}),
                NoticeRef::Id(id) => json!({"notice": id}),
            };
            let is_done = **retried == NoticeRetried::Done;
            is_done.then(|| ("notice.retry", target, json!({})))
        }
        _ => None,
    }
}

fn of_job(number: JobNumber) -> Value {
    json!({"job": number})
}

fn started(boot_id: &str, policy: Option<&str>, epoch: &Epoch) -> Said {
    let target = json!({"instance": epoch.instance});
    let result = json!({
        "epoch": epoch.epoch,
        "is_copy": epoch.is_copy,
        "boot_id": boot_id,
        "version": env!("CARGO_PKG_VERSION"),
        "policy": policy,
    });
    ("server.start", target, result)
}

/// One entry of a submission, whatever its number of jobs: a digest covers what they run.
fn submitted(jobs: &[Submission], outcomes: &[SubmitOutcome]) -> Option<Said> {
    let new = jobs
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.created);
    let new: Vec<(&Submission, &SubmitOutcome)> = new.collect();
    let (first, last) = (new.first()?, new.last()?);
    let action = match first.0.retry_of {
        Some(_) => "job.retry",
        None => "job.submit",
    };
    let queues: BTreeSet<&str> = new.iter().map(|(one, _)| one.job.queue.as_str()).collect();
    let mut result = json!({
        "queues": queues,
        "commands_sha256": commands_digest(new.iter().map(|(one, _)| &one.job)),
    });
    let decisions = new
        .iter()
        .filter_map(|(one, _)| one.policy.as_ref()?.decision.as_ref());
    let (rules, digests): (BTreeSet<_>, BTreeSet<_>) = decisions
        .map(|decision| (decision.rule.as_str(), decision.digest.as_str()))
        .unzip();
    if !rules.is_empty() {
        result["policy"] = json!({"rules": rules, "digests": digests});
    }
    if let Some(retry_of) = &first.0.retry_of {
        result["retry_of"] = retry_of.to_string().into();
    }
    let target = match new.len() {
        1 => json!({"job": first.1.number, "id": first.1.id.to_string()}),
        count => json!({"jobs": {"first": first.1.number, "last": last.1.number, "count": count}}),
    };
    Some((action, target, result))
}

/// A digest of the commands and directories of these jobs, in their order.
pub fn commands_digest<'a>(jobs: impl Iterator<Item = &'a JobSpec>) -> String {
    let mut hasher = Sha256::new();
    for job in jobs {
        let command = match &job.command {
            Command::Argv(argv) => json!({"argv": argv, "cwd": job.cwd}),
            Command::Shell(line) => json!({"shell": line, "cwd": job.cwd}),
        };
        hasher.update(canonical(&command).as_bytes());
        hasher.update(b"\n");
    }
    hex(&hasher.finalize())
}

fn fired_said(firing: &Firing, fired: &Fired) -> Option<Said> {
    let new: BTreeMap<Micros, JobNumber> = fired
        .submitted
        .iter()
        .filter(|run| run.outcome.created)
        .map(|run| (run.at, run.outcome.number))
        .collect();
    let jobs: Vec<JobNumber> = new.values().copied().collect();
    let stops: Vec<JobNumber> = fired.stops.iter().filter_map(stopped).collect();
    if jobs.is_empty() && stops.is_empty() && fired.skipped.is_empty() {
        return None;
    }
    let action = match firing.cause {
        FiringCause::Request => "schedule.run",
        FiringCause::Clock { .. } | FiringCause::Waiting => "schedule.fire",
    };
    // The digest is of those runs that became jobs, in the order of `jobs`.
    let runs = firing.runs.iter().filter(|run| new.contains_key(&run.at));
    let runs: BTreeMap<Micros, &RunPlan> = runs.map(|run| (run.at, run)).collect();
    let specs = runs.values().filter_map(|run| run.submission.as_ref().ok());
    let mut result = json!({
        "v": FIRED_VERSION,
        "jobs": jobs,
        "commands_sha256": commands_digest(specs.map(|one| &one.job)),
        "cancelled": stops,
        "skipped": fired.skipped.len(),
    });
    let refused = firing
        .runs
        .iter()
        .filter_map(|run| run.submission.as_ref().err());
    let by = refused.filter_map(|refused| refused.by.as_ref());
    let (rules, digests): (BTreeSet<&str>, BTreeSet<&str>) = by
        .map(|decision| (decision.rule.as_str(), decision.digest.as_str()))
        .unzip();
    if !rules.is_empty() {
        result["refused_by"] = json!({"rules": rules, "digests": digests});
    }
    Some((action, json!({"schedule": firing.name}), result))
}

/// The job that a request to stop is about, if it changed something.
fn stopped(requested: &StopRequested) -> Option<JobNumber> {
    match requested {
        StopRequested::Withdrawn(Job { number, .. }) => Some(*number),
        StopRequested::ToShim { job, .. } => Some(job.number),
        StopRequested::Final(_) | StopRequested::NotFound => None,
    }
}

/// The job that has an input, unless it was refused here.
fn taken(outcome: &InputOutcome) -> Option<JobNumber> {
    match outcome {
        InputOutcome::Kept {
            number,
            answer: InputAnswer::Accepted { .. },
        }
        | InputOutcome::ToShim { number, .. } => Some(*number),
        _ => None,
    }
}

/// The digest is keyed: a password that was typed could be guessed from a plain one.
fn input_said(input: &Input, key: &DigestKey) -> Value {
    let digest = key.digest(&Sha256::digest(&input.data).into());
    json!({"bytes": input.data.len(), "keyed_sha256": hex(&digest), "eof": input.eof})
}

/// Which keys were changed, and the values of those that decide where the job runs.
fn changed(change: &JobChange) -> Value {
    let mut result = Map::new();
    let values = [
        ("queue", change.queue.as_deref().map(Value::from)),
        ("priority", change.priority.map(Value::from)),
        ("name", change.name.as_ref().map(|name| json!(name))),
        (
            "run_at",
            change.run_at.map(|at| json!(at.map(|at| at.to_rfc3339()))),
        ),
        (
            "label_keys",
            change
                .labels
                .as_ref()
                .map(|labels| json!(labels.keys().collect::<Vec<_>>())),
        ),
    ];
    for (key, value) in values {
        result.extend(value.map(|value| (key.to_owned(), value)));
    }
    Value::Object(result)
}

fn removed(write: &RetentionWrite, written: &RetentionWritten) -> Option<Said> {
    match (write, written) {
        (RetentionWrite::SetRule(rule), RetentionWritten::RuleSet(true)) => {
            let rule_json = serde_json::to_value(rule).unwrap_or_default();
            Some(("retention.set", json!({"rule": rule.name}), rule_json))
        }
        (RetentionWrite::DeleteRule(name), RetentionWritten::RuleDeleted(true)) => {
            Some(("retention.delete", json!({"rule": name}), json!({})))
        }
        (RetentionWrite::Remove(scope, _), RetentionWritten::Removed(removed)) => {
            let begun = removed
                .segments
                .keys()
                .filter(|job| !removed.jobs.contains(job));
            let begun: Vec<&JobNumber> = begun.collect();
            if removed.jobs.is_empty() && begun.is_empty() {
                return None;
            }
            let scope = match scope {
                RetentionScope::Jobs => "jobs",
                RetentionScope::Outputs => "outputs",
            };
            let target = json!({"jobs": removed.jobs, "begun": begun});
            Some(("job.remove", target, json!({"scope": scope})))
        }
        _ => None,
    }
}

/// Of the defaults only the keys: they may set variables.
fn queue_said(change: &QueueChange) -> Value {
    let mut result = Map::new();
    let keys = change
        .defaults
        .as_ref()
        .map(|defaults| defaults.keys().collect::<Vec<_>>());
    let values = [
        ("concurrency", change.concurrency.map(Value::from)),
        ("paused", change.paused.map(Value::from)),
        (
            "pause_reason",
            change.pause_reason.as_deref().map(Value::from),
        ),
        ("drain", change.drain.map(Value::from)),
        (
            "starts_per_minute",
            change.starts_per_minute.map(|starts| json!(starts)),
        ),
        ("weight", change.weight.map(Value::from)),
        ("default_keys", keys.map(|keys| json!(keys))),
    ];
    for (key, value) in values {
        result.extend(value.map(|value| (key.to_owned(), value)));
    }
    Value::Object(result)
}

fn schedule_said(schedule: &Schedule) -> Said {
    let result = json!({
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "overlap": schedule.overlap.name(),
        "catch_up": schedule.catch_up.name(),
        "paused": schedule.paused,
        "job_keys": schedule.job.keys().collect::<Vec<_>>(),
    });
    ("schedule.set", json!({"schedule": schedule.name}), result)
}

fn token_said(new: &NewToken) -> Value {
    json!({
        "scopes": new.scopes,
        "restrictions": new.restrictions,
        "expires_at": new.expires_at.map(|at| at.0),
    })
}
