//! Submits jobs, one or many: fills in what the server decides, and has them committed.

use sha2::{Digest, Sha256};

use super::{Error, Executor, error::BatchError};
use crate::{
    job::{Job, JobId, JobSpec},
    store::{Submission, SubmitOutcome},
    supervisor,
    sys::clock,
};

/// A job and whether it was new.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The job, new or earlier.
    pub job: Job,
    /// False where the idempotency key named an earlier one.
    pub created: bool,
}

impl Executor {
    /// Stores a job; when this returns, the job survives any kill. `actor` is recorded as its
    /// submitter.
    ///
    /// # Errors
    ///
    /// `Unavailable` also if less is free on the disk than has to stay free: the job could not
    /// start, and the rest of the space is for the ends of running jobs.
    pub async fn submit(&self, job: JobSpec, actor: &str) -> Result<Submitted, Error> {
        self.submit_as(job, None, actor).await
    }

    /// The same for a retry of another job.
    pub(super) async fn submit_as(
        &self,
        job: JobSpec,
        retry_of: Option<JobId>,
        actor: &str,
    ) -> Result<Submitted, Error> {
        self.refuse_without_disk_space()?;
        let submission = Submission {
            retry_of,
            ..submission(job, actor)?
        };
        let submitted = self.inner.store.submit(submission).await?;
        if submitted.created {
            self.inner.wakeup.wake();
        }
        Ok(Submitted {
            job: submitted.job,
            created: submitted.created,
        })
    }

    /// Stores all of these jobs in one commit, or none; the answers are in their order.
    pub async fn submit_many(
        &self,
        jobs: Vec<JobSpec>,
        actor: &str,
    ) -> Result<Vec<SubmitOutcome>, BatchError> {
        self.refuse_without_disk_space()?;
        let submissions = jobs.into_iter().map(|job| submission(job, actor));
        let submissions = submissions.collect::<Result<Vec<_>, Error>>()?;
        let outcomes = self.inner.store.submit_many(submissions).await?;
        if outcomes.iter().any(|job| job.created) {
            self.inner.wakeup.wake();
        }
        Ok(outcomes)
    }

    pub(super) fn refuse_without_disk_space(&self) -> Result<(), Error> {
        let ctx = self.inner.supervisor.context();
        let (root, min) = (ctx.layout.root(), ctx.bounds.free_bytes_min);
        // If this is unknown, the write itself fails on a full disk.
        let Ok(fs) = rustix::fs::statvfs(root) else {
            return Ok(());
        };
        let free = fs.f_bavail * fs.f_frsize;
        if free >= min {
            return Ok(());
        }
        Err(Error::Unavailable(format!(
            "the disk of {} is full: {free} bytes are free, and {min} have to stay free \
             (free_bytes_min); make room and try again",
            root.display()
        )))
    }
}

/// A job with what the server decides about it: id, directory, time.
pub(super) fn submission(mut job: JobSpec, actor: &str) -> Result<Submission, Error> {
    job.cwd.get_or_insert_with(|| supervisor::home().to_owned());
    Ok(Submission {
        id: JobId(uuid::Uuid::now_v7()),
        retry_of: None,
        fingerprint: fingerprint(&job)?,
        job,
        actor: actor.to_owned(),
        at: clock::now(),
    })
}

/// The hash of what makes two submissions the same job.
fn fingerprint(job: &JobSpec) -> Result<[u8; 32], Error> {
    let source = job.fingerprint_source();
    let source = source.map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Sha256::digest(source).into())
}
