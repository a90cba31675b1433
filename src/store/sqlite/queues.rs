//! Queues: their settings, and how many of their jobs run and wait.
//!
//! Slots are assigned in `claim`.

use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::columns::{from_json, json};
use crate::{
    job::{Queue, QueueChange},
    store::types::{QueueDeleted, QueueSet},
};

/// Creates a queue or changes it. A new one has as many slots as `default` unless it names a number.
pub(super) async fn set(
    conn: &mut SqliteConnection,
    change: &QueueChange,
) -> sqlx::Result<QueueSet> {
    let defaults = change.defaults.as_ref().map(json).transpose()?;
    let done = sqlx::query!(
        "INSERT INTO queues (name, concurrency, paused, weight, defaults)
         SELECT ?1, coalesce(?2, concurrency), coalesce(?3, 0), coalesce(?4, 1), coalesce(?5, '{}')
         FROM queues WHERE name = 'default'
           AND ((SELECT count(*) FROM queues) < ?6
                OR EXISTS (SELECT 1 FROM queues AS q WHERE q.name = ?1))
         ON CONFLICT (name) DO UPDATE SET concurrency = coalesce(?2, concurrency),
             paused = coalesce(?3, paused), weight = coalesce(?4, weight),
             defaults = coalesce(?5, defaults)",
        change.name,
        change.concurrency,
        change.paused,
        change.weight,
        defaults,
        Queue::COUNT_MAX,
    )
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(QueueSet::TooMany);
    }
    let set = select(conn, Some(&change.name)).await?.pop();
    set.map(QueueSet::Done).ok_or(sqlx::Error::RowNotFound)
}

/// Deletes a queue, unless a job of it is not final.
pub(super) async fn delete(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<QueueDeleted> {
    let live = sqlx::query_scalar!(
        r#"SELECT (SELECT count(*) FROM jobs WHERE queue = ?1 AND state = 'queued')
               + (SELECT count(*) FROM jobs WHERE queue = ?1 AND state IN ('running', 'paused'))
               + (SELECT count(*) FROM jobs WHERE queue = ?1 AND state IN ('scheduled', 'blocked'))
               AS "live!: i64""#,
        name
    )
    .fetch_one(&mut *conn)
    .await?;
    if live > 0 {
        return Ok(QueueDeleted::HasJobs(live as u64));
    }
    let done = sqlx::query!("DELETE FROM queues WHERE name = ?1", name)
        .execute(conn)
        .await?;
    Ok(match done.rows_affected() {
        0 => QueueDeleted::NotFound,
        _ => QueueDeleted::Done,
    })
}

/// All queues, by name.
pub(in crate::store) async fn all(readers: &SqlitePool) -> sqlx::Result<Vec<Queue>> {
    select(readers, None).await
}

async fn select<'e>(
    conn: impl sqlx::Executor<'e, Database = Sqlite>,
    name: Option<&str>,
) -> sqlx::Result<Vec<Queue>> {
    sqlx::query!(
        r#"SELECT name AS "name!: String", concurrency AS "concurrency!: u32",
               paused AS "paused!: bool", weight AS "weight!: u32", defaults AS "defaults!: String",
               (SELECT count(*) FROM jobs
                WHERE queue = queues.name AND state IN ('running', 'paused')) AS "running!: i64",
               (SELECT count(*) FROM jobs
                WHERE queue = queues.name AND state = 'queued') AS "queued!: i64"
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
            weight: row.weight,
            defaults: from_json(&row.defaults)?,
            running: row.running as u64,
            queued: row.queued as u64,
        })
    })
    .collect()
}
