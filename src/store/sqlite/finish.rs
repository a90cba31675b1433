//! The end of attempts: exit facts, output and the job's final state, all in one transaction.
//!
//! The caller has decided the outcome; `job::state` decides what is allowed.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::{
    audit::EndColumns,
    columns::{int, json},
    inputs,
    job_snapshot::{JobSnapshot, Transition, WriteBatch, all_moved},
    keys::DigestKey,
    outputs,
};
use crate::{
    job::{
        Exit, ExitFacts, JobNumber, Micros, Reason, Seconds, StopFacts, StopRequest,
        loss::{AfterLoss, after_loss},
        retry::Failure,
        state::Event,
    },
    store::types::{Fenced, Finish, OutputPlacement},
};

/// A job's columns at its end. Counts and usage are those of the attempt; SQL adds them to the
/// job's.
#[derive(Serialize)]
struct JobEnd<'a> {
    #[serde(flatten)]
    step: Transition,
    reason: Option<&'static str>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    spawn_error: Option<String>,
    stop: Option<String>,
    leaked: u32,
    survivors: String,
    survivors_unknown: Option<&'a str>,
    user_us: i64,
    system_us: i64,
    max_rss_bytes: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    unmet_expectations: Option<String>,
    ready_at: Option<i64>,
    output_bytes: i64,
    dropped_bytes: i64,
    dropped_lines: i64,
    output_sha256: Option<&'a str>,
}

impl JobEnd<'_> {
    /// What the audit trail says of it: the same as of a row that is read.
    fn audited(&self) -> sqlx::Result<Value> {
        EndColumns {
            state: self.step.to,
            reason: self.reason,
            attempt: self.step.attempt,
            exit_code: self.exit_code,
            signal: self.signal,
            spawn_error: self.spawn_error.as_deref(),
            output_bytes: self.output_bytes,
            output_sha256: self.output_sha256,
        }
        .audited()
    }
}

/// An attempt's columns at its end. The digest's state is hex inside of JSON.
#[derive(Serialize)]
struct AttemptEnd<'a> {
    number: JobNumber,
    attempt: u32,
    state: &'static str,
    end_offset: i64,
    started_at: Option<i64>,
    ended_at: i64,
    exit: Option<String>,
    output_sha256: Option<&'a str>,
    hash_state: Option<String>,
}

/// An end to be written.
struct EndToWrite<'a> {
    step: Transition,
    snapshot: JobSnapshot,
    finish: &'a Finish,
    /// Why the job has failed, if it has.
    reason: Option<Reason>,
    /// The request that cancels a lost job, which would else run again.
    cancelled_by: Option<StopRequest>,
    /// When a job that failed and is tried again may run.
    ready_at: Option<Micros>,
}

/// Makes jobs final, or has them wait for another attempt where one was lost or failed. An end of an attempt that is
/// not the current one is stale.
pub(super) async fn finish(
    batch: &mut WriteBatch<'_>,
    finishes: &[&Finish],
) -> sqlx::Result<Vec<Fenced>> {
    let numbers: Vec<_> = finishes.iter().map(|finish| finish.number).collect();
    let mut snapshots = batch.snapshots(&numbers).await?;
    let mut ends = Vec::with_capacity(finishes.len());
    let mut fences = Vec::with_capacity(finishes.len());
    let mut reread = HashSet::new();
    let mut interactive = Vec::new();
    for finish in finishes {
        let snapshot = snapshots.get(&finish.number);
        let end = snapshot.and_then(|snapshot| end(batch.key, snapshot, finish));
        fences.push(match &end {
            None => Fenced::Stale,
            Some(end) if end.step.to.is_final() => Fenced::Applied,
            Some(_) => Fenced::Requeued,
        });
        let Some(end) = end else {
            continue;
        };
        // Removed: a second end of this attempt in one batch is as stale as a later one. A stale
        // end removes nothing, because the true one may follow.
        snapshots.remove(&finish.number);
        if end.snapshot.has_segments {
            reread.insert(finish.number);
        }
        if end.snapshot.interactive && end.step.to.is_final() {
            interactive.push(finish.number);
        }
        ends.push(end);
    }
    if !ends.is_empty() {
        update_jobs(batch, &ends).await?;
        update_attempts(batch, &ends).await?;
        keep_output(batch, &ends, &reread).await?;
        inputs::forget(batch, &interactive).await?;
    }
    for end in ends {
        let finish = end.finish;
        let (reason, actor) = match &end.cancelled_by {
            None => (finish.reason, &finish.actor),
            Some(request) => (None, &request.by),
        };
        batch.record(&end.snapshot, end.step, reason, actor, finish.at);
    }
    Ok(fences)
}

