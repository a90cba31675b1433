//! Schedules and their firings. A firing moves the schedule's next time on, naming the one that it
//! found, and submits its jobs in the same transaction; the index `jobs_schedule` has each time of a
//! schedule once.

use sqlx::{Sqlite, SqlitePool};

use super::{
    columns::{from_json, json, malformed},
    job_snapshot::{WriteBatch, all_moved},
    jobs, stop_requests, view,
};
use crate::{
    job::{
        CatchUp, JobNumber, JobRef, JobState, Micros, Overlap, Schedule, SkippedRun, StopCause,
        StopRequest,
    },
    store::{
        firing::{Fired, Firing, FiringCause, RunPlan, ScheduleSet, SubmittedRun},
        types::{StopRequested, Submission, SubmitOutcome},
    },
};

/// Creates a schedule, or replaces the definition of one.
pub(super) async fn set(
    batch: &mut WriteBatch<'_>,
    schedule: &Schedule,
    keeps_next: bool,
) -> sqlx::Result<ScheduleSet> {
    let (overlap, catch_up) = (schedule.overlap.name(), schedule.catch_up.name());
    let job = json(&schedule.job)?;
    let next = schedule.next_at.map(|at| at.0);
    let done = sqlx::query!(
        "INSERT INTO schedules (name, cron, timezone, overlap, catch_up, paused, job, next_at,
             revision)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1
         WHERE (SELECT count(*) FROM schedules) < ?10
             OR EXISTS (SELECT 1 FROM schedules AS s WHERE s.name = ?1)
         ON CONFLICT (name) DO UPDATE SET cron = ?2, timezone = ?3, overlap = ?4, catch_up = ?5,
             paused = ?6, job = ?7, next_at = iif(?9, next_at, ?8), revision = revision + 1",
        schedule.name,
        schedule.cron,
        schedule.timezone,
        overlap,
        catch_up,
        schedule.paused,
        job,
        next,
        keeps_next,
        Schedule::COUNT_MAX,
    )
    .execute(&mut *batch.conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(ScheduleSet::TooMany);
    }
    let stored = one(&mut *batch.conn, &schedule.name).await?;
    let stored = stored.ok_or(sqlx::Error::RowNotFound)?;
    Ok(ScheduleSet::Done(Box::new(stored)))
}

