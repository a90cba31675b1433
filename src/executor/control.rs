//! Requests to stop, pause, resume or signal a job. All but signals are committed first, then sent.

use serde_json::json;

use super::{Error, Executor};
use crate::{
    job::{Job, JobNumber, JobRef, JobState, StopCause, StopRequest, signal},
    store::{Include, PauseRequested, StopRequested, StoreError},
    supervisor::AttemptId,
    sys::clock,
};

/// An action on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGSTOP to its tree.
    Pause,
    /// SIGCONT to its tree.
    Resume,
    /// SIGTERM, then SIGKILL after the job's grace.
    Cancel,
    /// SIGKILL at once.
    Kill,
    /// This signal to its process group.
    Signal(i32),
}

impl Executor {
    /// Does an action on a job and returns the job as it is then. On a final job nothing happens,
    /// except that a signal is a conflict.
    pub async fn control(&self, job: JobRef, action: Action, actor: &str) -> Result<Job, Error> {
        match action {
            Action::Cancel => self.stop_job(job, StopCause::Cancel, actor).await,
            Action::Kill => self.stop_job(job, StopCause::Kill, actor).await,
            Action::Pause => self.pause(job, true, actor).await,
            Action::Resume => self.pause(job, false, actor).await,
            Action::Signal(signal) => self.signal(job, signal, actor).await,
        }
    }

    async fn stop_job(&self, job: JobRef, cause: StopCause, actor: &str) -> Result<Job, Error> {
        let grace_ms = match cause {
            StopCause::Cancel => self
                .get(job, Include::default())
                .await?
                .spec
                .grace_s
                .to_ms(),
            _ => 0,
        };
        let request = StopRequest {
            by: actor.to_owned(),
            cause,
            asked_at_us: clock::now().0,
            grace_ms,
        };
        let requested = match self.ledger().request_stop(job, request.clone()).await {
            Err(StoreError::DiskFull) => return self.stop_unwritten(job, request).await,
            requested => requested?,
        };
        self.deliver_stop(requested, job)
    }

    /// Sends a committed request to stop to the shim of `job`, if it has one.
    pub(super) fn deliver_stop(&self, requested: StopRequested, job: JobRef) -> Result<Job, Error> {
        match requested {
            StopRequested::NotFound => Err(Error::no_such_job(job)),
            StopRequested::Final(job) | StopRequested::Withdrawn(job) => Ok(job),
            StopRequested::ToShim {
                job,
                attempt,
                shim,
                request,
            } => {
                let key = AttemptId {
                    job: job.number,
                    attempt,
                };
                // If it cannot be delivered now, it is sent again from the database.
                let _ = self.inner.supervisor.stop_job(&shim, key, request);
                Ok(job)
            }
        }
    }

    /// On a full disk a request cannot be committed, but the job that filled the disk must be
    /// stoppable. The request goes to the shim only, and is lost if the server is killed before
    /// that.
    async fn stop_unwritten(&self, job: JobRef, request: StopRequest) -> Result<Job, Error> {
        let job = self.get(job, Include::default()).await?;
        let open = self.inner.store.open_attempts().await?;
        let Some(open) = open.into_iter().find(|open| open.number == job.number) else {
            return Err(StoreError::DiskFull.into());
        };
        let supervisor = &self.inner.supervisor;
        match supervisor.stop_job(&open.shim, AttemptId::of_open(&open), request) {
            Ok(()) => Ok(job),
            // Neither committed nor sent.
            Err(_) => Err(StoreError::DiskFull.into()),
        }
    }

    async fn pause(&self, job: JobRef, pause: bool, actor: &str) -> Result<Job, Error> {
        let actor = actor.to_owned();
        let at = clock::now();
        match self
            .ledger()
            .request_pause(job, pause, actor.clone(), at)
            .await?
        {
            PauseRequested::NotFound => Err(Error::no_such_job(job)),
            PauseRequested::Nothing(job) => Ok(job),
            PauseRequested::NotRunning(job) => Err(Error::Conflict(format!(
                "job {} is {}; only a running job can be paused",
                job.number,
                job.state.name()
            ))),
            PauseRequested::ToShim {
                number,
                attempt,
                shim,
            } => {
                let key = AttemptId {
                    job: number,
                    attempt,
                };
                let supervisor = &self.inner.supervisor;
                let done = supervisor.pause(&shim, key, pause, &actor).await;
                done.map_err(|why| Error::Conflict(format!("job {number} is not paused: {why}")))?;
                if !pause {
                    self.inner.last_inputs.note(&self.inner.hub, number);
                }
                self.get(JobRef::Number(number), Include::default()).await
            }
        }
    }

    async fn signal(&self, job: JobRef, number: i32, actor: &str) -> Result<Job, Error> {
        let job = self.get(job, Include::default()).await?;
        if !job.state.is_active() {
            return Err(Error::Conflict(format!(
                "job {} is {}; only a running or paused job can be signalled",
                job.number,
                job.state.name()
            )));
        }
        if job.state == JobState::Paused && signal::is_of_job_control(number) {
            return Err(Error::Conflict(not_while_paused(job.number, number)));
        }
        let target = json!({"job": job.number});
        let result = json!({"signal": signal::name(number), "by": actor});
        self.note("job.signal", target, result).await?;
        let sent = self.inner.supervisor.signal(job.number, number).await;
        sent.map_err(|error| Error::Unavailable(format!("{error}; try again")))?;
        Ok(job)
    }
}

/// The message for job control signals (SIGCONT, SIGSTOP and the like) to a paused job.
fn not_while_paused(job: JobNumber, number: i32) -> String {
    let signal = signal::name(number);
    format!("job {job} is paused, and {signal} does not change that; resume it first")
}
