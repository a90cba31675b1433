//! Requests about a job: to stop, to pause, to resume.
//!
//! They are levels (a state that is wanted, not an order), committed before any shim gets them; the
//! supervisor sends them. Where no attempt runs, a request to stop ends the job.

use super::{
    columns::{EMPTY_SHA256, json},
    dependencies, inputs,
    job_snapshot::{JobSnapshot, WriteBatch, all_moved},
    view,
};
use crate::store::write::PauseRequest;
use crate::{
    job::{
        JobNumber, JobRef, Micros, StopCause, StopFacts, StopRequest,
        state::{Event, JobState},
    },
    store::types::{PauseRequested, StopRequested},
};

/// Ends a waiting job, or stores the request for the shim of a running one.
pub(super) async fn stop(
    batch: &mut WriteBatch<'_>,
    job: JobRef,
    request: &StopRequest,
) -> sqlx::Result<StopRequested> {
    let Some(snapshot) = batch.snapshot(job).await? else {
        return Ok(StopRequested::NotFound);
    };
    let number = snapshot.number;
    if snapshot.state.is_final() {
        return view::known(batch.conn, number)
            .await
            .map(StopRequested::Final);
    }
    let Some(shim) = snapshot.shim.clone().filter(|_| snapshot.state.is_active()) else {
        withdraw(batch, &snapshot, request, Micros(request.asked_at_us)).await?;
        return view::known(batch.conn, number)
            .await
            .map(StopRequested::Withdrawn);
    };
    let request = merged(snapshot.stop.as_ref(), request);
    store_stop(batch, &snapshot, &request).await?;
    Ok(StopRequested::ToShim {
        job: view::known(batch.conn, number).await?,
        attempt: snapshot.attempt,
        shim,
        request,
    })
}

/// Merges two stop requests: the first one is kept, but a kill is never weakened to a cancel.
fn merged(earlier: Option<&StopRequest>, new: &StopRequest) -> StopRequest {
    match earlier {
        None => new.clone(),
        Some(earlier) if new.cause == StopCause::Kill => StopRequest {
            cause: StopCause::Kill,
            grace_ms: 0,
            ..earlier.clone()
        },
        Some(earlier) => earlier.clone(),
    }
}

async fn store_stop(
    batch: &mut WriteBatch<'_>,
    snapshot: &JobSnapshot,
    request: &StopRequest,
) -> sqlx::Result<()> {
    let request = json(request)?;
    let done = sqlx::query!(
        "UPDATE attempts SET stop = CASE WHEN stop -> '$.refused' IS NULL THEN ?3
             ELSE json_set(?3, '$.refused', stop -> '$.refused') END
         WHERE job = ?1 AND attempt = ?2 AND state IN ('claimed', 'started')",
        snapshot.number,
        snapshot.attempt,
        request
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)
}

/// Makes a job without a running attempt `cancelled`. Its output is that of earlier attempts.
pub(super) async fn withdraw(
    batch: &mut WriteBatch<'_>,
    snapshot: &JobSnapshot,
    request: &StopRequest,
    at: Micros,
) -> sqlx::Result<()> {
    let step = snapshot
        .step(Event::Withdrawn)
        .ok_or_else(|| super::columns::malformed("a final job cannot be withdrawn"))?;
    let stop = json(&StopFacts::undelivered(request))?;
    let (from, to) = (step.from.name(), step.to.name());
    let done = sqlx::query!(
        "UPDATE jobs SET state = ?3, finished_at = ?4, stop = ?5,
             output_sha256 = CASE output_bytes WHEN 0 THEN ?6 ELSE
                 (SELECT a.output_sha256 FROM attempts AS a
                  WHERE a.job = jobs.number AND a.end_offset = jobs.output_bytes
                  ORDER BY a.attempt DESC LIMIT 1) END
         WHERE number = ?1 AND state = ?2",
        step.number,
        from,
        to,
        at.0,
        stop,
        EMPTY_SHA256
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)?;
    if snapshot.interactive {
        inputs::forget(batch, &[step.number]).await?;
    }
    if step.from == JobState::Blocked {
        dependencies::withdraw(batch, step.number).await?;
    }
    batch.record(snapshot, step, None, &request.by, at);
    Ok(())
}

/// Stores a request to pause or resume, where there is an active attempt. A resume also withdraws
/// the pause that a lost attempt has left to the next one.
pub(super) async fn pause(
    batch: &mut WriteBatch<'_>,
    request: &PauseRequest,
) -> sqlx::Result<PauseRequested> {
    let Some(snapshot) = batch.snapshot(request.job).await? else {
        return Ok(PauseRequested::NotFound);
    };
    let number = snapshot.number;
    let Some(shim) = snapshot.shim.clone().filter(|_| snapshot.state.is_active()) else {
        if snapshot.pause && !request.pause && !snapshot.state.is_final() {
            store_pause(batch, number, snapshot.attempt, request).await?;
        }
        let job = view::known(batch.conn, number).await?;
        let waits = request.pause && !snapshot.state.is_final();
        return Ok(if waits {
            PauseRequested::NotRunning(job)
        } else {
            PauseRequested::Nothing(job)
        });
    };
    if is_as_requested(&snapshot, request.pause) {
        return view::known(batch.conn, number)
            .await
            .map(PauseRequested::Nothing);
    }
    store_pause(batch, number, snapshot.attempt, request).await?;
    Ok(PauseRequested::ToShim {
        number,
        attempt: snapshot.attempt,
        shim,
    })
}

/// Whether both the state and the stored request agree with the new one. Where only the request
/// does, it is still on its way and may be sent again.
fn is_as_requested(snapshot: &JobSnapshot, pause: bool) -> bool {
    let paused = snapshot.state == JobState::Paused;
    paused == pause && snapshot.pause == pause
}

async fn store_pause(
    batch: &mut WriteBatch<'_>,
    number: JobNumber,
    attempt: u32,
    request: &PauseRequest,
) -> sqlx::Result<()> {
    let done = sqlx::query!(
        "UPDATE attempts SET pause = ?3, pause_by = ?4, pause_at = ?5
         WHERE job = ?1 AND attempt = ?2 AND state <> 'ended'",
        number,
        attempt,
        request.pause,
        request.actor,
        request.at.0
    )
    .execute(&mut *batch.conn)
    .await?;
    all_moved(done.rows_affected(), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(by: &str, cause: StopCause, grace_ms: u64) -> StopRequest {
        StopRequest {
            by: by.to_owned(),
            cause,
            asked_at_us: by.len() as i64,
            grace_ms,
        }
    }

    #[test]
    fn a_kill_hardens_a_cancel_and_never_the_other_way() {
        let cancel = request("first", StopCause::Cancel, 5000);
        let kill = request("someone else", StopCause::Kill, 0);
        assert_eq!(merged(None, &cancel), cancel);
        let hardened = merged(Some(&cancel), &kill);
        assert_eq!(hardened, request("first", StopCause::Kill, 0));
        assert_eq!(merged(Some(&kill), &cancel), kill);
        let later = request("later", StopCause::Cancel, 1);
        assert_eq!(merged(Some(&cancel), &later), cancel);
    }
}
