//! Submits final jobs once more, as new jobs. The old ones are not changed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Actor, BatchError, Error, Executor, SubmitOutcome, Tie};
use crate::{
    job::{
        Dependency, DependencyTarget, Job, JobId, JobNumber, JobRef, JobSpec, JobState,
        OnDisconnect,
    },
    store::{Include, RetryKin},
};

/// Most jobs that one retry submits, with all that depend on the first.
const RETRIES_MAX: usize = 10_000;

impl Executor {
    /// A new job with the same NewJob, environment and stdin included, but for the idempotency key;
    /// `retry_of` names the old one. Inputs are not sent again. It waits for the newest retries of the
    /// jobs that the old one waited for. `on_disconnect` takes the place of the old one's.
    pub async fn retry(
        &self,
        job: JobRef,
        on_disconnect: Option<OnDisconnect>,
        actor: &Actor,
    ) -> Result<Job, Error> {
        let old = self.to_retry(job).await?;
        let mut again = self.again(&old, &HashMap::new()).await?;
        again.on_disconnect = on_disconnect.unwrap_or(again.on_disconnect);
        self.check_ties(std::slice::from_ref(&again))?;
        let submitted = self.submit_as(again, Some(old.id), actor).await;
        Ok(submitted.map_err(|error| without_queue(&old, error))?.job)
    }

    /// The same for a job and all that depend on it, directly or not, and have not succeeded: all in
    /// one commit, the first one first. The new ones wait for each other as the old ones did. A job that
    /// was tried again before counts once: what depends on any of its retries depends on it, and its
    /// newest retry is the one that is tried again. Also returns how the new ones are tied.
    ///
    /// # Errors
    ///
    /// One of them is not final; then nothing is stored.
    pub async fn retry_with_dependants(
        &self,
        job: JobRef,
        on_disconnect: Option<OnDisconnect>,
        actor: &Actor,
    ) -> Result<(Vec<SubmitOutcome>, Vec<Tie>), BatchError> {
        let mut old = vec![self.to_retry(job).await?];
        let mut together = HashMap::new();
        for kin in self.with_dependants(old[0].number).await?.values() {
            let is_first = kin.iter().any(|one| one.id == old[0].id);
            let meant = match (is_first, kin.last()) {
                (true, _) => old[0].id,
                (false, None) => continue,
                (false, Some(newest)) => {
                    let job = self.inner.store.job(newest.id.into(), ALL).await?;
                    let Some(job) = job.filter(|job| job.state != JobState::Succeeded) else {
                        continue;
                    };
                    self.check_reach(actor.principal(), job.id.into()).await?;
                    old.push(job);
                    newest.id
                }
            };
            together.extend(kin.iter().map(|one| (one.id, meant)));
        }
        let mut jobs = Vec::with_capacity(old.len());
        for job in &old {
            if !job.state.is_final() {
                return Err(Error::not_final(job, "tried again").into());
            }
            let mut again = self.again(job, &together).await?;
            again.on_disconnect = on_disconnect.unwrap_or(again.on_disconnect);
            jobs.push((again, Some(job.id)));
        }
        let jobs = in_order(jobs);
        let delays: Vec<_> = jobs.iter().map(|(job, _)| Tie::delay(job)).collect();
        let outcomes = self.submit_all_as(jobs, actor).await?;
        let ties = outcomes.iter().zip(delays).filter_map(|(outcome, delay)| {
            let job = outcome.number;
            delay.map(|delay| Tie { job, delay })
        });
        let ties = ties.collect();
        Ok((outcomes, ties))
    }

    async fn to_retry(&self, job: JobRef) -> Result<Job, Error> {
        let old = self.inner.store.job(job, ALL).await?;
        let old = old.ok_or_else(|| Error::no_such_job(job))?;
        match old.state.is_final() {
            true => Ok(old),
            false => Err(Error::not_final(&old, "tried again")),
        }
    }