/// Deletes a schedule; whether there was one.
pub(super) async fn delete(batch: &mut WriteBatch<'_>, name: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!("DELETE FROM schedules WHERE name = ?1", name)
        .execute(&mut *batch.conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Submits the runs of a firing, as far as the run before each lets it.
pub(super) async fn fire(batch: &mut WriteBatch<'_>, firing: &Firing) -> sqlx::Result<Fired> {
    let found = one(&mut *batch.conn, &firing.name).await?;
    let Some(mut schedule) = found.filter(|found| is_current(found, firing)) else {
        return Ok(Fired {
            stale: true,
            ..Fired::default()
        });
    };
    let waits = firing.cause == FiringCause::Waiting;
    if waits && live_predecessor(batch, &schedule).await?.is_some() {
        return Ok(Fired {
            stale: true,
            ..Fired::default()
        });
    }
    match firing.cause {
        FiringCause::Clock { to, .. } => schedule.next_at = to,
        FiringCause::Waiting => {
            schedule.waiting.remove(0);
        }
        FiringCause::Request => {}
    }
    if let Some((count, newest)) = &firing.missed {
        schedule.skipped += count;
        schedule.last_skip = Some(newest.clone());
    }
    let mut fired = Fired::default();
    for run in &firing.runs {
        if let Some(reason) = submit(batch, &mut schedule, firing, run, &mut fired).await? {
            let skipped = SkippedRun { at: run.at, reason };
            schedule.skipped += 1;
            schedule.last_skip = Some(skipped.clone());
            fired.skipped.push(skipped);
        }
    }
    store(batch, &schedule).await?;
    Ok(fired)
}

/// Whether the schedule is still as it was when the firing was decided.
fn is_current(schedule: &Schedule, firing: &Firing) -> bool {
    let fits = match firing.cause {
        FiringCause::Clock { from, .. } => schedule.next_at == Some(from),
        FiringCause::Waiting => {
            let first = firing.runs.first().map(|run| run.at);
            first.is_some() && schedule.waiting.first().copied() == first
        }
        FiringCause::Request => true,
    };
    fits && schedule.revision == firing.revision
}

/// Submits a run; returns why it is skipped, if it is.
async fn submit(
    batch: &mut WriteBatch<'_>,
    schedule: &mut Schedule,
    firing: &Firing,
    run: &RunPlan,
    fired: &mut Fired,
) -> sqlx::Result<Option<String>> {
    let submission = match &run.submission {
        Ok(submission) => submission,
        Err(reason) => return Ok(Some(reason.clone())),
    };
    // A clock that was set back may show a time again, which then is not a skipped one either.
    if ran_already(batch, &schedule.name, run.at).await? {
        return Ok(None);
    }
    if let Some(outcome) = submitted_before(batch, submission).await? {
        fired.submitted.push(SubmittedRun {
            at: run.at,
            outcome,
        });
        return Ok(None);
    }
    if let Some((number, state)) = live_predecessor(batch, schedule).await? {
        let before = format!("the run before it, job {number}, is {}", state.name());
        match schedule.overlap {
            Overlap::Skip => return Ok(Some(before)),
            Overlap::Queue if firing.cause == FiringCause::Request => {
                return Ok(Some(format!("{before}, and a run at once does not wait")));
            }
            Overlap::Queue => return Ok(enqueue(schedule, run.at)),
            Overlap::Replace => {}
        }
    } else if matches!(firing.cause, FiringCause::Clock { .. }) && !schedule.waiting.is_empty() {
        // Runs that have waited longer come first.
        return Ok(enqueue(schedule, run.at));
    }
    insert(batch, schedule, firing, (run.at, submission), fired).await
}

/// Makes a run wait; returns why it is skipped, if it is.
fn enqueue(schedule: &mut Schedule, at: Micros) -> Option<String> {
    let waiting = schedule.waiting.len();
    if waiting >= Schedule::WAITING_MAX {
        return Some(format!("{waiting} runs wait already"));
    }
    schedule.waiting.push(at);
    None
}

/// Stores the job of a run; with `replace` the run before it is asked to stop.
async fn insert(
    batch: &mut WriteBatch<'_>,
    schedule: &mut Schedule,
    firing: &Firing,
    (at, submission): (Micros, &Submission),
    fired: &mut Fired,
) -> sqlx::Result<Option<String>> {
    let replaced = live_predecessor(batch, schedule).await?;
    let submitted = jobs::submit(batch, &[std::slice::from_ref(submission)]).await?;
    let outcome = match submitted.into_iter().next() {
        Some(Ok(outcomes)) => outcomes.into_iter().next(),
        Some(Err(refused)) => {
            let reason = refused.error.to_string();
            fired.refused = Some(refused.error);
            return Ok(Some(reason));
        }
        None => None,
    };
    let outcome = outcome.ok_or_else(|| malformed("one submission has one outcome"))?;
    sqlx::query!(
        "UPDATE jobs SET schedule = ?2, schedule_at = ?3 WHERE number = ?1",
        outcome.number,
        schedule.name,
        at.0
    )
    .execute(&mut *batch.conn)
    .await?;
    if let Some((number, _)) = replaced {
        fired.stops.push(stop(batch, number, firing).await?);
    }
    schedule.last = Some((at, outcome.number));
    schedule.runs += 1;
    fired.submitted.push(SubmittedRun { at, outcome });
    Ok(None)
}

async fn stop(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    firing: &Firing,
) -> sqlx::Result<StopRequested> {
    let job = view::known(batch.conn, number).await?;
    let request = StopRequest {
        by: Schedule::actor(&firing.name),
        cause: StopCause::Cancel,
        asked_at_us: firing.at.0,
        grace_ms: job.spec.grace_s.to_ms(),
    };
    stop_requests::stop(batch, JobRef::Number(number), &request).await
}

/// The newest run, if it is not final.
async fn live_predecessor(
    batch: &mut WriteBatch<'_>,
    schedule: &Schedule,
) -> sqlx::Result<Option<(JobNumber, JobState)>> {
    let Some((_, number)) = schedule.last else {
        return Ok(None);
    };
    let snapshot = batch.snapshot(JobRef::Number(number)).await?;
    Ok(snapshot
        .filter(|snapshot| !snapshot.state.is_final())
        .map(|snapshot| (number, snapshot.state)))
}

async fn ran_already(batch: &mut WriteBatch<'_>, schedule: &str, at: Micros) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM jobs WHERE schedule = ?1 AND schedule_at = ?2
               AND schedule IS NOT NULL) AS "exists!: bool""#,
        schedule,
        at.0
    )
    .fetch_one(&mut *batch.conn)
    .await
}

