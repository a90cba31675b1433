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
    let key = job.spec.exclusive.as_deref().filter(|_| waits);
    let key_holder = match key {
        Some(key) => key_holder(readers, job, key).await?,
        None => None,
    };
    // The others are ahead of it only once it has its key.
    let key = key.filter(|_| key_holder.is_some());
    Ok(Causes {
        unmet: match job.state {
            JobState::Blocked => unmet(readers, job.number).await?,
            _ => Vec::new(),
        },
        unmet_more: match job.state {
            JobState::Blocked => unmet_more(readers, job.number).await?,
            _ => 0,
        },
        line: match waits {
            true => Some(line(readers, job, key).await?),
            false => None,
        },
        key_holder,
        lost: lost(readers, job.number).await?,
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

/// How many more it waits for.
async fn unmet_more(readers: &SqlitePool, job: JobNumber) -> sqlx::Result<u64> {
    let all = sqlx::query_scalar!(
        r#"SELECT count(*) AS "all!: i64" FROM dependencies WHERE job = ?1 AND waiting = 1"#,
        job
    )
    .fetch_one(readers)
    .await?;
    Ok((all - LISTED_MAX).max(0) as u64)
}

/// The job for which the others with its key wait: the active one, or the one whose turn it is.
async fn key_holder(
    readers: &SqlitePool,
    job: &Job,
    key: &str,
) -> sqlx::Result<Option<JobSummary>> {
    let (job, queue) = (job.number, &job.spec.queue);
    let row = sqlx::query!(
        r#"SELECT id AS "id!: String", number AS "number!: i64", name AS "name: String",
               state AS "state!: String"
           FROM jobs WHERE number = coalesce(
               (SELECT number FROM jobs INDEXED BY jobs_exclusive
                WHERE exclusive = ?1 AND state IN ('running', 'paused')
                  AND state IN ('queued', 'running', 'paused')),
               (SELECT number FROM jobs INDEXED BY jobs_turn_of_key
                WHERE exclusive = ?1 AND state = 'queued' AND waits_for_key = 0
                ORDER BY queue = ?3 DESC LIMIT 1))
             AND EXISTS (SELECT 1 FROM jobs WHERE number = ?2 AND waits_for_key = 1)"#,
        key,
        job,
        queue
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

/// The line that a queued job stands in: that of its queue, or of its `key`.
async fn line(readers: &SqlitePool, job: &Job, key: Option<&str>) -> sqlx::Result<QueueLine> {
    let queue = &job.spec.queue;
    let ahead = match key {
        None => ahead_in_queue(readers, job).await?,
        Some(key) => ahead_with_key(readers, job, key).await?,
    };
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

async fn ahead_in_queue(readers: &SqlitePool, job: &Job) -> sqlx::Result<i64> {
    let (queue, priority) = (&job.spec.queue, job.spec.priority);
    sqlx::query_scalar!(
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
    .await
}

async fn ahead_with_key(readers: &SqlitePool, job: &Job, key: &str) -> sqlx::Result<i64> {
    let (queue, priority) = (&job.spec.queue, job.spec.priority);
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "jobs!: i64" FROM
               (SELECT 1 FROM jobs INDEXED BY jobs_exclusive
                WHERE exclusive = ?5 AND queue = ?1 AND state = 'queued'
                  AND state IN ('queued', 'running', 'paused')
                  AND (priority > ?2 OR (priority = ?2 AND number < ?3)) LIMIT ?4)"#,
        queue,
        priority,
        job.number,
        AHEAD_MAX,
        key
    )
    .fetch_one(readers)
    .await
}

async fn lost(readers: &SqlitePool, job: JobNumber) -> sqlx::Result<u32> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "lost!: u32" FROM attempts WHERE job = ?1 AND state = 'lost'"#,
        job
    )
    .fetch_one(readers)
    .await
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
