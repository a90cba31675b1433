//! Takes jobs in, one or many: decides what the server decides about them, and has them committed.

use sha2::{Digest, Sha256};

use super::{Error, Executor};
use crate::{
    job::{Job, JobId, NewJob},
    store::{Submission, SubmitOutcome},
    supervisor,
    sys::clock,
};

/// A job and whether it was new.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// False where the idempotency key named an earlier one.
    pub created: bool,
}

/// Why a batch of jobs is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchError {
    /// The first entry that was refused; `None` where it is nobody's fault.
    pub index: Option<usize>,
    /// Why.
    pub error: Error,
}

impl Executor {
    /// Stores a job; when this returns it survives any kill. `actor` is who asked.
    ///
    /// # Errors
    ///
    /// `Unavailable` also where less is free on the disk than has to stay free: the job could not
    /// start, and the rest of the room is for the ends of those that run.
    pub async fn submit(&self, job: NewJob, actor: &str) -> Result<Submitted, Error> {
        self.submit_as(job, None, actor).await
    }

    /// The same for a job that tries another one again.
    pub(super) async fn submit_as(
        &self,
        job: NewJob,
        retry_of: Option<JobId>,
        actor: &str,
    ) -> Result<Submitted, Error> {
        self.refuse_without_room()?;
        let submission = Submission {
            retry_of,
            ..submission(job, actor)?
        };
        let submitted = self.inner.store.submit(submission).await?;
        if submitted.created {
            self.inner.kick.now();
        }
        Ok(Submitted {
            job: submitted.job,
            created: submitted.created,
        })
    }

    /// Stores all of these jobs in one commit, or none; the answers are in their order.
    pub async fn submit_many(
        &self,
        jobs: Vec<NewJob>,
        actor: &str,
    ) -> Result<Vec<SubmitOutcome>, BatchError> {
        self.refuse_without_room()?;
        let submissions = jobs.into_iter().map(|job| submission(job, actor));
        let submissions = submissions.collect::<Result<Vec<_>, Error>>()?;
        let taken = self.inner.store.submit_many(submissions).await?;
        if taken.iter().any(|job| job.created) {
            self.inner.kick.now();
        }
        Ok(taken)
    }

    fn refuse_without_room(&self) -> Result<(), Error> {
        let ctx = self.inner.supervisor.context();
        let (root, min) = (ctx.layout.root(), ctx.bounds.free_bytes_min);
        // Where this cannot be known, the write itself will tell.
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

/// A job with what the server decides about it.
fn submission(mut job: NewJob, actor: &str) -> Result<Submission, Error> {
    let cwd = job.cwd.get_or_insert_with(|| supervisor::home().to_owned());
    let cwd = cwd.clone();
    Ok(Submission {
        id: JobId(uuid::Uuid::now_v7()),
        retry_of: None,
        fingerprint: fingerprint(&job)?,
        cwd,
        job,
        actor: actor.to_owned(),
        at: clock::now(),
    })
}

/// What makes two submissions the same job: the defaults filled in, the key aside. Maps are
/// sorted, so equal jobs have equal JSON.
fn fingerprint(job: &NewJob) -> Result<[u8; 32], Error> {
    let json = serde_json::to_vec(&job.fingerprint_source())
        .map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Sha256::digest(json).into())
}
