//! What shims report about a running attempt: started, paused, resumed, never started.
//!
//! The end of an attempt is in `finish`.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::SqlitePool;

use super::{
    columns::{from_json_opt, int, json},
    events,
    job_snapshot::{Transition, WriteBatch, all_moved},
    stop_requests, view,
};
use crate::store::write::{PauseReport, RefusalReport, VoidReport};
use crate::{
    job::{JobNumber, JobRef, Micros, state::Event},
    store::types::{Fenced, OpenAttempt, StartedAttempt},
};

/// Actor of the state change of an attempt that never started.
const RESCUE: &str = "rescue";

#[derive(Serialize)]
struct StartedRow {
    number: JobNumber,
    attempt: u32,
    pid: i32,
    start_ticks: i64,
    at: i64,
}

/// Stores processes that exist. No state changes: the claim has done that.
pub(super) async fn started(
    batch: &mut WriteBatch<'_>,
    starts: &[&StartedAttempt],
) -> sqlx::Result<Vec<Fenced>> {
    let rows: Vec<_> = starts
        .iter()
        .map(|start| StartedRow::from(*start))
        .collect();
    let rows = json(&rows)?;
    // `claimed` is the state of a current attempt only, so it fences by itself.
    let known: HashSet<(i64, u32)> = sqlx::query!(
        r#"UPDATE attempts SET state = 'started', pid = s.value ->> 'pid',
               start_ticks = s.value ->> 'start_ticks', started_at = s.value ->> 'at'
           FROM json_each(?1) AS s
           WHERE job = s.value ->> 'number' AND attempt = s.value ->> 'attempt'
             AND state = 'claimed'
           RETURNING job AS "job!: i64", attempt AS "attempt!: u32""#,
        rows
    )
    .fetch_all(&mut *batch.conn)
    .await?
    .into_iter()
    .map(|row| (row.job, row.attempt))
    .collect();
    if !known.is_empty() {
        sqlx::query!(
            "UPDATE jobs SET started_at = s.value ->> 'at' FROM json_each(?1) AS s
             WHERE number = s.value ->> 'number' AND attempt = s.value ->> 'attempt'
               AND +state IN ('running', 'paused') AND started_at IS NULL",
            rows
        )
        .execute(&mut *batch.conn)
        .await?;
    }
    Ok(starts
        .iter()
        .map(|s| fenced(known.contains(&(s.number, s.attempt))))
        .collect())
}

impl From<&StartedAttempt> for StartedRow {
    fn from(start: &StartedAttempt) -> Self {
        Self {
            number: start.number,
            attempt: start.attempt,
            pid: start.pid,
            start_ticks: int(start.start_ticks),
            at: start.at.0,
        }
    }
}

/// Changes `running` to `paused`, or `paused` to `running`.
pub(super) async fn paused(
    batch: &mut WriteBatch<'_>,
    report: &PauseReport,
) -> sqlx::Result<Fenced> {
    let event = if report.paused {
        Event::Paused
    } else {
        Event::Resumed
    };
    let snapshot = batch.snapshot(JobRef::Number(report.number)).await?;
    let Some(snapshot) = snapshot else {
        return Ok(Fenced::Stale);
    };
    let Some(step) = snapshot.step_of(report.attempt, event) else {
        return Ok(Fenced::Stale);
    };
    move_job(batch, step).await?;
    batch.record(&snapshot, step, None, &report.actor, report.at);
    Ok(Fenced::Applied)
}

