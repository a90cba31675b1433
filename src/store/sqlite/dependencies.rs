//! Jobs that wait for other jobs: their rows, and what becomes of them when the others end.
//!
//! A row of `dependencies` with `waiting` is something that a blocked job still waits for. When a job becomes final, the
//! jobs that wait for it follow in the same transaction, or, where they are many, in the next ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use sqlx::SqlitePool;

use super::{
    columns::{EMPTY_SHA256, json},
    events, inputs,
    job_snapshot::{JobSnapshot, Transition, WriteBatch, all_moved},
    view,
};
use crate::{
    job::{
        DependencyCondition, FailedDependency, JobId, JobNumber, JobState, Micros, Reason,
        state::{Event, WaitsFor},
    },
    store::types::RetryKin,
    sys::clock,
};

/// Actor of the state changes here.
const ACTOR: &str = "scheduler";
/// The most blocked jobs that one transaction moves.
const MOVES_MAX: usize = 500;

/// A row of the table.
#[derive(Debug, Serialize)]
pub(super) struct DependencyRow {
    pub job: JobNumber,
    pub on_job: JobNumber,
    pub condition: DependencyCondition,
}

/// Those of these jobs that exist, with their numbers and states.
pub(super) async fn known(
    batch: &mut WriteBatch<'_>,
    ids: &BTreeSet<JobId>,
) -> sqlx::Result<HashMap<JobId, (JobNumber, JobState)>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids = json(ids)?;
    let rows = sqlx::query!(
        r#"SELECT id AS "id!: String", number AS "number!: i64", state AS "state!: String"
           FROM jobs WHERE id IN (SELECT value FROM json_each(?1))"#,
        ids
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let known = rows.into_iter().map(|row| {
        let state = events::state(&row.state)?;
        Ok((view::job_id(&row.id)?, (row.number, state)))
    });
    known.collect()
}