/// The change that the end of its attempt makes to a job.
fn end<'a>(key: &DigestKey, snapshot: &JobSnapshot, finish: &'a Finish) -> Option<EndToWrite<'a>> {
    let stop = snapshot.stop.as_ref();
    let after = match &finish.facts {
        Some(_) => AfterLoss::Fail,
        None => {
            let looked = finish.survivors_unknown.is_none();
            after_loss(snapshot.on_lost, snapshot.lost, stop.is_some(), looked)
        }
    };
    let pause = pause_before_retry(key, snapshot, finish);
    let event = match after {
        AfterLoss::Fail if pause.is_some() => Event::Retried,
        AfterLoss::Fail => Event::Ended(finish.state),
        AfterLoss::Retry => Event::Requeued,
        AfterLoss::Cancel => Event::Withdrawn,
    };
    let step = snapshot.step_of(finish.attempt, event)?;
    Some(EndToWrite {
        step,
        snapshot: snapshot.clone(),
        finish,
        reason: finish
            .reason
            .filter(|_| after == AfterLoss::Fail && step.to.is_final()),
        cancelled_by: stop.filter(|_| after == AfterLoss::Cancel).cloned(),
        ready_at: pause.map(|pause| finish.at.after(pause)),
    })
}

/// How long a job waits for its next attempt, if its policy gives it one after this end. A job that was
/// asked to stop gets none, even if it failed before the stop reached it.
fn pause_before_retry(key: &DigestKey, snapshot: &JobSnapshot, finish: &Finish) -> Option<Seconds> {
    let policy = snapshot
        .retry
        .as_ref()
        .filter(|_| snapshot.stop.is_none())?;
    let failure = Failure {
        reason: finish.reason?,
        exit: &finish.facts.as_ref()?.exit,
    };
    let failures = snapshot.attempts.saturating_sub(snapshot.lost);
    // The same for the same attempt: a commit that is tried again decides as before.
    let random = key.digest_of(&format!("{}/{}", finish.number, finish.attempt));
    let random = f64::from(u32::from_le_bytes([
        random[0], random[1], random[2], random[3],
    ]));
    policy.pause_after(&failure, failures, random / f64::from(u32::MAX))
}

async fn update_jobs(batch: &mut WriteBatch<'_>, ends: &[EndToWrite<'_>]) -> sqlx::Result<()> {
    let rows: Vec<_> = ends.iter().map(job_end).collect::<sqlx::Result<_>>()?;
    for row in rows.iter().filter(|row| row.step.to.is_final()) {
        let end = row.audited()?;
        batch.ends.insert(row.step.number, end);
    }
    let rows = json(&rows)?;
    let done = sqlx::query!(
        "UPDATE jobs SET state = f.value ->> 'to', reason = f.value ->> 'reason',
             exit_code = f.value ->> 'exit_code', signal = f.value ->> 'signal',
             spawn_error = f.value ->> 'spawn_error', stop = f.value ->> 'stop',
             leaked = leaked + (f.value ->> 'leaked'),
             survivors = (SELECT json_group_array(json(alive.value)) FROM
                 (SELECT value FROM json_each(jobs.survivors)
                  UNION ALL SELECT value FROM json_each(f.value ->> 'survivors')) AS alive),
             survivors_unknown = f.value ->> 'survivors_unknown',
             user_us = user_us + (f.value ->> 'user_us'),
             system_us = system_us + (f.value ->> 'system_us'),
             max_rss_bytes = max(max_rss_bytes, f.value ->> 'max_rss_bytes'),
             started_at = coalesce(started_at, f.value ->> 'started_at'),
             finished_at = f.value ->> 'finished_at',
             unmet_expectations = f.value ->> 'unmet_expectations',
             ready_at = coalesce(f.value ->> 'ready_at', ready_at),
             output_bytes = f.value ->> 'output_bytes',
             dropped_bytes = dropped_bytes + (f.value ->> 'dropped_bytes'),
             dropped_lines = dropped_lines + (f.value ->> 'dropped_lines'),
             output_sha256 = f.value ->> 'output_sha256'
         FROM json_each(?1) AS f
         WHERE number = f.value ->> 'number' AND attempt = f.value ->> 'attempt'
           AND +state = f.value ->> 'from' AND +state IN ('running', 'paused')",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), ends.len())
}

fn job_end<'a>(end: &EndToWrite<'a>) -> sqlx::Result<JobEnd<'a>> {
    let EndToWrite { step, finish, .. } = *end;
    let facts = finish.facts.as_ref();
    let is_final = step.to.is_final();
    let exit = facts.map(|facts| &facts.exit).filter(|_| is_final);
    let (exit_code, signal, spawn_error) = match exit {
        Some(Exit::Code(code)) => (Some(*code), None, None),
        Some(Exit::Signal(signal)) => (None, Some(*signal), None),
        Some(Exit::SpawnFailed(error)) if finish.reason == Some(Reason::Spawn) => {
            (None, None, Some(json(error)?))
        }
        // Stopped before there was a process, or lost.
        Some(Exit::SpawnFailed(_)) | None => (None, None, None),
    };
    let stop = match &end.cancelled_by {
        Some(request) => Some(StopFacts::undelivered(request)),
        None => facts
            .and_then(|facts| facts.stop.clone())
            .filter(|_| is_final),
    };
    let survivors = facts.map_or(&finish.survivors, |facts| &facts.survivors);
    let usage = facts.map(|facts| facts.usage).unwrap_or_default();
    Ok(JobEnd {
        step,
        reason: end.reason.map(|reason| reason.name()),
        exit_code,
        signal,
        spawn_error,
        stop: stop.as_ref().map(json).transpose()?,
        leaked: facts.map_or(0, |facts| facts.leaked),
        survivors: json(survivors)?,
        survivors_unknown: finish.survivors_unknown.as_deref(),
        user_us: micros(usage.user_s),
        system_us: micros(usage.system_s),
        max_rss_bytes: int(usage.max_rss_bytes),
        started_at: facts.and_then(|facts| facts.started_at_us),
        finished_at: is_final.then_some(finish.at.0),
        unmet_expectations: match is_final && !finish.unmet_expectations.is_empty() {
            true => Some(json(&finish.unmet_expectations)?),
            false => None,
        },
        ready_at: end.ready_at.map(|at| at.0),
        output_bytes: int(finish.end_offset),
        dropped_bytes: int(finish.dropped.bytes),
        dropped_lines: int(finish.dropped.lines),
        output_sha256: finish.output_sha256.as_deref().filter(|_| is_final),
    })
}

