//! The policy at the entry: every door's jobs are judged here before anything is stored.

use serde_json::json;

use super::{Actor, Error, Executor};
use crate::{
    job::{JobChange, JobRef, JobSpec, NotifyEntry, PolicyRecord, Requester},
    policy::{PolicyError, PolicyStatus},
    store::Include,
    supervisor::{self, PolicyRefusal},
};

impl Executor {
    /// What is in force.
    pub fn policy_status(&self) -> PolicyStatus {
        let guard = &self.inner.supervisor.context().policy;
        guard
            .as_ref()
            .map_or_else(PolicyStatus::none, |guard| guard.status())
    }

    /// Loads the policy's file once more and puts it in force; jobs that wait are judged by it when they are
    /// claimed.
    ///
    /// # Errors
    ///
    /// There is no policy, or its file is wrong: then the one before stays in force.
    pub async fn reload_policy(&self) -> Result<PolicyStatus, Error> {
        let Some(guard) = &self.inner.supervisor.context().policy else {
            return Err(Error::Conflict(
                "the server has no policy; start it with --policy FILE".to_owned(),
            ));
        };
        match guard.reload() {
            Ok(status) => {
                self.note_policy("policy.reload", &status).await?;
                tracing::info!(
                    digest = status.digest,
                    rules = status.rules,
                    "the policy is loaded"
                );
                Ok(status)
            }
            Err(error) => {
                tracing::error!(%error, "the policy before stays in force");
                Err(not_loaded(&error))
            }
        }
    }

    /// Adds to the audit trail which policy is in force.
    pub(super) async fn note_policy(
        &self,
        action: &'static str,
        status: &PolicyStatus,
    ) -> Result<(), Error> {
        let target = json!({"policy": status.digest});
        self.note(action, target, json!({"rules": status.rules}))
            .await
    }

    /// Judges a new job. Where there is no policy, it tells who asked for the job, as far as a later
    /// policy would not know: `None` is the admin.
    pub(super) fn judge_new_job(
        &self,
        job: &JobSpec,
        actor: &Actor,
    ) -> Result<Option<PolicyRecord>, Error> {
        let requester = actor.requester();
        match &self.inner.supervisor.context().policy {
            Some(guard) => Ok(Some(supervisor::judge_job(guard, job, &requester)?.record)),
            None if requester.name == Requester::ADMIN => Ok(None),
            None => Ok(Some(PolicyRecord {
                decision: None,
                requester,
            })),
        }
    }

    /// Judges a job as it will be after a change that the policy may ask about.
    pub(super) async fn judge_change(
        &self,
        job: JobRef,
        change: &mut JobChange,
        actor: &Actor,
    ) -> Result<(), Error> {
        let is_judged = change.queue.is_some() || change.priority.is_some();
        if self.inner.supervisor.context().policy.is_none() || !is_judged {
            return Ok(());
        }
        let include = Include {
            env: true,
            ..Include::default()
        };
        let Some(stored) = self.inner.store.job(job, include).await? else {
            return Ok(());
        };
        let mut spec = JobSpec {
            env: stored.env.unwrap_or_default(),
            ..stored.spec
        };
        spec.queue = change.queue.clone().unwrap_or(spec.queue);
        spec.priority = change.priority.unwrap_or(spec.priority);
        change.policy = self.judge_new_job(&spec, actor)?;
        Ok(())
    }

    /// Judges commands that the server would run at once.
    pub(super) fn judge_receivers(
        &self,
        receivers: &[NotifyEntry],
        queue: Option<&str>,
        actor: &Actor,
    ) -> Result<(), Error> {
        let Some(guard) = &self.inner.supervisor.context().policy else {
            return Ok(());
        };
        let queue = queue.unwrap_or(JobSpec::QUEUE);
        Ok(supervisor::judge_receivers(
            guard,
            receivers,
            queue,
            &actor.requester(),
        )?)
    }
}

fn not_loaded(error: &PolicyError) -> Error {
    Error::Invalid {
        message: format!("{error}; the policy before stays in force"),
        output_bytes: None,
    }
}

impl From<PolicyRefusal> for Error {
    fn from(refusal: PolicyRefusal) -> Self {
        let PolicyRefusal {
            rule,
            digest,
            message,
        } = refusal;
        Self::Policy {
            rule,
            digest,
            message,
        }
    }
}
