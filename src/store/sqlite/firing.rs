//! Firings of schedules: one moves the schedule's next time on, naming the one that it found, and submits
//! its jobs in the same transaction. The index `jobs_schedule` has each time of a schedule once.

use super::{
    columns::{json, malformed},
    job_snapshot::{WriteBatch, all_moved},
    jobs,
    schedules::one,
    stop_requests, view,
};
use crate::{
    job::{
        JobNumber, JobRef, JobState, Micros, Overlap, Schedule, SkippedRun, StopCause, StopRequest,
    },
    store::{
        firing::{Fired, Firing, FiringCause, RunPlan, SubmittedRun},
        types::{StopRequested, Submission, SubmitOutcome},
    },
};

/// Submits the runs of a firing, as far as the run before each lets it.
pub(super) async fn fire(batch: &mut WriteBatch<'_>, firing: &Firing) -> sqlx::Result<Fired> {
    let found = one(&mut *batch.conn, &firing.name).await?;
    let Some(mut schedule) = found.filter(|found| is_current(found, firing)) else {
        return Ok(Fired {
            stale: true,
            ..Fired::default()
        });
    };
    let waits = firing.cause == FiringCause::Waiting;
    if waits && live_predecessor(batch, &schedule).await?.is_some() {
        return Ok(Fired {
            stale: true,
            ..Fired::default()
        });
    }
    match firing.cause {
        FiringCause::Clock { to, .. } => schedule.next_at = to,
        FiringCause::Waiting => {
            schedule.waiting.remove(0);
        }
        FiringCause::Request => {}
    }
    if let Some((count, newest)) = &firing.missed {
        schedule.skipped += count;
        schedule.last_skip = Some(newest.clone());
    }
    let mut fired = Fired::default();
    for run in &firing.runs {
        if let Some(reason) = submit(batch, &mut schedule, firing, run, &mut fired).await? {
            let skipped = SkippedRun { at: run.at, reason };
            // A request that is refused changes nothing.
            if firing.cause != FiringCause::Request {
                schedule.skipped += 1;
                schedule.last_skip = Some(skipped.clone());
            }
            fired.skipped.push(skipped);
        }
    }
    store(batch, &schedule).await?;
    Ok(fired)
}

/// Whether the schedule is still as it was when the firing was decided.
fn is_current(schedule: &Schedule, firing: &Firing) -> bool {
    let fits = match firing.cause {
        FiringCause::Clock { from, .. } => schedule.next_at == Some(from),
        FiringCause::Waiting => {
            let first = firing.runs.first().map(|run| run.at);
            first.is_some() && schedule.waiting.first().copied() == first
        }
        FiringCause::Request => true,
    };
    fits && schedule.revision == firing.revision
}

/// Submits a run; returns why it is skipped, if it is.
async fn submit(
    batch: &mut WriteBatch<'_>,
    schedule: &mut Schedule,
    firing: &Firing,
    run: &RunPlan,
    fired: &mut Fired,
) -> sqlx::Result<Option<String>> {
    let submission = match &run.submission {
        Ok(submission) => submission,
        Err(refused) => return Ok(Some(refused.reason.clone())),
    };
    // A clock that was set back may show a time again, which then is not a skipped one either.
    if ran_already(batch, &schedule.name, run.at).await? {
        return Ok(None);
    }
    if let Some(outcome) = submitted_before(batch, submission).await? {
        fired.submitted.push(SubmittedRun {
            at: run.at,
            outcome,
        });
        return Ok(None);
    }
    if let Some((number, state)) = live_predecessor(batch, schedule).await? {
        let before = format!("the run before it, job {number}, is {}", state.name());
        match schedule.overlap {
            Overlap::Skip => return Ok(Some(before)),
            Overlap::Queue if firing.cause == FiringCause::Request => {
                return Ok(Some(format!("{before}, and a run at once does not wait")));
            }
            Overlap::Queue => return Ok(enqueue(schedule, run.at)),
            Overlap::Replace => {}
        }
    } else if matches!(firing.cause, FiringCause::Clock { .. }) && !schedule.waiting.is_empty() {
        // Runs that have waited longer come first.
        return Ok(enqueue(schedule, run.at));
    }
    insert(batch, schedule, firing, (run.at, submission), fired).await
}

/// Makes a run wait; returns why it is skipped, if it is.
fn enqueue(schedule: &mut Schedule, at: Micros) -> Option<String> {
    let waiting = schedule.waiting.len();
    if waiting >= Schedule::WAITING_MAX {
        return Some(format!("{waiting} runs wait already"));
    }
    schedule.waiting.push(at);
    None
}