async fn update_attempts(batch: &mut WriteBatch<'_>, ends: &[EndToWrite<'_>]) -> sqlx::Result<()> {
    let rows: Vec<_> = ends
        .iter()
        .map(|end| attempt_end(end.finish))
        .collect::<sqlx::Result<_>>()?;
    let rows = json(&rows)?;
    let done = sqlx::query!(
        "UPDATE attempts SET state = f.value ->> 'state', end_offset = f.value ->> 'end_offset',
             started_at = coalesce(started_at, f.value ->> 'started_at'),
             ended_at = f.value ->> 'ended_at', exit = f.value ->> 'exit',
             output_sha256 = f.value ->> 'output_sha256',
             hash_state = unhex(f.value ->> 'hash_state')
         FROM json_each(?1) AS f
         WHERE job = f.value ->> 'number' AND attempt = f.value ->> 'attempt'
           AND state IN ('claimed', 'started')",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), ends.len())
}

fn attempt_end(finish: &Finish) -> sqlx::Result<AttemptEnd<'_>> {
    let facts = finish.facts.as_ref();
    Ok(AttemptEnd {
        number: finish.number,
        attempt: finish.attempt,
        state: if facts.is_some() { "ended" } else { "lost" },
        end_offset: int(finish.end_offset),
        started_at: facts.and_then(|facts| facts.started_at_us),
        ended_at: facts.map_or(finish.at, ExitFacts::ended_at).0,
        exit: facts.map(json).transpose()?,
        output_sha256: finish.output_sha256.as_deref(),
        hash_state: finish.hash_state.as_deref().map(super::columns::hex),
    })
}

/// Rows replace segments: where both exist for an attempt, the segments' rows are deleted; where
/// segments have become a gap, so are theirs.
async fn keep_output(
    batch: &mut WriteBatch<'_>,
    ends: &[EndToWrite<'_>],
    with_segments: &HashSet<JobNumber>,
) -> sqlx::Result<()> {
    let mut output_rows = Vec::new();
    let mut segments = Vec::new();
    for EndToWrite { finish, .. } in ends {
        match &finish.kept {
            OutputPlacement::Rows { chunks, gaps } => {
                output_rows.extend(outputs::output_rows(
                    finish.number,
                    finish.attempt,
                    chunks,
                    gaps,
                ));
                if with_segments.contains(&finish.number) {
                    outputs::forget_segments(batch, finish.number, finish.attempt).await?;
                }
            }
            OutputPlacement::Segments { rows, gaps } => {
                segments.extend(rows);
                if with_segments.contains(&finish.number) {
                    outputs::forget_dropped(batch, finish.number, finish.attempt, gaps).await?;
                }
                output_rows.extend(outputs::output_rows(
                    finish.number,
                    finish.attempt,
                    &[],
                    gaps,
                ));
            }
        }
    }
    outputs::insert_output_rows(batch, &output_rows).await?;
    outputs::insert_segments(batch, &segments).await
}

fn micros(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}