/// The job that a request to run has submitted already, whose reply was lost.
async fn submitted_before(
    batch: &mut WriteBatch<'_>,
    submission: &Submission,
) -> sqlx::Result<Option<SubmitOutcome>> {
    let Some(key) = submission.job.idempotency_key.as_deref() else {
        return Ok(None);
    };
    let number = sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs WHERE idempotency_key = ?1"#,
        key
    )
    .fetch_optional(&mut *batch.conn)
    .await?;
    let Some(number) = number else {
        return Ok(None);
    };
    let job = view::known(batch.conn, number).await?;
    Ok(Some(SubmitOutcome {
        id: job.id,
        number,
        state: job.state,
        created: false,
    }))
}

/// Stores what a firing changes of its schedule.
async fn store(batch: &mut WriteBatch<'_>, schedule: &Schedule) -> sqlx::Result<()> {
    let waiting = json(&schedule.waiting.iter().map(|at| at.0).collect::<Vec<_>>())?;
    let next = schedule.next_at.map(|at| at.0);
    let (last_at, last_job) = (
        schedule.last.map(|last| last.0.0),
        schedule.last.map(|last| last.1),
    );
    let (runs, skipped) = (schedule.runs as i64, schedule.skipped as i64);
    let skip_at = schedule.last_skip.as_ref().map(|skip| skip.at.0);
    let skip_reason = schedule.last_skip.as_ref().map(|skip| &skip.reason);
    let done = sqlx::query!(
        "UPDATE schedules SET next_at = ?2, waiting = ?3, last_at = ?4, last_job = ?5, runs = ?6,
             skipped = ?7, skip_at = ?8, skip_reason = ?9
         WHERE name = ?1 AND revision = ?10",
        schedule.name,
        next,
        waiting,
        last_at,
        last_job,
        runs,
        skipped,
        skip_at,
        skip_reason,
        schedule.revision
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)
}

/// A schedule's row.
struct ScheduleRow {
    name: String,
    cron: String,
    timezone: String,
    overlap: String,
    catch_up: String,
    paused: bool,
    revision: i64,
    next_at: Option<i64>,
    waiting: String,
    last_at: Option<i64>,
    last_job: Option<i64>,
    runs: i64,
    skipped: i64,
    skip_at: Option<i64>,
    skip_reason: Option<String>,
    job: String,
}

impl ScheduleRow {
    fn into_schedule(self) -> sqlx::Result<Schedule> {
        let wrong = |what: &str| malformed(format!("a schedule has no {what} of this name"));
        let waiting: Vec<i64> = from_json(&self.waiting)?;
        let skip = self.skip_at.map(Micros).zip(self.skip_reason);
        Ok(Schedule {
            overlap: Overlap::from_name(&self.overlap).ok_or_else(|| wrong("overlap"))?,
            catch_up: CatchUp::from_name(&self.catch_up).ok_or_else(|| wrong("catch_up"))?,
            name: self.name,
            cron: self.cron,
            timezone: self.timezone,
            paused: self.paused,
            job: from_json(&self.job)?,
            revision: self.revision,
            next_at: self.next_at.map(Micros),
            waiting: waiting.into_iter().map(Micros).collect(),
            last: self.last_at.map(Micros).zip(self.last_job),
            runs: self.runs as u64,
            skipped: self.skipped as u64,
            last_skip: skip.map(|(at, reason)| SkippedRun { at, reason }),
        })
    }
}

