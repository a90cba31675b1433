//! Inputs that come before a job's start: kept, given to the attempt that is claimed, deleted when
//! the job is final.
//!
//! Whether an input is kept or belongs to a shim is decided here, in a transaction that a claim
//! cannot interrupt: what came before the claim is part of it, what comes after goes to the shim.

use std::collections::HashMap;

use super::{columns::json, job_snapshot::WriteBatch};
use crate::{
    job::{Input, InputAnswer, JobNumber, JobRef},
    store::types::InputOutcome,
};

/// Keeps an input of a waiting job; else names the shim that must get it.
pub(super) async fn input(
    batch: &mut WriteBatch<'_>,
    job: JobRef,
    input: &Input,
) -> sqlx::Result<InputOutcome> {
    let Some(snapshot) = batch.snapshot(job).await? else {
        return Ok(InputOutcome::NotFound);
    };
    let number = snapshot.number;
    if !snapshot.interactive || snapshot.state.is_final() {
        return Ok(InputOutcome::Unfit {
            number,
            interactive: snapshot.interactive,
            state: snapshot.state,
        });
    }
    if let Some(shim) = snapshot.shim.filter(|_| snapshot.state.is_active()) {
        return Ok(InputOutcome::ToShim {
            number,
            attempt: snapshot.attempt,
            shim,
        });
    }
    let answer = keep(batch, number, input).await?;
    Ok(InputOutcome::Kept { number, answer })
}

/// Keeps it as a shim would: whole or not at all, not after an `eof`, and not twice.
async fn keep(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    input: &Input,
) -> sqlx::Result<InputAnswer> {
    if let Some(bytes) = kept_before(batch, number, input.write_id.as_deref()).await? {
        return Ok(InputAnswer::Accepted { bytes });
    }
    let kept = sqlx::query!(
        r#"SELECT count(*) AS "count!: i64", coalesce(sum(length(data)), 0) AS "bytes!: i64",
               coalesce(max(eof), 0) AS "eof!: bool"
           FROM inputs WHERE job = ?1"#,
        number
    )
    .fetch_one(&mut *batch.conn)
    .await?;
    if kept.eof {
        return Ok(InputAnswer::Closed);
    }
    let (count, waiting) = (kept.count as usize, kept.bytes as usize);
    if count >= Input::KEPT_MAX || waiting + input.data.len() > Input::BYTES_MAX {
        let waiting_bytes = waiting as u64;
        return Ok(InputAnswer::Full { waiting_bytes });
    }
    insert(batch, number, kept.count + 1, input).await?;
    let bytes = input.data.len() as u64;
    Ok(InputAnswer::Accepted { bytes })
}

async fn kept_before(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    write_id: Option<&str>,
) -> sqlx::Result<Option<u64>> {
    let Some(write_id) = write_id else {
        return Ok(None);
    };
    let bytes = sqlx::query_scalar!(
        r#"SELECT length(data) AS "bytes!: i64" FROM inputs WHERE job = ?1 AND write_id = ?2"#,
        number,
        write_id
    )
    .fetch_optional(&mut *batch.conn)
    .await?;
    Ok(bytes.map(|bytes| bytes as u64))
}

async fn insert(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    seq: i64,
    input: &Input,
) -> sqlx::Result<()> {
    let Input {
        data,
        eof,
        write_id,
    } = input;
    sqlx::query!(
        "INSERT INTO inputs (job, seq, write_id, data, eof) VALUES (?1, ?2, ?3, ?4, ?5)",
        number,
        seq,
        write_id,
        data,
        eof
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}

/// What was kept for these jobs, each in the order of arrival. It stays in the table: the attempt
/// may become void.
pub(super) async fn kept(
    batch: &mut WriteBatch<'_>,
    jobs: &[JobNumber],
) -> sqlx::Result<HashMap<JobNumber, Vec<Input>>> {
    let mut kept = HashMap::<_, Vec<_>>::new();
    if jobs.is_empty() {
        return Ok(kept);
    }
    let jobs = json(&jobs)?;
    let rows = sqlx::query!(
        r#"SELECT job AS "job!: i64", data AS "data!: Vec<u8>", eof AS "eof!: bool",
               write_id AS "write_id: String"
           FROM inputs WHERE job IN (SELECT value FROM json_each(?1)) ORDER BY job, seq"#,
        jobs
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    for row in rows {
        kept.entry(row.job).or_default().push(Input {
            data: row.data,
            eof: row.eof,
            write_id: row.write_id,
        });
    }
    Ok(kept)
}

/// Deletes what was kept for these jobs, which are final.
pub(super) async fn forget(batch: &mut WriteBatch<'_>, jobs: &[JobNumber]) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let jobs = json(&jobs)?;
    sqlx::query!(
        "DELETE FROM inputs WHERE job IN (SELECT value FROM json_each(?1))",
        jobs
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}
