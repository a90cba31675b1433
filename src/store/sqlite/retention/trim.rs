//! Removes the output of final jobs, as a whole or the beginning of a long one: what was removed is
//! one gap `retention` from the first byte on.

use crate::{
    job::{JobNumber, Offset, RetentionScope},
    store::sqlite::job_snapshot::WriteBatch,
};

/// The most rows that a transaction removes, but for those of one job's attempts.
pub(super) const ROWS_MAX: i64 = 400;
/// The most data that a transaction removes, bytes: every page of it is overwritten, so that the
/// write-ahead log grows by about as much.
pub(super) const BYTES_MAX: i64 = 512 << 10;

/// Removes the output of these jobs, a JSON array of numbers. Nobody can compute the digest again,
/// so it goes with the bytes, and so do the digests of attempts.
pub(super) async fn remove_outputs(batch: &mut WriteBatch<'_>, numbers: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM output_chunks WHERE job IN (SELECT value FROM json_each(?1))",
        numbers
    )
    .execute(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "DELETE FROM segments WHERE job IN (SELECT value FROM json_each(?1))",
        numbers
    )
    .execute(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "INSERT INTO output_chunks (job, offset, length, attempt, gap)
         SELECT number, 0, output_bytes, 1, 'retention' FROM jobs
         WHERE number IN (SELECT value FROM json_each(?1)) AND output_bytes > 0",
        numbers
    )
    .execute(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "UPDATE jobs SET output_sha256 = NULL, pruned_bytes = output_bytes - dropped_bytes
         WHERE number IN (SELECT value FROM json_each(?1)) AND output_bytes > 0",
        numbers
    )
    .execute(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "UPDATE attempts SET output_sha256 = NULL, hash_state = NULL
         WHERE job IN (SELECT value FROM json_each(?1)) AND end_offset > 0",
        numbers
    )
    .execute(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "DELETE FROM removals WHERE job IN (SELECT value FROM json_each(?1))",
        numbers
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// A row of output: where it ends, and how many bytes of the database it has.
struct OutputEnd {
    offset: i64,
    end: i64,
    bytes: i64,
}

/// Removes the beginning of a long output, as much as a transaction may, and notes that the rest
/// has to follow. Attempt and first offset of the segments that it had.
pub(super) async fn trim(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    scope: RetentionScope,
) -> sqlx::Result<Vec<(u32, Offset)>> {
    let cut = cut(batch, number).await?;
    sqlx::query!(
        "DELETE FROM output_chunks WHERE job = ?1 AND offset < ?2",
        number,
        cut
    )
    .execute(&mut *batch.conn)
    .await?;
    let segments = sqlx::query!(
        r#"DELETE FROM segments WHERE job = ?1 AND first_offset < ?2
           RETURNING attempt AS "attempt!: u32", first_offset AS "first_offset!: i64""#,
        number,
        cut
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "INSERT INTO output_chunks (job, offset, length, attempt, gap)
         VALUES (?1, 0, ?2, 1, 'retention')",
        number,
        cut
    )
    .execute(&mut *batch.conn)
    .await?;
    sqlx::query!(
        "UPDATE jobs SET output_sha256 = NULL,
             pruned_bytes = min(?2, output_bytes - dropped_bytes) WHERE number = ?1",
        number,
        cut
    )
    .execute(&mut *batch.conn)
    .await?;
    let scope = scope.name();
    sqlx::query!(
        "INSERT INTO removals (job, scope) VALUES (?1, ?2)
         ON CONFLICT (job) DO UPDATE SET scope = min(scope, excluded.scope)",
        number,
        scope
    )
    .execute(&mut *batch.conn)
    .await?;
    let segments = segments.into_iter();
    Ok(segments
        .map(|row| (row.attempt, row.first_offset as u64))
        .collect())
}

/// Up to where a transaction may remove: the end of a row.
async fn cut(batch: &mut WriteBatch<'_>, number: JobNumber) -> sqlx::Result<i64> {
    let mut rows = sqlx::query_as!(
        OutputEnd,
        r#"SELECT offset AS "offset!: i64", offset + length AS "end!: i64",
               CASE WHEN gap IS NULL THEN length ELSE 0 END AS "bytes!: i64"
           FROM output_chunks WHERE job = ?1 AND coalesce(gap, '') <> 'retention'
           ORDER BY offset LIMIT ?2"#,
        number,
        ROWS_MAX
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let segments = sqlx::query_as!(
        OutputEnd,
        r#"SELECT first_offset AS "offset!: i64", end_offset AS "end!: i64", 0 AS "bytes!: i64"
           FROM segments WHERE job = ?1 ORDER BY first_offset LIMIT ?2"#,
        number,
        ROWS_MAX
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    rows.extend(segments);
    rows.sort_by_key(|row| (row.offset, row.end));
    let (mut cut, mut bytes) = (0, 0);
    for row in rows.iter().take(ROWS_MAX as usize) {
        // The first row always goes, so that each step makes progress.
        if cut > 0 && bytes + row.bytes > BYTES_MAX {
            break;
        }
        bytes += row.bytes;
        cut = row.end;
    }
    Ok(cut)
}
