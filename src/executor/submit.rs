//! Submits jobs, one or many: fills in what the server decides, and has them committed.

use std::collections::{HashMap, hash_map::Entry};

use sha2::{Digest, Sha256};

use super::{Actor, Error, Executor, error::BatchError};
use crate::{
    job::{DependencyTarget, Expectation, Job, JobId, JobSpec},
    output::Assertion,
    store::{BatchRefused, Submission, SubmitError, SubmitOutcome},
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

/// A job that is checked and complete, and not stored yet.
#[derive(Debug)]
pub struct PreparedJob {
    submission: Submission,
    actor: Actor,
}

impl Executor {
    /// Stores a job; when this returns, the job survives any kill. `actor` is recorded as its
    /// submitter.
    ///
    /// # Errors
    ///
    /// `Unavailable` also if less is free on the disk than has to stay free: the job could not
    /// start, and the rest of the space is for the ends of running jobs.
    pub async fn submit(&self, job: JobSpec, actor: &Actor) -> Result<Submitted, Error> {
        let prepared = self.prepare(job, actor).await?;
        self.submit_prepared(prepared).await
    }

    /// The same for a retry of another job.
    pub(super) async fn submit_as(
        &self,
        job: JobSpec,
        retry_of: Option<JobId>,
        actor: &Actor,
    ) -> Result<Submitted, Error> {
        let mut prepared = self.prepare(job, actor).await?;
        prepared.submission.retry_of = retry_of;
        self.submit_prepared(prepared).await
    }

    /// The first half of [`Self::submit`]: checks and completes a job, and stores nothing.
    pub async fn prepare(&self, job: JobSpec, actor: &Actor) -> Result<PreparedJob, Error> {
        self.refuse_without_disk_space()?;
        self.refuse_too_many_notices(std::slice::from_ref(&job))?;
        let mut jobs = [job];
        self.complete(&mut jobs, actor)
            .await
            .map_err(|refused| refused.error)?;
        let [job] = jobs;
        Ok(PreparedJob {
            submission: self.submission(job, actor).await?,
            actor: actor.clone(),
        })
    }

    /// The second half: stores it. Of several that are polled one after the other, each is handed to the
    /// store before the next.
    pub async fn submit_prepared(&self, prepared: PreparedJob) -> Result<Submitted, Error> {
        let PreparedJob { submission, actor } = prepared;
        let submitted = self.ledger().submit(submission).await?;
        if !submitted.created {
            let principal = actor.principal();
            self.check_known(submitted.job.id.into(), principal).await?;
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
        actor: &Actor,
    ) -> Result<Vec<SubmitOutcome>, BatchError> {
        let jobs = jobs.into_iter().map(|job| (job, None));
        self.submit_all_as(jobs.collect(), actor).await
    }

    /// The same for retries of other jobs.
    pub(super) async fn submit_all_as(
        &self,
        jobs: Vec<(JobSpec, Option<JobId>)>,
        actor: &Actor,
    ) -> Result<Vec<SubmitOutcome>, BatchError> {
        self.refuse_without_disk_space()?;
        let (mut jobs, retries): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        self.refuse_too_many_notices(&jobs)?;
        self.complete(&mut jobs, actor).await?;
        let submissions = self.submissions(jobs, actor).await?.into_iter();
        let submissions = submissions
            .zip(retries)
            .map(|(submission, retry_of)| Submission {
                retry_of,
                ..submission
            });
        let submissions = submissions.collect();
        let outcomes = self.ledger().submit_many(submissions).await?;
        for (index, known) in outcomes.iter().enumerate().filter(|(_, one)| !one.created) {
            let checked = self.check_known(known.id.into(), actor.principal()).await;
            checked.map_err(|error| BatchError {
                index: Some(index),
                error,
            })?;
        }
        Ok(outcomes)
    }

    /// Checks and completes what needs more than the job itself.
    async fn complete(&self, jobs: &mut [JobSpec], actor: &Actor) -> Result<(), BatchError> {
        self.judge(jobs, actor).await?;
        for (index, job) in jobs.iter().enumerate() {
            let at = |error| BatchError {
                index: Some(index),
                error,
            };
            self.check_expectations(&job.expect).await.map_err(at)?;
        }
        self.resolve_dependencies(jobs).await
    }

    /// Refuses expectations that cannot be checked.
    pub(super) async fn check_expectations(&self, expect: &[Expectation]) -> Result<(), Error> {
        if expect.is_empty() {
            return Ok(());
        }
        let expect = expect.to_owned();
        self.in_turn(move || check_patterns(&expect)).await?
    }

    /// Replaces the numbers of jobs to wait for by their ids, which stay unique where numbers do not:
    /// in a copy of the data directory. In a submission that is repeated a job may have been deleted since.
    async fn resolve_dependencies(&self, jobs: &mut [JobSpec]) -> Result<(), BatchError> {
        let mut ids = HashMap::new();
        for (index, job) in jobs.iter_mut().enumerate() {
            for (nth, dependency) in job.after.iter_mut().enumerate() {
                let DependencyTarget::Number(number) = dependency.job else {
                    continue;
                };
                let known = match ids.entry(number) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(free) => *free.insert(self.inner.store.job_id(number).await?),
                };
                let id = match (known, job.idempotency_key.as_deref()) {
                    (Some(id), _) => Some(id),
                    (None, Some(key)) => {
                        let store = &self.inner.store;
                        store.deleted_dependency(key, nth, number).await?
                    }
                    (None, None) => None,
                };
                match id {
                    Some(id) => dependency.job = DependencyTarget::Id(id),
                    // Whether the key has a job already, the store decides; it knows no numbers here.
                    None if job.idempotency_key.is_some() => {}
                    None => {
                        let error = SubmitError::UnknownDependency(number.into());
                        let index = Some(index);
                        return Err(BatchRefused { index, error }.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Jobs with what the server decides about them: id, directory, time, and whether the policy takes them. The
    /// jobs of all interfaces come by here.
    async fn submissions(
        &self,
        mut jobs: Vec<JobSpec>,
        actor: &Actor,
    ) -> Result<Vec<Submission>, BatchError> {
        let at = |index: usize| {
            move |error: Error| BatchError {
                index: is_about_a_job(&error).then_some(index),
                error,
            }
        };
        for (index, job) in jobs.iter_mut().enumerate() {
            self.check_secrets(job, actor).map_err(at(index))?;
            job.cwd.get_or_insert_with(|| supervisor::home().to_owned());
        }
        let policies = self.judge_new_jobs(&jobs, actor).await?;
        let submissions = jobs.into_iter().zip(policies).enumerate();
        let submissions = submissions.map(|(index, (job, policy))| {
            Ok(Submission {
                id: JobId(uuid::Uuid::now_v7()),
                retry_of: None,
                fingerprint: fingerprint(&job).map_err(at(index))?,
                policy,
                job,
                actor: actor.to_string(),
                token: actor.principal().token,
                at: clock::now(),
            })
        });
        submissions.collect()
    }

    /// The same for one job.
    pub(super) async fn submission(
        &self,
        job: JobSpec,
        actor: &Actor,
    ) -> Result<Submission, Error> {
        let submissions = self.submissions(vec![job], actor).await;
        let submissions = submissions.map_err(|refused| refused.error)?;
        let submission = submissions.into_iter().next();
        submission.ok_or_else(|| Error::Internal("a job was lost".to_owned()))
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

/// Whether one job of several is refused, rather than all of them.
fn is_about_a_job(error: &Error) -> bool {
    matches!(
        error,
        Error::Policy { .. } | Error::About { .. } | Error::Forbidden { .. }
    )
}

/// Refuses patterns that cannot be searched for, or that take too much memory together.
fn check_patterns(expect: &[Expectation]) -> Result<(), Error> {
    let mut bytes = 0;
    for (nth, expectation) in expect.iter().enumerate() {
        let message = match Assertion::of(expectation) {
            Ok(Assertion::Matches(pattern)) => {
                bytes += pattern.compiled_bytes();
                match bytes > PATTERNS_COMPILED_BYTES_MAX {
                    false => continue,
                    true => format!(
                        "the patterns become larger than {PATTERNS_COMPILED_BYTES_MAX} bytes together: use \
                         smaller repetitions"
                    ),
                }
            }
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        return Err(Error::invalid(message).about(format!("expect[{nth}].regex")));
    }
    Ok(())
}

/// Most memory of all compiled patterns that a job expects, bytes.
const PATTERNS_COMPILED_BYTES_MAX: usize = 4 << 20;

/// The hash of what makes two submissions the same job.
fn fingerprint(job: &JobSpec) -> Result<[u8; 32], Error> {
    let source = job.fingerprint_source();
    let source = source.map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Sha256::digest(source).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobRef;

    #[test]
    fn a_refusal_names_its_key() {
        let expect = ["ok", "("].map(|pattern| Expectation::Regex(pattern.to_owned()));
        let broken = check_patterns(&expect).expect_err("refused").within("job");
        for (refused, named) in [
            (broken, "job.expect[1].regex"),
            (
                SubmitError::UnknownDependency(JobRef::Number(7)).into(),
                "after",
            ),
            (SubmitError::NotAnEarlierEntry(3).into(), "after"),
        ] {
            let text = refused.to_string();
            let Error::About { key, .. } = refused else {
                panic!("{text}");
            };
            assert_eq!(key, named);
            assert!(text.starts_with(&format!("{named}: ")), "{text}");
        }
    }
}
