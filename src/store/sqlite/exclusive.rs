//! Exclusive keys: of the queued jobs with one key, which may be claimed.
//!
//! While a job with the key is active, none; otherwise the first one of each queue, so that a queue that
//! is paused or full holds up no other. Of several that are claimed together `claim` takes one. The
//! others are queued too, but no claim looks at them, and they are counted apart: `waits_for_key`.
//!
//! SQLite uses the index `jobs_exclusive` only where a statement repeats the index's own condition on `state`.

use super::{
    columns::json,
    job_snapshot::{WriteBatch, all_moved},
    tally::CountedAs,
};
use crate::job::{JobNumber, JobState};

/// A queued job and its queue.
type QueuedJob = (JobNumber, String);

/// Decides anew for the keys whose jobs have moved. What it costs depends on the number of keys, and of
/// queues with jobs of these keys, not on the number of jobs.
pub(super) async fn assign_turns(batch: &mut WriteBatch<'_>) -> sqlx::Result<()> {
    let keys = std::mem::take(&mut batch.touched_keys);
    if keys.is_empty() {
        return Ok(());
    }
    let keys = json(&keys)?;
    let ready = ready(batch, &keys).await?;
    let first = first_of_each_queue(batch, &keys).await?;
    for job in ready.iter().filter(|job| !first.contains(job)) {
        set_waits_for_key(batch, job, true).await?;
    }
    for job in first.iter().filter(|job| !ready.contains(job)) {
        set_waits_for_key(batch, job, false).await?;
    }
    Ok(())
}

/// Makes a queued job wait for its key, or be its turn; it was the other way before.
pub(super) async fn set_waits_for_key(
    batch: &mut WriteBatch<'_>,
    (number, queue): &QueuedJob,
    waits_for_key: bool,
) -> sqlx::Result<()> {
    let done = sqlx::query!(
        "UPDATE jobs SET waits_for_key = ?2
         WHERE number = ?1 AND +state = 'queued' AND waits_for_key <> ?2",
        number,
        waits_for_key
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)?;
    let counted = |waits_for_key| {
        Some(CountedAs {
            state: JobState::Queued,
            waits_for_key,
        })
    };
    let (from, to) = (counted(!waits_for_key), counted(waits_for_key));
    batch.tally.moved(queue, from, to);
    Ok(())
}

/// The jobs with these keys that may be claimed so far.
async fn ready(batch: &mut WriteBatch<'_>, keys: &str) -> sqlx::Result<Vec<QueuedJob>> {
    let rows = sqlx::query!(
        r#"SELECT j.number AS "number!: i64", j.queue AS "queue!: String"
           FROM json_each(?1) AS k
           JOIN jobs AS j INDEXED BY jobs_turn_of_key
               ON j.exclusive = k.value AND j.state = 'queued' AND j.waits_for_key = 0"#,
        keys
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.number, row.queue))
        .collect())
}

/// Of the keys without an active job: the first queued job of each queue.
async fn first_of_each_queue(
    batch: &mut WriteBatch<'_>,
    keys: &str,
) -> sqlx::Result<Vec<QueuedJob>> {
    let rows = sqlx::query!(
        // A partial index is used only where its own conditions are repeated; that of states would be
        // taken otherwise, and read all queued jobs.
        r#"WITH RECURSIVE
           free(key) AS (
               SELECT k.value FROM json_each(?1) AS k WHERE NOT EXISTS
                   (SELECT 1 FROM jobs AS a INDEXED BY jobs_exclusive
                    WHERE a.exclusive = k.value AND a.state = 'running'
                      AND a.state IN ('queued', 'running', 'paused'))
               AND NOT EXISTS
                   (SELECT 1 FROM jobs AS a INDEXED BY jobs_exclusive
                    WHERE a.exclusive = k.value AND a.state = 'paused'
                      AND a.state IN ('queued', 'running', 'paused'))),
           first(key, number) AS (
               SELECT key, (SELECT j.number FROM jobs AS j INDEXED BY jobs_exclusive
                            WHERE j.exclusive = key AND j.state = 'queued'
                              AND j.state IN ('queued', 'running', 'paused')
                            ORDER BY j.queue, j.priority DESC, j.number LIMIT 1)
               FROM free
               UNION ALL
               SELECT f.key, (SELECT j.number FROM jobs AS j INDEXED BY jobs_exclusive
                              WHERE j.exclusive = f.key AND j.state = 'queued'
                                AND j.state IN ('queued', 'running', 'paused')
                                AND j.queue > (SELECT l.queue FROM jobs AS l WHERE l.number = f.number)
                              ORDER BY j.queue, j.priority DESC, j.number LIMIT 1)
               FROM first AS f WHERE f.number IS NOT NULL)
           SELECT j.number AS "number!: i64", j.queue AS "queue!: String"
           FROM first AS f JOIN jobs AS j ON j.number = f.number"#,
        keys
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.number, row.queue))
        .collect())
}
