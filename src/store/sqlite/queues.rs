//! Queues: their settings, with how many of their jobs run and wait.
//!
//! The numbers are those of `tally`; slots are assigned in `claim`.

use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{
    columns::{from_json, json},
    fair_queues::{QueueCounts, SharingSettings},
    job_snapshot::WriteBatch,
    published_counts::PublishedCounts,
};
use crate::{
    job::{Queue, QueueChange},
    store::types::{QueueDeleted, QueueSet},
};

/// Creates a queue or changes it. A new one has as many slots as `default` unless it names a number.
pub(super) async fn set(
    batch: &mut WriteBatch<'_>,
    change: &QueueChange,
) -> sqlx::Result<QueueSet> {
    if !upsert(batch.conn, change).await? {
        return Ok(QueueSet::TooMany);
    }
    let found = select(&mut *batch.conn, Some(&change.name)).await?.pop();
    let mut queue = found.ok_or(sqlx::Error::RowNotFound)?;
    let settings = SharingSettings {
        concurrency: queue.concurrency,
        paused: queue.paused,
        weight: queue.weight,
        starts_per_minute: queue.starts_per_minute,
    };
    batch.tally.set_queue(&queue.name, settings);
    show(&mut queue, batch.tally.counts(&change.name));
    Ok(QueueSet::Done(queue))
}

/// False where there are too many already.
async fn upsert(conn: &mut SqliteConnection, change: &QueueChange) -> sqlx::Result<bool> {
    let defaults = change.defaults.as_ref().map(json).transpose()?;
    let sets_rate = change.starts_per_minute.is_some();
    let rate = change.starts_per_minute.flatten();
    let done = sqlx::query!(
        "INSERT INTO queues (name, concurrency, paused, weight, defaults, pause_reason, drain,
             starts_per_minute)
         SELECT ?1, coalesce(?2, concurrency), coalesce(?3, 0), coalesce(?4, 1), coalesce(?5, '{}'),
             iif(?3, ?7, NULL), coalesce(?8, 0), ?10
         FROM queues WHERE name = 'default'
           AND ((SELECT count(*) FROM queues) < ?6
                OR EXISTS (SELECT 1 FROM queues AS q WHERE q.name = ?1))
         ON CONFLICT (name) DO UPDATE SET concurrency = coalesce(?2, concurrency),
             paused = coalesce(?3, paused), weight = coalesce(?4, weight),
             defaults = coalesce(?5, defaults),
             pause_reason = iif(coalesce(?3, paused), coalesce(?7, pause_reason), NULL),
             drain = coalesce(?8, drain),
             starts_per_minute = iif(?9, ?10, starts_per_minute)",
        change.name,
        change.concurrency,
        change.paused,
        change.weight,
        defaults,
        Queue::COUNT_MAX,
        change.pause_reason,
        change.drain,
        sets_rate,
        rate,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Deletes a queue, unless a job of it is not final.
pub(super) async fn delete(batch: &mut WriteBatch<'_>, name: &str) -> sqlx::Result<QueueDeleted> {
    let live = batch.tally.counts(name).live();
    if live > 0 {
        return Ok(QueueDeleted::HasJobs(live));
    }
    let done = sqlx::query!("DELETE FROM queues WHERE name = ?1", name)
        .execute(&mut *batch.conn)
        .await?;
    batch.tally.remove_queue(name);
    Ok(match done.rows_affected() {
        0 => QueueDeleted::NotFound,
        _ => QueueDeleted::Done,
    })
}

/// All queues, by name.
pub(in crate::store) async fn all(
    readers: &SqlitePool,
    counts: &PublishedCounts,
) -> sqlx::Result<Vec<Queue>> {
    let mut queues = select(readers, None).await?;
    let counts = counts.queues();
    for queue in &mut queues {
        let counts = counts.get(queue.name.as_str()).copied();
        show(queue, counts.unwrap_or_default());
    }
    Ok(queues)
}

fn show(queue: &mut Queue, counts: QueueCounts) {
    queue.running = counts.active;
    queue.queued = counts.queued + counts.waiting_for_key;
}

/// Queues without their counts.
async fn select<'e>(
    conn: impl sqlx::Executor<'e, Database = Sqlite>,
    name: Option<&str>,
) -> sqlx::Result<Vec<Queue>> {
    sqlx::query!(
        r#"SELECT name AS "name!: String", concurrency AS "concurrency!: u32",
               paused AS "paused!: bool", pause_reason AS "pause_reason: String",
               drain AS "drain!: bool", starts_per_minute AS "starts_per_minute: u32",
               weight AS "weight!: u32", defaults AS "defaults!: String"
           FROM queues WHERE ?1 IS NULL OR name = ?1 ORDER BY name"#,
        name
    )
    .fetch_all(conn)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Queue {
            name: row.name,
            concurrency: row.concurrency,
            paused: row.paused,
            pause_reason: row.pause_reason,
            drain: row.drain,
            starts_per_minute: row.starts_per_minute,
            weight: row.weight,
            defaults: from_json(&row.defaults)?,
            running: 0,
            queued: 0,
        })
    })
    .collect()
}
