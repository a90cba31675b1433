//! Removes final jobs, or their output alone: as many of them as one short transaction may.
//!
//! A job with too many rows for that loses its output piece by piece first (`trim`). Files are
//! unlinked by the caller, after the commit.

use std::collections::{BTreeMap, HashSet};

use super::trim::{self, BYTES_MAX, ROWS_MAX, trim};
use crate::{
    job::{JobNumber, JobState, Offset, RetentionScope},
    store::{
        retention_types::Removed,
        sqlite::{
            columns::{hex, json},
            dependencies, events,
            job_snapshot::{WriteBatch, all_moved},
        },
    },
};

/// What a job takes beside its output, in rows: its own, those of its attempts, and the entries of
/// the indexes.
const JOB_ROWS: i64 = 10;

/// A job and how much there is to remove of it.
struct Measured {
    number: JobNumber,
    queue: String,
    state: JobState,
    /// Rows and bytes of its output, up to a little more than a transaction may remove.
    rows: i64,
    bytes: i64,
    /// Bytes of its own row.
    own_bytes: i64,
}

/// Removes the first of these jobs. What is not final, or not there, is left out.
pub(super) async fn remove(
    batch: &mut WriteBatch<'_>,
    scope: RetentionScope,
    numbers: &[JobNumber],
) -> sqlx::Result<Removed> {
    let measured = measure(batch, numbers).await?;
    let (mut rows, mut bytes) = (0, 0);
    let fitting = measured.iter().take_while(|job| {
        rows += job.rows + JOB_ROWS;
        bytes += job.bytes + job.own_bytes;
        rows <= ROWS_MAX && bytes <= BYTES_MAX
    });
    let mut whole = fitting.count();
    let mut removed = Removed::default();
    if let (0, Some(first)) = (whole, measured.first()) {
        if first.rows > ROWS_MAX || first.bytes > BYTES_MAX {
            let trimmed = trim(batch, first.number, scope).await?;
            removed.segments.insert(first.number, trimmed);
        } else {
            whole = 1;
        }
    }
    let (whole, left) = measured.split_at(whole);
    removed.left = left.iter().map(|job| job.number).collect();
    removed.jobs = whole.iter().map(|job| job.number).collect();
    if whole.is_empty() {
        return Ok(removed);
    }
    let numbers = json(&removed.jobs)?;
    removed.segments.extend(segments(batch, &numbers).await?);
    match scope {
        RetentionScope::Jobs => remove_jobs(batch, whole, &numbers).await?,
        RetentionScope::Outputs => trim::remove_outputs(batch, &numbers).await?,
    }
    Ok(removed)
}

/// Those of these jobs that may be removed, in this order. Whatever else may keep a job for a while is
/// asked here.
async fn measure(batch: &mut WriteBatch<'_>, numbers: &[JobNumber]) -> sqlx::Result<Vec<Measured>> {
    let numbers = json(&numbers)?;
    let rows_max = ROWS_MAX + 1;
    let rows = sqlx::query!(
        r#"SELECT f.number AS "number!: i64", f.queue AS "queue!: String",
               f.state AS "state!: String",
               coalesce(octet_length(f.stdin), 0) + octet_length(f.spec) AS "own_bytes!: i64",
               (SELECT count(*) FROM (
                    SELECT 1 FROM output_chunks WHERE job = f.number LIMIT ?2))
                   + (SELECT count(*) FROM (
                    SELECT 1 FROM segments WHERE job = f.number LIMIT ?2)) AS "rows!: i64",
               (SELECT coalesce(sum(k.bytes), 0) FROM (
                    SELECT CASE WHEN gap IS NULL THEN length ELSE 0 END AS bytes
                    FROM output_chunks WHERE job = f.number LIMIT ?2) AS k) AS "bytes!: i64"
           FROM json_each(?1) AS w CROSS JOIN jobs AS f ON f.number = w.value
           WHERE +f.state IN ('succeeded', 'failed', 'cancelled') ORDER BY w.key"#,
        numbers,
        rows_max
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let mut seen = HashSet::new();
    let mut measured = Vec::with_capacity(rows.len());
    for row in rows {
        if seen.insert(row.number) {
            measured.push(Measured {
                number: row.number,
                queue: row.queue,
                state: events::state(&row.state)?,
                rows: row.rows,
                bytes: row.bytes,
                own_bytes: row.own_bytes,
            });
        }
    }
    Ok(measured)
}

/// Every segment of these jobs that may have a file: see `change::segments`.
async fn segments(
    batch: &mut WriteBatch<'_>,
    numbers: &str,
) -> sqlx::Result<BTreeMap<JobNumber, Vec<(u32, Offset)>>> {
    let rows = sqlx::query!(
        r#"SELECT job AS "job!: i64", attempt AS "attempt!: u32",
               first_offset AS "first_offset!: i64"
           FROM segments WHERE job IN (SELECT value FROM json_each(?1))
           UNION
           SELECT job, attempt, start_offset FROM attempts
           WHERE job IN (SELECT value FROM json_each(?1))"#,
        numbers
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let mut segments: BTreeMap<JobNumber, Vec<(u32, Offset)>> = BTreeMap::new();
    for row in rows {
        let of_job = segments.entry(row.job).or_default();
        of_job.push((row.attempt, row.first_offset as u64));
    }
    Ok(segments)
}

/// Deletes jobs with everything that belongs to them, but for their events; and the environments
/// that no job uses any more, because they may hold secrets.
async fn remove_jobs(
    batch: &mut WriteBatch<'_>,
    jobs: &[Measured],
    numbers: &str,
) -> sqlx::Result<()> {
    for job in jobs {
        dependencies::release_all_of(batch, job.number).await?;
    }
    let environments = sqlx::query_scalar!(
        r#"DELETE FROM jobs WHERE number IN (SELECT value FROM json_each(?1))
             AND +state IN ('succeeded', 'failed', 'cancelled')
           RETURNING environment AS "environment!: Vec<u8>""#,
        numbers
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    all_moved(environments.len() as u64, jobs.len())?;
    for job in jobs {
        batch.tally.moved(&job.queue, Some(job.state.into()), None);
    }
    let environments: HashSet<String> = environments.iter().map(|hash| hex(hash)).collect();
    let environments = json(&environments)?;
    sqlx::query!(
        "DELETE FROM environments WHERE hash IN (SELECT unhex(value) FROM json_each(?1))
           AND NOT EXISTS (SELECT 1 FROM jobs WHERE environment = environments.hash)",
        environments
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}
