//! Judges what a client asks for by its rights: every new job, whatever door it came through, and the jobs
//! that a request names.

use std::collections::btree_map::Entry;

use super::{Actor, BatchError, Error, Executor};
use crate::{
    access::{AccessDenied, OutOfReach, Principal},
    job::{DependencyTarget, JobChange, JobRef, JobSpec},
};

impl Executor {
    /// Refuses a job that the client's token does not reach. One that does not exist is not refused here.
    pub async fn check_reach(&self, principal: &Principal, job: JobRef) -> Result<(), Error> {
        if principal.grant.reach.is_all() {
            return Ok(());
        }
        let Some(place) = self.inner.store.job_place(job).await? else {
            return Ok(());
        };
        let checked = principal.grant.reach.check(&place);
        checked.map_err(|why| out_of_reach(principal, job, &why))
    }

    /// Judges new jobs, and completes them by the labels that the client's token is narrowed by.
    pub(super) async fn judge(
        &self,
        jobs: &mut [JobSpec],
        actor: &Actor,
    ) -> Result<(), BatchError> {
        let principal = actor.principal();
        if !principal.grant.reach.is_all() {
            for (index, job) in jobs.iter_mut().enumerate() {
                let judged = self.judge_one(job, principal).await;
                judged.map_err(|error| BatchError {
                    index: Some(index),
                    error,
                })?;
            }
        }
        Ok(principal.count_jobs(jobs.len()).map_err(Error::from)?)
    }

    async fn judge_one(&self, job: &mut JobSpec, principal: &Principal) -> Result<(), Error> {
        check_queue(principal, &job.queue)?;
        for (key, value) in &principal.grant.reach.labels {
            match job.labels.entry(key.clone()) {
                Entry::Vacant(free) => drop(free.insert(value.clone())),
                Entry::Occupied(own) if own.get() == value => {}
                Entry::Occupied(_) => return Err(wrong_label(principal, key, value)),
            }
        }
        for dependency in &job.after {
            match dependency.job {
                DependencyTarget::Id(id) => self.check_reach(principal, id.into()).await?,
                DependencyTarget::Number(number) => {
                    self.check_reach(principal, number.into()).await?;
                }
                DependencyTarget::Entry(_) => {}
            }
        }
        self.check_key(job, principal).await
    }

    /// A known key returns the job that has it, which the token must reach.
    pub(super) async fn check_key(
        &self,
        job: &JobSpec,
        principal: &Principal,
    ) -> Result<(), Error> {
        let Some(key) = job.idempotency_key.as_deref() else {
            return Ok(());
        };
        if principal.grant.reach.is_all() {
            return Ok(());
        }
        let Some(number) = self.inner.store.job_with_key(key).await? else {
            return Ok(());
        };
        self.check_known(number.into(), principal).await
    }

    /// Refuses the job that a known key has named, unless the token reaches it. Asked after the commit, too:
    /// another client may have used the key meanwhile.
    pub(super) async fn check_known(
        &self,
        job: JobRef,
        principal: &Principal,
    ) -> Result<(), Error> {
        let reached = self.check_reach(principal, job).await;
        reached.map_err(|error| match error {
            Error::Forbidden { .. } => Error::Conflict(format!(
                "the idempotency key belongs to a job that the token {:?} does not reach; use another key",
                &*principal.name
            )),
            error => error,
        })
    }
}

/// Refuses a change that would take a job out of the reach of the client's token.
pub(super) fn judge_change(change: &JobChange, principal: &Principal) -> Result<(), Error> {
    if let Some(queue) = &change.queue {
        check_queue(principal, queue)?;
    }
    let Some(labels) = &change.labels else {
        return Ok(());
    };
    let mut kept = principal.grant.reach.labels.iter();
    match kept.find(|(key, value)| labels.get(key) != Some(value)) {
        Some((key, value)) => Err(wrong_label(principal, key, value)),
        None => Ok(()),
    }
}

/// Refuses a queue that is not one of the token's.
fn check_queue(principal: &Principal, queue: &str) -> Result<(), Error> {
    let reach = &principal.grant.reach;
    if reach.has_queue(queue) {
        return Ok(());
    }
    let queues: Vec<&str> = reach.queues.iter().flatten().map(String::as_str).collect();
    Err(Error::Forbidden {
        rule: "token.queues".to_owned(),
        message: format!(
            "queue: the token {:?} is for the queues {}, not for {queue:?}",
            &*principal.name,
            queues.join(", ")
        ),
    })
}

fn wrong_label(principal: &Principal, key: &str, value: &str) -> Error {
    Error::Forbidden {
        rule: "token.labels".to_owned(),
        message: format!(
            "labels: jobs of the token {:?} have the label {key}={value}; leave the key out of a new job, \
             and in with a change",
            &*principal.name
        ),
    }
}

fn out_of_reach(principal: &Principal, job: JobRef, why: &OutOfReach) -> Error {
    Error::Forbidden {
        rule: why.rule().to_owned(),
        message: format!(
            "job {job} is beyond the reach of the token {:?}: {why}",
            &*principal.name
        ),
    }
}

impl From<AccessDenied> for Error {
    fn from(denied: AccessDenied) -> Self {
        let message = denied.to_string();
        match denied {
            AccessDenied::Scope { .. } => Self::Forbidden {
                rule: "token.scope".to_owned(),
                message,
            },
            AccessDenied::Rate(_) => Self::Limit {
                limit: "token_rate".into(),
                message,
            },
        }
    }
}