    /// The NewJob of a job, to be submitted once more: it waits for the newest retries of the jobs that
    /// the old one waited for. `together` has the ids of the jobs that are tried again with it, each with
    /// the id of the one that is meant by it.
    async fn again(&self, old: &Job, together: &HashMap<JobId, JobId>) -> Result<JobSpec, Error> {
        let again = old.resubmission();
        let mut again =
            again.ok_or_else(|| Error::Internal("a job was read in part".to_owned()))?;
        let (mut after, mut any_deleted) = (Vec::with_capacity(again.after.len()), false);
        for mut dependency in again.after {
            let DependencyTarget::Id(id) = dependency.job else {
                continue;
            };
            let target = match together.get(&id) {
                Some(meant) => Some(*meant),
                None => self.newest(id).await?,
            };
            match target {
                Some(target) => {
                    dependency.job = DependencyTarget::Id(target);
                    after.push(dependency);
                }
                // It was final, so there is nothing to wait for.
                None => any_deleted = true,
            }
        }
        if any_deleted && let Some(on) = self.inner.store.deleted_unmet(old.number).await? {
            return Err(Error::Conflict(format!(
                "job {} needs job {on} to succeed, which has not, and was deleted; submit it anew, without that \
                 job in its after",
                old.number
            )));
        }
        again.after = after;
        Ok(again)
    }

    /// The end of the chain of retries that begins with this job, if it still exists.
    async fn newest(&self, mut job: JobId) -> Result<Option<JobId>, Error> {
        while let Some(newer) = self.inner.store.newest_retry(job).await? {
            job = newer;
        }
        let found = self.inner.store.job(job.into(), Include::default()).await?;
        Ok(found.map(|job| job.id))
    }

    /// This job and those that depend on it, directly or not; each with all its retries, in the order of
    /// their numbers, under the number of the first of them.
    async fn with_dependants(
        &self,
        job: JobNumber,
    ) -> Result<BTreeMap<JobNumber, Vec<RetryKin>>, Error> {
        let mut all: BTreeMap<JobNumber, Vec<RetryKin>> = BTreeMap::new();
        let mut found = vec![job];
        while !found.is_empty() {
            let mut new = Vec::new();
            for one in self.inner.store.retry_kin(&found).await? {
                let kin = all.entry(one.origin).or_default();
                if !kin.contains(&one) {
                    kin.push(one);
                    new.push(one.number);
                }
            }
            if all.len() > RETRIES_MAX {
                return Err(Error::Limit {
                    limit: "retries_max".into(),
                    message: format!(
                        "more than {RETRIES_MAX} jobs depend on it; try some of them again by themselves"
                    ),
                });
            }
            found = self.inner.store.dependants(&new).await?;
        }
        Ok(all)
    }
}

/// The jobs in an order in which each comes after those that it waits for, which it names by their
/// place then. `jobs` are retries of the jobs with these ids.
fn in_order(jobs: Vec<(JobSpec, Option<JobId>)>) -> Vec<(JobSpec, Option<JobId>)> {
    let count = jobs.len();
    let mut left: VecDeque<_> = jobs.into();
    let old: HashSet<JobId> = left.iter().filter_map(|(_, id)| *id).collect();
    let mut places: HashMap<JobId, usize> = HashMap::new();
    let mut ordered = Vec::with_capacity(count);
    // There is no circle among jobs that were stored: every round places one.
    let mut passed = 0;
    while let Some((mut job, id)) = left.pop_front() {
        let waits = |dependency: &Dependency| match dependency.job {
            DependencyTarget::Id(on) => old.contains(&on) && !places.contains_key(&on),
            DependencyTarget::Number(_) | DependencyTarget::Entry(_) => false,
        };
        if passed < left.len() && job.after.iter().any(waits) {
            left.push_back((job, id));
            passed += 1;
            continue;
        }
        passed = 0;
        for dependency in &mut job.after {
            if let DependencyTarget::Id(on) = dependency.job
                && let Some(place) = places.get(&on)
            {
                dependency.job = DependencyTarget::Entry(*place);
            }
        }
        places.extend(id.map(|id| (id, ordered.len())));
        ordered.push((job, id));
    }
    ordered
}

/// All of a job, as it is submitted again.
const ALL: Include = Include {
    env: true,
    stdin: true,
    notify_secrets: true,
};

/// The old job exists, so it is its queue that does not.
fn without_queue(old: &Job, error: Error) -> Error {
    match error {
        Error::NotFound(_) => Error::Conflict(format!(
            "the queue {:?} of job {} was deleted; make it again, or submit the job anew in another one",
            old.spec.queue, old.number
        )),
        error => error,
    }
}
