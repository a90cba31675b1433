//! Changes to a job that has not started, and the deletion of a final one.
//!
//! The result of a deletion names the segment files; the caller unlinks them.

use super::{
    columns::{json, malformed},
    dependencies, exclusive,
    job_snapshot::{WriteBatch, all_moved},
    tally::CountedAs,
    view,
};
use crate::{
    job::{JobChange, JobNumber, JobRef, JobState, Micros, Offset, state::Event},
    store::types::{Deleted, DeletedJob, Updated},
    sys::clock,
};

/// Changes a job that has had no attempt, or only void ones. Its fingerprint, which is that of the
/// submission, stays.
pub(super) async fn update(
    batch: &mut WriteBatch<'_>,
    job: JobRef,
    change: &JobChange,
    actor: &str,
) -> sqlx::Result<Updated> {
    let Some(snapshot) = batch.snapshot(job).await? else {
        return Ok(Updated::NotFound);
    };
    let number = snapshot.number;
    if snapshot.begun || snapshot.state.is_final() {
        return view::known(batch.conn, number).await.map(Updated::Started);
    }
    if let Some(queue) = change
        .queue
        .clone()
        .filter(|queue| *queue != snapshot.queue)
    {
        match drains(batch, &queue).await? {
            None => return Ok(Updated::UnknownQueue(queue)),
            Some(true) => return Ok(Updated::QueueDrains(queue)),
            Some(false) => {}
        }
    }
    if snapshot.state == JobState::Queued && snapshot.exclusive.is_some() && !snapshot.waits_for_key
    {
        // It may be the turn of another one after the change.
        let job = (number, snapshot.queue.clone());
        exclusive::set_waits_for_key(batch, &job, true).await?;
    }
    batch.touched_keys.extend(snapshot.exclusive.clone());
    write(batch, number, change).await?;
    if let Some(queue) = &change.queue {
        let counted = CountedAs {
            state: snapshot.state,
            waits_for_key: snapshot.exclusive.is_some(),
        };
        batch.tally.moved(&snapshot.queue, Some(counted), None);
        batch.tally.moved(queue, None, Some(counted));
    }
    if let Some(run_at) = change.run_at {
        set_time(batch, number, run_at, actor).await?;
    }
    view::known(batch.conn, number).await.map(Updated::Done)
}

async fn write(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    change: &JobChange,
) -> sqlx::Result<()> {
    let labels = change.labels.as_ref().map(json).transpose()?;
    let policy = view::policy_text(change.policy.as_ref())?;
    let renamed = change.name.is_some();
    let name = change.name.as_ref().and_then(Option::as_ref);
    let done = sqlx::query!(
        "UPDATE jobs SET queue = coalesce(?2, queue), priority = coalesce(?3, priority),
             name = CASE WHEN ?4 THEN ?5 ELSE name END, labels = coalesce(?6, labels),
             policy = coalesce(?7, policy)
         WHERE number = ?1 AND +state IN ('scheduled', 'blocked', 'queued')",
        number,
        change.queue,
        change.priority,
        renamed,
        name,
        labels,
        policy
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)
}

/// Gives a job another time before which it does not start, or none. The key `delay_s` gives way to it.
async fn set_time(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    run_at: Option<Micros>,
    actor: &str,
) -> sqlx::Result<()> {
    let at = clock::now();
    let (ready_at, shown) = (run_at.map(|at| at.0), run_at.map(Micros::to_rfc3339));
    let done = sqlx::query!(
        "UPDATE jobs SET ready_at = ?2, spec = json_set(spec, '$.run_at', ?3, '$.delay_s', NULL)
         WHERE number = ?1 AND +state IN ('scheduled', 'blocked', 'queued')",
        number,
        ready_at,
        shown
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)?;
    let waits = run_at.is_some_and(|run_at| run_at > at);
    // Its queue may have changed, and its turn.
    let Some(snapshot) = batch.snapshot(JobRef::Number(number)).await? else {
        return Ok(());
    };
    let event = match (snapshot.state, waits) {
        (JobState::Scheduled, false) => Event::Due,
        (JobState::Queued, true) => Event::Postponed,
        _ => return Ok(()),
    };
    let step = snapshot
        .step(event)
        .ok_or_else(|| malformed("the table of transitions"))?;
    let (from, to) = (step.from.name(), step.to.name());
    let done = sqlx::query!(
        "UPDATE jobs SET state = ?3 WHERE number = ?1 AND state = ?2",
        number,
        from,
        to
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)?;
    batch.record(&snapshot, step, None, actor, at);
    Ok(())
}

/// Whether a queue drains; `None`: there is no such queue.
async fn drains(batch: &mut WriteBatch<'_>, queue: &str) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar!(
        r#"SELECT drain AS "drain!: bool" FROM queues WHERE name = ?1"#,
        queue
    )
    .fetch_optional(&mut *batch.conn)
    .await
}

/// Deletes a final job and all that belongs to it; its events stay. Its number is never used again,
/// so a reference to it can never meet another job.
pub(super) async fn delete(batch: &mut WriteBatch<'_>, job: JobRef) -> sqlx::Result<Deleted> {
    let Some(snapshot) = batch.snapshot(job).await? else {
        return Ok(Deleted::NotFound);
    };
    let number = snapshot.number;
    let job = view::known(batch.conn, number).await?;
    if !snapshot.state.is_final() {
        return Ok(Deleted::NotFinal(Box::new(job)));
    }
    dependencies::release_all_of(batch, number).await?;
    let segments = segments(batch, number).await?;
    let environment = sqlx::query_scalar!(
        r#"DELETE FROM jobs WHERE number = ?1
           AND +state IN ('succeeded', 'failed', 'cancelled')
           RETURNING environment AS "environment!: Vec<u8>""#,
        number
    )
    .fetch_one(&mut *batch.conn)
    .await?;
    let counted = Some(snapshot.counted());
    batch.tally.moved(&snapshot.queue, counted, None);
    forget_environment(batch, &environment).await?;
    Ok(Deleted::Done(Box::new(DeletedJob { job, segments })))
}

/// Every segment of a job that may have a file: those with rows, and the first one of each attempt,
/// whose file may still exist although its bytes are rows or the attempt is void.
async fn segments(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
) -> sqlx::Result<Vec<(u32, Offset)>> {
    let rows = sqlx::query!(
        r#"SELECT attempt AS "attempt!: u32", first_offset AS "first_offset!: i64"
           FROM segments WHERE job = ?1
           UNION
           SELECT attempt, start_offset FROM attempts WHERE job = ?1"#,
        number
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.attempt, row.first_offset as u64))
        .collect())
}

/// Deletes an environment that no job uses any more: it may hold secrets.
async fn forget_environment(batch: &mut WriteBatch<'_>, hash: &[u8]) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM environments WHERE hash = ?1
           AND NOT EXISTS (SELECT 1 FROM jobs WHERE environment = ?1)",
        hash
    )
    .execute(&mut *batch.conn)
    .await?;
    Ok(())
}
