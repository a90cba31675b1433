//! What the stored outputs take: by job, queue and label, in steps, so that no connection is held
//! for long.

use sqlx::SqlitePool;

use super::events;
use crate::{
    job::JobNumber,
    store::retention_types::{LabelCursor, LabelStep, StoredJob, StoredSum, UsageStep},
};

/// The most labels that one statement examines.
const LABELS_MAX: i64 = 4096;

/// What the jobs with numbers above `after`, up to `to`, store; with the `top` largest of them.
pub(in crate::store) async fn of_jobs(
    readers: &SqlitePool,
    after: JobNumber,
    to: JobNumber,
    top: u32,
) -> sqlx::Result<UsageStep> {
    let queues = sqlx::query!(
        r#"SELECT queue AS "queue!: String", count(*) AS "jobs!: i64",
               sum(max(output_bytes - dropped_bytes - pruned_bytes, 0)) AS "bytes!: i64"
           FROM jobs NOT INDEXED WHERE number > ?1 AND number <= ?2 GROUP BY queue"#,
        after,
        to
    )
    .fetch_all(readers)
    .await?;
    let largest = sqlx::query!(
        r#"SELECT number AS "number!: i64", name AS "name: String", queue AS "queue!: String",
               state AS "state!: String",
               output_bytes - dropped_bytes - pruned_bytes AS "bytes!: i64"
           FROM jobs NOT INDEXED
           WHERE number > ?1 AND number <= ?2 AND output_bytes > dropped_bytes + pruned_bytes
           ORDER BY output_bytes - dropped_bytes - pruned_bytes DESC, number LIMIT ?3"#,
        after,
        to,
        top
    )
    .fetch_all(readers)
    .await?;
    let queues = queues
        .into_iter()
        .map(|row| (row.queue, sum(row.jobs, row.bytes)));
    let largest = largest.into_iter().map(|row| {
        Ok(StoredJob {
            number: row.number,
            name: row.name,
            queue: row.queue,
            state: events::state(&row.state)?,
            bytes: row.bytes as u64,
        })
    });
    Ok(UsageStep {
        queues: queues.collect(),
        jobs: largest.collect::<sqlx::Result<_>>()?,
    })
}

/// What the jobs of the next labels after `after` store.
pub(in crate::store) async fn of_labels(
    readers: &SqlitePool,
    after: &LabelCursor,
) -> sqlx::Result<LabelStep> {
    let (key, value, job) = after;
    let rows = sqlx::query!(
        r#"SELECT k.key AS "key!: String", k.value AS "value!: String", count(*) AS "jobs!: i64",
               coalesce(sum(max(f.output_bytes - f.dropped_bytes - f.pruned_bytes, 0)), 0)
                   AS "bytes!: i64",
               max(k.job) AS "last!: i64"
           FROM (SELECT key, value, job FROM job_labels
                 WHERE (key, value, job) > (?1, ?2, ?3)
                 ORDER BY key, value, job LIMIT ?4) AS k
           CROSS JOIN jobs AS f ON f.number = k.job
           GROUP BY k.key, k.value ORDER BY k.key, k.value"#,
        key,
        value,
        job,
        LABELS_MAX
    )
    .fetch_all(readers)
    .await?;
    let seen: i64 = rows.iter().map(|row| row.jobs).sum();
    let last = rows.last().filter(|_| seen == LABELS_MAX);
    Ok(LabelStep {
        next: last.map(|row| (row.key.clone(), row.value.clone(), row.last)),
        labels: rows
            .into_iter()
            .map(|row| (row.key, row.value, sum(row.jobs, row.bytes)))
            .collect(),
    })
}

fn sum(jobs: i64, bytes: i64) -> StoredSum {
    StoredSum {
        jobs: jobs as u64,
        bytes: bytes as u64,
    }
}