/// Stores what new jobs wait for.
pub(super) async fn insert(batch: &mut WriteBatch<'_>, rows: &[DependencyRow]) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows = json(&rows)?;
    // A job that is named twice must succeed if one of the two says so.
    sqlx::query!(
        "INSERT INTO dependencies (job, on_job, condition)
         SELECT value ->> 'job', value ->> 'on_job', max(value ->> 'condition')
         FROM json_each(?1) GROUP BY 1, 2",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// Lets jobs follow that wait for final ones: they are queued, scheduled, or failed, in which case those
/// that wait for them follow too. At most [`MOVES_MAX`] of them; the others stay for the next transaction.
pub(super) async fn release(batch: &mut WriteBatch<'_>) -> sqlx::Result<()> {
    let mut moves = 0;
    while moves < MOVES_MAX && !batch.releases.is_empty() {
        let ended = batch.releases.first(MOVES_MAX);
        let waiting = waiting(batch, &ended, MOVES_MAX - moves).await?;
        if waiting.is_empty() {
            batch.releases.drop_first(ended.len());
            continue;
        }
        moves += waiting.len();
        follow(batch, waiting).await?;
    }
    Ok(())
}

/// The same before a final job is deleted, which nobody may wait for then.
pub(super) async fn release_all_of(batch: &mut WriteBatch<'_>, job: JobNumber) -> sqlx::Result<()> {
    if batch.tally.blocked() == 0 {
        return Ok(());
    }
    loop {
        let waiting = waiting(batch, &[job], MOVES_MAX).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        follow(batch, waiting).await?;
    }
}

/// A job is cancelled and waits for nothing any more.
pub(super) async fn withdraw(batch: &mut WriteBatch<'_>, job: JobNumber) -> sqlx::Result<()> {
    sqlx::query!("UPDATE dependencies SET waiting = 0 WHERE job = ?1", job)
        .execute(&mut *batch.conn)
        .await?;
    Ok(())
}

/// A row whose other job has ended, and how that one ended.
struct EndedDependency {
    job: JobNumber,
    condition: DependencyCondition,
    on: FailedDependency,
}

/// Rows of jobs that wait for one of these final ones.
async fn waiting(
    batch: &mut WriteBatch<'_>,
    ended: &[JobNumber],
    most: usize,
) -> sqlx::Result<Vec<EndedDependency>> {
    let (ended, most) = (json(&ended)?, most as i64);
    let rows = sqlx::query!(
        r#"SELECT d.job AS "job!: i64", d.condition AS "condition!: String", j.id AS "id!: String",
               j.number AS "number!: i64", j.name AS "name: String", j.state AS "state!: String",
               j.reason AS "reason: String"
           FROM json_each(?1) AS e
           CROSS JOIN dependencies AS d INDEXED BY dependencies_on_job
               ON d.on_job = e.value AND d.waiting = 1
           JOIN jobs AS j ON j.number = d.on_job
           LIMIT ?2"#,
        ended,
        most
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(EndedDependency {
            job: row.job,
            condition: DependencyCondition::from_name(&row.condition).unwrap_or_default(),
            on: FailedDependency {
                job: view::job_id(&row.id)?,
                number: row.number,
                name: row.name,
                state: events::state(&row.state)?,
                reason: row.reason.as_deref().map(events::reason).transpose()?,
            },
        })
    });
    rows.collect()
}

/// Moves the jobs of these rows, as far as they wait for nothing else or have failed now.
async fn follow(batch: &mut WriteBatch<'_>, ended: Vec<EndedDependency>) -> sqlx::Result<()> {
    let met: Vec<_> = ended.iter().map(|one| (one.job, one.on.number)).collect();
    let jobs: BTreeSet<JobNumber> = ended.iter().map(|one| one.job).collect();
    let mut failed = BTreeMap::new();
    for one in ended {
        if !one.condition.is_met_by(one.on.state) {
            failed.entry(one.job).or_insert(one.on);
        }
    }
    let left = mark(batch, &met, &jobs, failed.keys().copied().collect()).await?;
    let moving: Vec<_> = jobs.difference(&left).copied().collect();
    let at = clock::now();
    let mut free = Vec::new();
    let snapshots = batch.snapshots(&moving).await?;
    for number in &moving {
        let Some(snapshot) = snapshots.get(number) else {
            continue;
        };
        match failed.get(number) {
            Some(on) => fail(batch, snapshot, on, at).await?,
            None => free.push(snapshot),
        }
    }
    unblock(batch, &free, at).await
}

/// Marks rows that are met, and all rows of jobs that fail; returns which of the jobs still wait.
async fn mark(
    batch: &mut WriteBatch<'_>,
    met: &[(JobNumber, JobNumber)],
    jobs: &BTreeSet<JobNumber>,
    failed: Vec<JobNumber>,
) -> sqlx::Result<BTreeSet<JobNumber>> {
    let (met, jobs, failed) = (json(&met)?, json(jobs)?, json(&failed)?);
    sqlx::query!(
        "UPDATE dependencies SET waiting = 0 WHERE (job, on_job) IN
             (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
        met
    )
    .execute(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "UPDATE dependencies SET waiting = 0 WHERE job IN (SELECT value FROM json_each(?1))",
        failed
    )
    .execute(&mut *batch.conn)
    .await?;
    let left = sqlx::query_scalar!(
        r#"SELECT DISTINCT job AS "job!: i64" FROM dependencies
           WHERE waiting = 1 AND job IN (SELECT value FROM json_each(?1))"#,
        jobs
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    Ok(left.into_iter().collect())
}

/// Makes a blocked job `failed`, and says because of which other one.
async fn fail(
    batch: &mut WriteBatch<'_>,
    snapshot: &JobSnapshot,
    on: &FailedDependency,
    at: Micros,
) -> sqlx::Result<()> {
    let Some(step) = snapshot.step(Event::DependencyFailed) else {
        return Ok(());
    };
    let (reason, on) = (Reason::Dependency.name(), json(on)?);
    let done = sqlx::query!(
        "UPDATE jobs SET state = 'failed', reason = ?2, finished_at = ?3, failed_dependency = ?4,
             output_sha256 = ?5
         WHERE number = ?1 AND +state = 'blocked'",
        step.number,
        reason,
        at.0,
        on,
        EMPTY_SHA256
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)?;
    if snapshot.interactive {
        inputs::forget(batch, &[step.number]).await?;
    }
    batch.record(snapshot, step, Some(Reason::Dependency), ACTOR, at);
    Ok(())
}

/// Makes blocked jobs `queued`, or `scheduled` where their time has not come.
async fn unblock(
    batch: &mut WriteBatch<'_>,
    jobs: &[&JobSnapshot],
    at: Micros,
) -> sqlx::Result<()> {
    let steps: Vec<_> = jobs
        .iter()
        .filter_map(|job| Some((*job, unblocked(job, at)?)))
        .collect();
    let rows = json(&steps.iter().map(|(_, step)| step).collect::<Vec<_>>())?;
    let done = sqlx::query!(
        "UPDATE jobs SET state = f.value ->> 'to' FROM json_each(?1) AS f
         WHERE number = f.value ->> 'number' AND +state = 'blocked'",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), steps.len())?;
    for (job, step) in steps {
        batch.record(job, step, None, ACTOR, at);
    }
    Ok(())
}

fn unblocked(job: &JobSnapshot, at: Micros) -> Option<Transition> {
    let wait = match job.ready_at.is_some_and(|ready_at| ready_at > at) {
        true => WaitsFor::Time,
        false => WaitsFor::Slot,
    };
    job.step(Event::Unblocked(wait))
}

/// The jobs that have waited or wait for one of these, directly.
pub(in crate::store) async fn dependants(
    readers: &SqlitePool,
    jobs: &[JobNumber],
) -> sqlx::Result<Vec<JobNumber>> {
    let jobs = json(&jobs)?;
    sqlx::query_scalar!(
        r#"SELECT DISTINCT d.job AS "job!: i64" FROM json_each(?1) AS e
           CROSS JOIN dependencies AS d INDEXED BY dependencies_on_job ON d.on_job = e.value
           ORDER BY d.job"#,
        jobs
    )
    .fetch_all(readers)
    .await
}

/// All kin of these jobs, in the order of their numbers. A retry has a higher number than what it tries again.
pub(in crate::store) async fn retry_kin(
    readers: &SqlitePool,
    jobs: &[JobNumber],
) -> sqlx::Result<Vec<RetryKin>> {
    let jobs = json(&jobs)?;
    let rows = sqlx::query!(
        r#"WITH RECURSIVE
           above (job, number, retry_of) AS (
               SELECT j.number, j.number, j.retry_of FROM json_each(?1) AS e
               CROSS JOIN jobs AS j ON j.number = e.value
               UNION
               SELECT up.job, o.number, o.retry_of FROM above AS up
               CROSS JOIN jobs AS o ON o.id = up.retry_of),
           kin (origin, number, id) AS (
               SELECT o.number, o.number, o.id FROM
                   (SELECT DISTINCT min(number) AS number FROM above GROUP BY job) AS top
               CROSS JOIN jobs AS o ON o.number = top.number
               UNION
               SELECT k.origin, r.number, r.id FROM kin AS k
               CROSS JOIN jobs AS r INDEXED BY jobs_retry_of ON r.retry_of = k.id)
           SELECT origin AS "origin!: i64", number AS "number!: i64", id AS "id!: String"
           FROM kin ORDER BY number"#,
        jobs
    )
    .fetch_all(readers)
    .await?;
    let kin = rows.into_iter().map(|row| {
        Ok(RetryKin {
            origin: row.origin,
            number: row.number,
            id: view::job_id(&row.id)?,
        })
    });
    kin.collect()
}

/// A job that was deleted without having succeeded, although this one needed that.
pub(in crate::store) async fn deleted_unmet(
    readers: &SqlitePool,
    job: JobNumber,
) -> sqlx::Result<Option<JobNumber>> {
    sqlx::query_scalar!(
        r#"SELECT d.on_job AS "job!: i64" FROM dependencies AS d
           WHERE d.job = ?1 AND d.condition = 'success'
             AND NOT EXISTS (SELECT 1 FROM jobs AS o WHERE o.number = d.on_job)
             AND NOT EXISTS (SELECT 1 FROM events AS e
                             WHERE e.job = d.on_job AND e.to_state = 'succeeded')
           ORDER BY d.on_job LIMIT 1"#,
        job
    )
    .fetch_optional(readers)
    .await
}

/// The id of the job that the first submission under a key waits for in an entry of its `after`, if that job
/// was deleted since and may have had this number.
pub(in crate::store) async fn deleted(
    readers: &SqlitePool,
    key: &str,
    nth: usize,
    number: JobNumber,
) -> sqlx::Result<Option<JobId>> {
    let nth = nth as i64;
    let deleted = sqlx::query_scalar!(
        r#"SELECT a.value ->> 'job' AS "id!: String"
           FROM jobs AS j, json_each(j.spec, '$.after') AS a
           WHERE j.idempotency_key = ?1 AND a.key = ?2 AND j.number > ?3
             AND NOT EXISTS (SELECT 1 FROM jobs AS o WHERE o.id = a.value ->> 'job')"#,
        key,
        nth,
        number
    )
    .fetch_optional(readers)
    .await?;
    deleted.as_deref().map(view::job_id).transpose()
}

/// The newest retry of a job, if there is one.
pub(in crate::store) async fn newest_retry(
    readers: &SqlitePool,
    job: JobId,
) -> sqlx::Result<Option<JobId>> {
    let job = job.to_string();
    let newest = sqlx::query_scalar!(
        r#"SELECT id AS "id!: String" FROM jobs WHERE retry_of = ?1 ORDER BY number DESC LIMIT 1"#,
        job
    )
    .fetch_optional(readers)
    .await?;
    newest.as_deref().map(view::job_id).transpose()
}
