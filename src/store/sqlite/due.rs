//! Jobs whose time has come.

use super::{
    columns::json,
    job_snapshot::{WriteBatch, all_moved},
};
use crate::{
    job::{JobNumber, Micros, state::Event},
    store::types::NextDue,
};

/// Actor of the state change.
const ACTOR: &str = "scheduler";
/// The most jobs that one transaction moves.
const MOVES_MAX: i64 = 500;

/// Queues the jobs that wait for a time up to `now`, those that wait longest first; and tells when the
/// next ones are due.
pub(super) async fn due(batch: &mut WriteBatch<'_>, now: Micros) -> sqlx::Result<NextDue> {
    let numbers: Vec<JobNumber> = sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs INDEXED BY jobs_due
           WHERE state = 'scheduled' AND ready_at <= ?1 ORDER BY ready_at, number LIMIT ?2"#,
        now.0,
        MOVES_MAX
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    if !numbers.is_empty() {
        queue(batch, &numbers, now).await?;
    }
    let next = sqlx::query_scalar!(
        r#"SELECT min(ready_at) AS "ready_at: i64" FROM jobs INDEXED BY jobs_due
           WHERE state = 'scheduled'"#
    )
    .fetch_one(&mut *batch.conn)
    .await?;
    Ok(NextDue {
        next: next.map(Micros),
    })
}

async fn queue(batch: &mut WriteBatch<'_>, numbers: &[JobNumber], now: Micros) -> sqlx::Result<()> {
    let snapshots = batch.snapshots(numbers).await?;
    let jobs = numbers.iter().filter_map(|number| snapshots.get(number));
    let steps: Vec<_> = jobs
        .filter_map(|job| Some((job, job.step(Event::Due)?)))
        .collect();
    let rows = json(&numbers)?;
    let done = sqlx::query!(
        "UPDATE jobs SET state = 'queued'
         WHERE number IN (SELECT value FROM json_each(?1)) AND +state = 'scheduled'",
        rows
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), steps.len())?;
    for (job, step) in steps {
        batch.record(job, step, None, ACTOR, now);
    }
    Ok(())
}