/// Stores the job of a run; with `replace` the run before it is asked to stop.
async fn insert(
    batch: &mut WriteBatch<'_>,
    schedule: &mut Schedule,
    firing: &Firing,
    (at, submission): (Micros, &Submission),
    fired: &mut Fired,
) -> sqlx::Result<Option<String>> {
    let replaced = live_predecessor(batch, schedule).await?;
    let submitted = jobs::submit(batch, &[std::slice::from_ref(submission)]).await?;
    let outcome = match submitted.into_iter().next() {
        Some(Ok(outcomes)) => outcomes.into_iter().next(),
        Some(Err(refused)) => {
            let reason = refused.error.to_string();
            fired.refused = Some(refused.error);
            return Ok(Some(reason));
        }
        None => None,
    };
    let outcome = outcome.ok_or_else(|| malformed("one submission has one outcome"))?;
    sqlx::query!(
        "UPDATE jobs SET schedule = ?2, schedule_at = ?3 WHERE number = ?1",
        outcome.number,
        schedule.name,
        at.0
    )
    .execute(&mut *batch.conn)
    .await?;
    if let Some((number, _)) = replaced {
        fired.stops.push(stop(batch, number, firing).await?);
    }
    schedule.last = Some((at, outcome.number));
    schedule.runs += 1;
    fired.submitted.push(SubmittedRun { at, outcome });
    Ok(None)
}

async fn stop(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    firing: &Firing,
) -> sqlx::Result<StopRequested> {
    let job = view::known(batch.conn, number).await?;
    let request = StopRequest {
        by: Schedule::actor(&firing.name),
        cause: StopCause::Cancel,
        asked_at_us: firing.at.0,
        grace_ms: job.spec.grace_s.to_ms(),
    };
    stop_requests::stop(batch, JobRef::Number(number), &request).await
}

/// The newest run, if it is not final.
async fn live_predecessor(
    batch: &mut WriteBatch<'_>,
    schedule: &Schedule,
) -> sqlx::Result<Option<(JobNumber, JobState)>> {
    let Some((_, number)) = schedule.last else {
        return Ok(None);
    };
    let snapshot = batch.snapshot(JobRef::Number(number)).await?;
    Ok(snapshot
        .filter(|snapshot| !snapshot.state.is_final())
        .map(|snapshot| (number, snapshot.state)))
}

async fn ran_already(batch: &mut WriteBatch<'_>, schedule: &str, at: Micros) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM jobs WHERE schedule = ?1 AND schedule_at = ?2
               AND schedule IS NOT NULL) AS "exists!: bool""#,
        schedule,
        at.0
    )
    .fetch_one(&mut *batch.conn)
    .await
}

/// The job that a request to run has submitted already, whose reply was lost.
async fn submitted_before(
    batch: &mut WriteBatch<'_>,
    submission: &Submission,
) -> sqlx::Result<Option<SubmitOutcome>> {
    let Some(key) = submission.job.idempotency_key.as_deref() else {
        return Ok(None);
    };
    let number = sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs WHERE idempotency_key = ?1"#,
        key
    )
    .fetch_optional(&mut *batch.conn)
    .await?;
    let Some(number) = number else {
        return Ok(None);
    };
    let job = view::known(batch.conn, number).await?;
    Ok(Some(SubmitOutcome {
        id: job.id,
        number,
        state: job.state,
        created: false,
    }))
}

/// Stores what a firing changes of its schedule.
async fn store(batch: &mut WriteBatch<'_>, schedule: &Schedule) -> sqlx::Result<()> {
    let waiting = json(&schedule.waiting.iter().map(|at| at.0).collect::<Vec<_>>())?;
    let next = schedule.next_at.map(|at| at.0);
    let (last_at, last_job) = (
        schedule.last.map(|last| last.0.0),
        schedule.last.map(|last| last.1),
    );
    let (runs, skipped) = (schedule.runs as i64, schedule.skipped as i64);
    let skip_at = schedule.last_skip.as_ref().map(|skip| skip.at.0);
    let skip_reason = schedule.last_skip.as_ref().map(|skip| &skip.reason);
    let done = sqlx::query!(
        "UPDATE schedules SET next_at = ?2, waiting = ?3, last_at = ?4, last_job = ?5, runs = ?6,
             skipped = ?7, skip_at = ?8, skip_reason = ?9
         WHERE name = ?1 AND revision = ?10",
        schedule.name,
        next,
        waiting,
        last_at,
        last_job,
        runs,
        skipped,
        skip_at,
        skip_reason,
        schedule.revision
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)
}
