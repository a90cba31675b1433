//! The stored records of one job, for `verify`: its row, its attempts, its events, and where its
//! rows of output continue after a missing range.

use sqlx::SqlitePool;

use super::{columns::int, events};
use crate::{
    job::{JobNumber, Offset, chain::Recorded},
    store::types::{AttemptRecord, JobRecord},
};

/// What the row of a job says, and the id of its newest event.
pub(in crate::store) async fn job(
    readers: &SqlitePool,
    number: JobNumber,
) -> sqlx::Result<Option<JobRecord>> {
    let row = sqlx::query!(
        r#"SELECT state AS "state!: String", reason AS "reason: String",
                  attempt AS "attempt!: u32", output_bytes AS "output_bytes!: i64",
                  dropped_bytes AS "dropped_bytes!: i64", output_sha256 AS "output_sha256: String",
                  (SELECT max(id) FROM events WHERE job = number) AS "newest_event: i64"
           FROM jobs WHERE number = ?1"#,
        number
    )
    .fetch_optional(readers)
    .await?;
    row.map(|row| {
        Ok(JobRecord {
            number,
            state: events::state(&row.state)?,
            reason: row.reason.as_deref().map(events::reason).transpose()?,
            attempt: row.attempt,
            output_bytes: row.output_bytes as u64,
            dropped_bytes: row.dropped_bytes as u64,
            output_sha256: row.output_sha256,
            newest_event: row.newest_event.unwrap_or(0),
        })
    })
    .transpose()
}

/// The attempts of a job, in order.
pub(in crate::store) async fn attempts(
    readers: &SqlitePool,
    number: JobNumber,
) -> sqlx::Result<Vec<AttemptRecord>> {
    let rows = sqlx::query!(
        r#"SELECT attempt AS "attempt!: u32", start_offset AS "start_offset!: i64",
                  end_offset AS "end_offset: i64", output_sha256 AS "output_sha256: String",
                  hash_state AS "hash_state: Vec<u8>"
           FROM attempts WHERE job = ?1 ORDER BY attempt"#,
        number
    )
    .fetch_all(readers)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| AttemptRecord {
            attempt: row.attempt,
            start_offset: row.start_offset as u64,
            end_offset: row.end_offset.map(|end| end as u64),
            output_sha256: row.output_sha256,
            hash_state: row.hash_state,
        })
        .collect())
}

/// Up to `limit` events of a job after the event `after`, in order.
pub(in crate::store) async fn recorded(
    readers: &SqlitePool,
    number: JobNumber,
    after: i64,
    limit: u32,
) -> sqlx::Result<Vec<Recorded>> {
    sqlx::query!(
        r#"SELECT id AS "id!: i64", attempt AS "attempt: u32", from_state AS "from: String",
                  to_state AS "to!: String", reason AS "reason: String"
           FROM events WHERE job = ?1 AND id > ?2 ORDER BY id LIMIT ?3"#,
        number,
        after,
        limit
    )
    .fetch_all(readers)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Recorded {
            event: row.id,
            attempt: row.attempt,
            from: row.from.as_deref().map(events::state).transpose()?,
            to: events::state(&row.to)?,
            reason: row.reason.as_deref().map(events::reason).transpose()?,
        })
    })
    .collect()
}

/// The first offset after `offset` at which a row of output begins.
pub(in crate::store) async fn next_row(
    readers: &SqlitePool,
    number: JobNumber,
    offset: Offset,
) -> sqlx::Result<Option<Offset>> {
    let offset = int(offset);
    let next = sqlx::query_scalar!(
        r#"SELECT min(next) AS "next: i64" FROM (
               SELECT min(offset) AS next FROM output_chunks WHERE job = ?1 AND offset > ?2
               UNION ALL
               SELECT min(first_offset) AS next FROM segments
               WHERE job = ?1 AND first_offset > ?2 AND end_offset > first_offset)"#,
        number,
        offset
    )
    .fetch_one(readers)
    .await?;
    Ok(next.map(|next| next as u64))
}