/// Stores, beside the request to stop, the processes that it could not reach. No state changes.
pub(super) async fn stop_refused(
    batch: &mut WriteBatch<'_>,
    report: &RefusalReport,
) -> sqlx::Result<Fenced> {
    let refused = json(&report.refused)?;
    let done = sqlx::query!(
        "UPDATE attempts SET stop = json_set(stop, '$.refused', json(?3))
         WHERE job = ?1 AND attempt = ?2 AND stop IS NOT NULL AND state IN ('claimed', 'started')",
        report.number,
        report.attempt,
        refused
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(fenced(done.rows_affected() == 1))
}

/// Makes an attempt void: it does not count, and the job waits again, or is cancelled where a stop
/// is requested.
pub(super) async fn void(batch: &mut WriteBatch<'_>, report: &VoidReport) -> sqlx::Result<Fenced> {
    let Some(snapshot) = batch.snapshot(JobRef::Number(report.number)).await? else {
        return Ok(Fenced::Stale);
    };
    let Some(step) = snapshot.step_of(report.attempt, Event::Voided) else {
        return Ok(Fenced::Stale);
    };
    let at = report.at.0;
    let done = sqlx::query!(
        "UPDATE attempts SET state = 'void', ended_at = ?3
         WHERE job = ?1 AND attempt = ?2 AND state IN ('claimed', 'started')",
        report.number,
        report.attempt,
        at
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)?;
    uncount(batch, step).await?;
    match &snapshot.stop {
        Some(stop) => stop_requests::withdraw(batch, &snapshot, stop, report.at).await?,
        None => {
            move_job(batch, step).await?;
            batch.record(&snapshot, step, None, RESCUE, report.at);
        }
    }
    Ok(Fenced::Applied)
}

/// Takes an attempt out of the count of those that have started or may have; and clears the job's
/// start, which a recovery may have assumed, if it was the only one.
async fn uncount(batch: &mut WriteBatch<'_>, step: Transition) -> sqlx::Result<()> {
    let from = step.from.name();
    let done = sqlx::query!(
        "UPDATE jobs SET attempts = attempts - 1,
             started_at = CASE WHEN attempts > 1 THEN started_at END
         WHERE number = ?1 AND attempt = ?2 AND state = ?3",
        step.number,
        step.attempt,
        from
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)
}

async fn move_job(batch: &mut WriteBatch<'_>, step: Transition) -> sqlx::Result<()> {
    let (from, to) = (step.from.name(), step.to.name());
    let done = sqlx::query!(
        "UPDATE jobs SET state = ?4 WHERE number = ?1 AND attempt = ?2 AND state = ?3",
        step.number,
        step.attempt,
        from,
        to
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)
}

pub(super) fn fenced(written: bool) -> Fenced {
    if written {
        Fenced::Applied
    } else {
        Fenced::Stale
    }
}

/// Open attempts, of all jobs or of some.
macro_rules! open_attempts {
    ($readers:ident, $which:literal $(, $bound:expr)*) => {
    sqlx::query!(
        r#"SELECT j.number AS "number!: i64", j.id AS "id!: String", j.state AS "state!: String",
               j.attempt AS "attempt!: u32", a.shim AS "shim!: String",
               a.boot_id AS "boot_id!: String", a.instance AS "instance!: String",
               a.start_offset AS "start_offset!: i64", a.stop AS "stop: String",
               a.pause AS "pause!: bool", a.started_at AS "started_at: i64", a.pid AS "pid: i32",
               a.start_ticks AS "start_ticks: i64",
               coalesce(json_array_length(j.spec, '$.expect'), 0) > 0 AS "expects!: bool",
               s.end_offset AS "segments_end?: i64", s.hash_state AS "segments_hash?: Vec<u8>",
               (SELECT p.hash_state FROM attempts AS p
                WHERE p.job = j.number AND p.attempt < j.attempt AND p.end_offset = a.start_offset
                ORDER BY p.attempt DESC LIMIT 1) AS "before_hash: Vec<u8>"
           FROM jobs AS j
           JOIN attempts AS a ON a.job = j.number AND a.attempt = j.attempt
           LEFT JOIN segments AS s ON s.job = j.number AND s.attempt = j.attempt
                AND s.first_offset = (SELECT max(first_offset) FROM segments AS l
                                      WHERE l.job = j.number AND l.attempt = j.attempt)
           "# + $which $(, $bound)*
    )
    .fetch_all($readers)
    .await?
    .into_iter()
    .map(|row| {
        let start_offset = row.start_offset as u64;
        let (hashed_to, hash_state) = match row.segments_end {
            Some(end) => (end as u64, row.segments_hash),
            None => (start_offset, row.before_hash),
        };
        Ok(OpenAttempt {
            number: row.number,
            id: view::job_id(&row.id)?,
            state: events::state(&row.state)?,
            attempt: row.attempt,
            shim: row.shim,
            boot_id: row.boot_id,
            instance: row.instance,
            start_offset,
            hashed_to,
            hash_state,
            stop: from_json_opt(row.stop.as_deref())?,
            pause: row.pause,
            started_at: row.started_at.map(Micros),
            pid: row.pid,
            start_ticks: row.start_ticks.map(|ticks| ticks as u64),
            expects: row.expects,
        })
    })
    .collect()
    };
}

/// All attempts that are not final, in the order of their jobs.
pub(in crate::store) async fn open(readers: &SqlitePool) -> sqlx::Result<Vec<OpenAttempt>> {
    open_attempts!(
        readers,
        "WHERE j.state IN ('running', 'paused') ORDER BY j.number"
    )
}

/// This attempt, if it is not final.
pub(in crate::store) async fn open_one(
    readers: &SqlitePool,
    number: JobNumber,
    attempt: u32,
) -> sqlx::Result<Option<OpenAttempt>> {
    let found: sqlx::Result<Vec<OpenAttempt>> = open_attempts!(
        readers,
        "WHERE j.number = ?1 AND j.attempt = ?2 AND +j.state IN ('running', 'paused')",
        number,
        attempt
    );
    Ok(found?.pop())
}
