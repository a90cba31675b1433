//! Submits a final job once more, as a new job. The old one is not changed.

use super::{Error, Executor};
use crate::{
    job::{Job, JobRef},
    store::Include,
};

impl Executor {
    /// A new job with the same NewJob, environment and stdin included, but for the idempotency key;
    /// `retry_of` names the old one. Inputs are not sent again.
    pub async fn retry(&self, job: JobRef, actor: &str) -> Result<Job, Error> {
        let include = Include {
            env: true,
            stdin: true,
            notify_secrets: true,
        };
        let old = self.inner.store.job(job, include).await?;
        let old = old.ok_or_else(|| Error::no_such_job(job))?;
        if !old.state.is_final() {
            return Err(Error::not_final(&old, "tried again"));
        }
        let again = old.resubmission();
        let again = again.ok_or_else(|| Error::Internal("a job was read in part".to_owned()))?;
        self.check_ties(std::slice::from_ref(&again))?;
        match self.submit_as(again, Some(old.id), actor).await {
            Ok(submitted) => Ok(submitted.job),
            // The old job exists, so it is its queue that does not.
            Err(Error::NotFound(_)) => Err(Error::Conflict(format!(
                "the queue {:?} of job {} was deleted; make it again, or submit the job anew \
                 in another one",
                old.spec.queue, old.number
            ))),
            Err(error) => Err(error),
        }
    }
}
