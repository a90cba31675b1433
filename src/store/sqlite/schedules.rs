//! Schedules: their definitions, and what there is to fire. `firing` fires them.

use sqlx::{Sqlite, SqlitePool};

use super::{
    columns::{from_json, from_json_opt, json, malformed},
    job_snapshot::WriteBatch,
};
use crate::{
    job::{CatchUp, JobNumber, Micros, Overlap, Schedule, SkippedRun},
    store::firing::ScheduleSet,
};

/// Creates a schedule, or replaces the definition of one.
pub(super) async fn set(
    batch: &mut WriteBatch<'_>,
    schedule: &Schedule,
    keeps_next: bool,
) -> sqlx::Result<ScheduleSet> {
    let (overlap, catch_up) = (schedule.overlap.name(), schedule.catch_up.name());
    let job = json(&schedule.job)?;
    let requester = schedule.requester.as_ref().map(json).transpose()?;
    let next = schedule.next_at.map(|at| at.0);
    let done = sqlx::query!(
        "INSERT INTO schedules (name, cron, timezone, overlap, catch_up, paused, job, next_at,
             revision, requester)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?11
         WHERE (SELECT count(*) FROM schedules) < ?10
             OR EXISTS (SELECT 1 FROM schedules AS sch WHERE sch.name = ?1)
         ON CONFLICT (name) DO UPDATE SET cron = ?2, timezone = ?3, overlap = ?4, catch_up = ?5,
             paused = ?6, job = ?7, next_at = iif(?9, next_at, ?8), revision = revision + 1,
             requester = ?11",
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
        requester,
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
    requester: Option<String>,
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
            requester: from_json_opt(self.requester.as_deref())?,
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
            r#"SELECT sch.name AS "name!: String", sch.cron AS "cron!: String",
                sch.timezone AS "timezone!: String", sch.overlap AS "overlap!: String",
                sch.catch_up AS "catch_up!: String", sch.paused AS "paused!: bool",
                sch.revision AS "revision!: i64", sch.next_at AS "next_at: i64",
                sch.waiting AS "waiting!: String", sch.last_at AS "last_at: i64",
                sch.last_job AS "last_job: i64", sch.runs AS "runs!: i64",
                sch.skipped AS "skipped!: i64", sch.skip_at AS "skip_at: i64",
                sch.skip_reason AS "skip_reason: String", sch.job AS "job!: String",
                sch.requester AS "requester: String"
            FROM schedules AS sch "#
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
    let row = select_schedules!("WHERE sch.name = ?1", name);
    let row = row.fetch_optional(conn).await?;
    row.map(ScheduleRow::into_schedule).transpose()
}

/// All schedules, by name.
pub(in crate::store) async fn all(readers: &SqlitePool) -> sqlx::Result<Vec<Schedule>> {
    into_schedules(
        select_schedules!("ORDER BY sch.name")
            .fetch_all(readers)
            .await?,
    )
}

/// Those that have something to fire, first those whose waiting run can start. A paused one has nothing.
pub(in crate::store) async fn due(
    readers: &SqlitePool,
    now: Micros,
    limit: u32,
) -> sqlx::Result<Vec<Schedule>> {
    let rows = select_schedules!(
        "WHERE sch.paused = 0 AND (sch.next_at <= ?1
            OR (sch.waiting <> '[]' AND NOT EXISTS (SELECT 1 FROM jobs AS j
                WHERE j.number = sch.last_job
                    AND j.state NOT IN ('succeeded', 'failed', 'cancelled'))))
         ORDER BY sch.next_at LIMIT ?2",
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
    let rows = select_schedules!("WHERE sch.paused = 0 AND sch.last_at > ?1", moment.0);
    into_schedules(rows.fetch_all(readers).await?)
}

/// The jobs that waiting runs wait for, those of paused schedules aside.
pub(in crate::store) async fn awaited(readers: &SqlitePool) -> sqlx::Result<Vec<JobNumber>> {
    sqlx::query_scalar!(
        r#"SELECT j.number AS "number!: i64" FROM schedules AS sch
           JOIN jobs AS j ON j.number = sch.last_job
           WHERE sch.paused = 0 AND sch.waiting <> '[]'
             AND j.state NOT IN ('succeeded', 'failed', 'cancelled')"#
    )
    .fetch_all(readers)
    .await
}

fn into_schedules(rows: Vec<ScheduleRow>) -> sqlx::Result<Vec<Schedule>> {
    rows.into_iter().map(ScheduleRow::into_schedule).collect()
}