/// `SELECT` of [`ScheduleRow`]s; `$tail` is the rest of the statement.
macro_rules! select_schedules {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            ScheduleRow,
            r#"SELECT s.name AS "name!: String", s.cron AS "cron!: String",
                s.timezone AS "timezone!: String", s.overlap AS "overlap!: String",
                s.catch_up AS "catch_up!: String", s.paused AS "paused!: bool",
                s.revision AS "revision!: i64", s.next_at AS "next_at: i64",
                s.waiting AS "waiting!: String", s.last_at AS "last_at: i64",
                s.last_job AS "last_job: i64", s.runs AS "runs!: i64",
                s.skipped AS "skipped!: i64", s.skip_at AS "skip_at: i64",
                s.skip_reason AS "skip_reason: String", s.job AS "job!: String"
            FROM schedules AS s "#
                + $tail
            $(, $arg)*
        )
    };
}

/// The schedule of this name.
pub(in crate::store) async fn one<'e>(
    conn: impl sqlx::Executor<'e, Database = Sqlite>,
    name: &str,
) -> sqlx::Result<Option<Schedule>> {
    let row = select_schedules!("WHERE s.name = ?1", name);
    let row = row.fetch_optional(conn).await?;
    row.map(ScheduleRow::into_schedule).transpose()
}

/// All schedules, by name.
pub(in crate::store) async fn all(readers: &SqlitePool) -> sqlx::Result<Vec<Schedule>> {
    into_schedules(
        select_schedules!("ORDER BY s.name")
            .fetch_all(readers)
            .await?,
    )
}

/// Those that have something to fire, first those whose waiting run can start.
pub(in crate::store) async fn due(
    readers: &SqlitePool,
    now: Micros,
    limit: u32,
) -> sqlx::Result<Vec<Schedule>> {
    let rows = select_schedules!(
        "WHERE (s.paused = 0 AND s.next_at <= ?1)
            OR (s.waiting <> '[]' AND NOT EXISTS (SELECT 1 FROM jobs AS j
                WHERE j.number = s.last_job
                    AND j.state NOT IN ('succeeded', 'failed', 'cancelled')))
         ORDER BY s.next_at LIMIT ?2",
        now.0,
        limit
    );
    into_schedules(rows.fetch_all(readers).await?)
}

/// The earliest time of all that are not paused.
pub(in crate::store) async fn next_at(readers: &SqlitePool) -> sqlx::Result<Option<Micros>> {
    let next = sqlx::query_scalar!(
        r#"SELECT min(next_at) AS "next_at: i64" FROM schedules WHERE paused = 0"#
    );
    Ok(next.fetch_one(readers).await?.map(Micros))
}

/// Those whose newest run is later than `moment`.
pub(in crate::store) async fn ahead_of(
    readers: &SqlitePool,
    moment: Micros,
) -> sqlx::Result<Vec<Schedule>> {
    let rows = select_schedules!("WHERE s.paused = 0 AND s.last_at > ?1", moment.0);
    into_schedules(rows.fetch_all(readers).await?)
}

/// The jobs that waiting runs wait for.
pub(in crate::store) async fn awaited(readers: &SqlitePool) -> sqlx::Result<Vec<JobNumber>> {
    sqlx::query_scalar!(
        r#"SELECT j.number AS "number!: i64" FROM schedules AS s
           JOIN jobs AS j ON j.number = s.last_job
           WHERE s.waiting <> '[]' AND j.state NOT IN ('succeeded', 'failed', 'cancelled')"#
    )
    .fetch_all(readers)
    .await
}

fn into_schedules(rows: Vec<ScheduleRow>) -> sqlx::Result<Vec<Schedule>> {
    rows.into_iter().map(ScheduleRow::into_schedule).collect()
}
