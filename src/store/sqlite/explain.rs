//! What the database knows about why a job is where it is.

use sqlx::SqlitePool;

use super::{columns::from_json_opt, events, view};
use crate::{
    job::{DependencyCondition, Job, JobNumber, JobState, Micros},
    store::types::{AttemptSummary, Causes, EventSummary, JobSummary, QueueLine, UnmetDependency},
};

/// Jobs ahead are counted up to this number.
const AHEAD_MAX: i64 = 10_000;
/// How many of the last jobs of a queue say how long a job takes.
const SAMPLE: i64 = 20;
/// How many of the last events, attempts and unmet dependencies are told.
const LISTED_MAX: i64 = 100;

/// Why `job` is where it is.
pub(in crate::store) async fn causes(readers: &SqlitePool, job: &Job) -> sqlx::Result<Causes> {
    let waits = job.state == JobState::Queued;
    Ok(Causes {
        unmet: match job.state {
            JobState::Blocked => unmet(readers, job.number).await?,
            _ => Vec::new(),
        },
        key_holder: match job.spec.exclusive.as_deref().filter(|_| waits) {
            Some(key) => key_holder(readers, job.number, key).await?,
            None => None,
        },
        line: match waits {
            true => Some(line(readers, job).await?),
            false => None,
        },
        attempts: attempts(readers, job.number).await?,
        events: last_events(readers, job.number).await?,
    })
}

/// The jobs that a blocked one still waits for, the first ones.
async fn unmet(readers: &SqlitePool, job: JobNumber) -> sqlx::Result<Vec<UnmetDependency>> {
    let rows = sqlx::query!(
        r#"SELECT j.id AS "id!: String", j.number AS "number!: i64", j.name AS "name: String",
               j.state AS "state!: String", d.condition AS "condition!: String"
           FROM dependencies AS d JOIN jobs AS j ON j.number = d.on_job
           WHERE d.job = ?1 AND d.waiting = 1 ORDER BY d.on_job LIMIT ?2"#,
        job,
        LISTED_MAX
    )
    .fetch_all(readers)
    .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(UnmetDependency {
            job: JobSummary {
                id: view::job_id(&row.id)?,
                number: row.number,
                name: row.name,
                state: events::state(&row.state)?,
            },
            on: DependencyCondition::from_name(&row.condition).unwrap_or_default(),
        })
    });
    rows.collect()
}

/// The job for which the others with its key wait: the active one, or the one whose turn it is.
async fn key_holder(
    readers: &SqlitePool,
    job: JobNumber,
    key: &str,
) -> sqlx::Result<Option<JobSummary>> {
    let row = sqlx::query!(
        r#"SELECT id AS "id!: String", number AS "number!: i64", name AS "name: String",
               state AS "state!: String"
           FROM jobs WHERE number = coalesce(
               (SELECT number FROM jobs WHERE exclusive = ?1 AND state IN ('running', 'paused')),
               (SELECT number FROM jobs INDEXED BY jobs_turn_of_key
                WHERE exclusive = ?1 AND state = 'queued' AND waits_for_key = 0))
             AND EXISTS (SELECT 1 FROM jobs WHERE number = ?2 AND waits_for_key = 1)"#,
        key,
        job
    )
    .fetch_optional(readers)
    .await?;
    let summary = row.map(|row| {
        Ok(JobSummary {
            id: view::job_id(&row.id)?,
            number: row.number,
            name: row.name,
            state: events::state(&row.state)?,
        })
    });
    summary.transpose()
}

/// The line that a queued job stands in.
async fn line(readers: &SqlitePool, job: &Job) -> sqlx::Result<QueueLine> {
    let (queue, priority) = (&job.spec.queue, job.spec.priority);
    let ahead = sqlx::query_scalar!(
        r#"SELECT count(*) AS "jobs!: i64" FROM
               (SELECT 1 FROM jobs INDEXED BY jobs_queued
                WHERE queue = ?1 AND state = 'queued' AND waits_for_key = 0
                  AND (priority > ?2 OR (priority = ?2 AND number < ?3)) LIMIT ?4)"#,
        queue,
        priority,
        job.number,
        AHEAD_MAX
    )
    .fetch_one(readers)
    .await?;
    let mut lengths = sqlx::query_scalar!(
        r#"SELECT (finished_at - started_at) / 1e6 AS "seconds!: f64" FROM
               (SELECT finished_at, started_at, state FROM jobs INDEXED BY jobs_queue
                WHERE queue = ?1 ORDER BY number DESC LIMIT 1000)
           WHERE started_at IS NOT NULL AND finished_at IS NOT NULL LIMIT ?2"#,
        queue,
        SAMPLE
    )
    .fetch_all(readers)
    .await?;
    lengths.sort_by(f64::total_cmp);
    Ok(QueueLine {
        ahead: ahead as u64,
        ahead_is_least: ahead == AHEAD_MAX,
        typical_s: lengths.get(lengths.len() / 2).copied(),
        sample: lengths.len() as u64,
    })
}

/// The last attempts of a job, in their order.
async fn attempts(readers: &SqlitePool, job: JobNumber) -> sqlx::Result<Vec<AttemptSummary>> {
    let rows = sqlx::query!(
        r#"SELECT attempt AS "attempt!: u32", state AS "state!: String", exit AS "exit: String",
               started_at AS "started_at: i64", ended_at AS "ended_at: i64"
           FROM attempts WHERE job = ?1 ORDER BY attempt DESC LIMIT ?2"#,
        job,
        LISTED_MAX
    )
    .fetch_all(readers)
    .await?;
    let rows = rows.into_iter().rev().map(|row| {
        Ok(AttemptSummary {
            attempt: row.attempt,
            state: row.state,
            exit: from_json_opt(row.exit.as_deref())?,
            started_at: row.started_at.map(Micros),
            ended_at: row.ended_at.map(Micros),
        })
    });
    rows.collect()
}

/// The last state changes of a job, in their order.
async fn last_events(readers: &SqlitePool, job: JobNumber) -> sqlx::Result<Vec<EventSummary>> {
    let rows = sqlx::query!(
        r#"SELECT attempt AS "attempt: u32", from_state AS "from: String", to_state AS "to!: String",
               reason AS "reason: String", actor AS "actor!: String", at AS "at!: i64"
           FROM events WHERE job = ?1 ORDER BY id DESC LIMIT ?2"#,
        job,
        LISTED_MAX
    )
    .fetch_all(readers)
    .await?;
    let rows = rows.into_iter().rev().map(|row| {
        Ok(EventSummary {
            attempt: row.attempt,
            from: row.from.as_deref().map(events::state).transpose()?,
            to: events::state(&row.to)?,
            reason: row.reason.as_deref().map(events::reason).transpose()?,
            actor: row.actor,
            at: Micros(row.at),
        })
    });
    rows.collect()
}
