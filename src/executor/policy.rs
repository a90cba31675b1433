//! The policy at the entry: every door's jobs are judged here before anything is stored.

use serde_json::json;

use super::{Actor, BatchError, Ceased, Error, Executor};
use crate::{
    job::{JobChange, JobRef, JobSpec, NotifyEntry, PolicyRecord, Requester},
    policy::{NotJudged, PolicyError, PolicyStatus},
    spool::PinnedRun,
    store::Include,
    supervisor::{JudgedJob, JudgedReceivers, PolicyRefusal},
    sys::threads::blocking,
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
        let guard = guard.clone();
        // It looks for the programs of all rules, which may be anywhere.
        let reloaded = blocking(move || Ok(guard.reload())).await;
        match reloaded.map_err(|error| Error::Internal(error.to_string()))? {
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

    /// Tells in the log and in the audit trail what the last server had in force and this one has not.
    pub(super) async fn note_ceased(&self, ceased: &Ceased) -> Result<(), Error> {
        if let Some(file) = &ceased.policy {
            let file = file.display().to_string();
            tracing::warn!(
                file,
                "the last server of this data directory had a policy; this one has none, and every job is allowed"
            );
            let target = json!({"policy": null});
            self.note("policy.cease", target, json!({"file": file}))
                .await?;
        }
        if ceased.secrets {
            tracing::warn!(
                "the last server of this data directory had secrets that this one does not have; jobs that refer to \
                 them cannot start"
            );
            self.note("secrets.cease", json!({}), json!({})).await?;
        }
        Ok(())
    }

    /// Judges new jobs, all with the same policy. Where there is none, it tells who asked for each job, as far
    /// as a later policy would not know: `None` is the admin.
    ///
    /// # Errors
    ///
    /// The first job that is refused.
    pub(super) async fn judge_new_jobs(
        &self,
        jobs: &[JobSpec],
        actor: &Actor,
    ) -> Result<Vec<Option<PolicyRecord>>, BatchError> {
        let requester = actor.requester();
        let Some(guard) = &self.inner.supervisor.context().policy else {
            let unknown = (requester.name != Requester::ADMIN).then_some(PolicyRecord {
                decision: None,
                requester,
            });
            return Ok(vec![unknown; jobs.len()]);
        };
        let jobs = jobs.iter().map(|job| JudgedJob::of(job, &requester));
        let jobs: Vec<JudgedJob> = jobs.collect();
        let judged = guard.judged(move |policy| {
            let judged = jobs.iter().enumerate();
            let judged = judged.map(|(index, job)| match job.judge(policy) {
                Ok(taken) => Ok(Some(taken.record)),
                Err(refusal) => Err((index, refusal)),
            });
            judged.collect::<Result<Vec<_>, _>>()
        });
        let judged = judged.await.map_err(Error::from)?;
        judged.map_err(|(index, refusal)| BatchError {
            index: Some(index),
            error: refusal.into(),
        })
    }

    /// The same for one job.
    pub(super) async fn judge_new_job(
        &self,
        job: &JobSpec,
        actor: &Actor,
    ) -> Result<Option<PolicyRecord>, Error> {
        let judged = self.judge_new_jobs(std::slice::from_ref(job), actor).await;
        let judged = judged.map_err(|refused| refused.error)?;
        Ok(judged.into_iter().next().flatten())
    }

    /// Judges a job as it will be after a change that the policy may ask about: for the client that changes it,
    /// and for the one that asked for the job, who stays its requester.
    pub(super) async fn judge_change(
        &self,
        job: JobRef,
        change: &mut JobChange,
        actor: &Actor,
    ) -> Result<(), Error> {
        let is_judged = change.queue.is_some() || change.priority.is_some();
        let Some(guard) = &self.inner.supervisor.context().policy else {
            return Ok(());
        };
        if !is_judged {
            return Ok(());
        }
        let include = Include {
            env: true,
            ..Include::default()
        };
        let Some(stored) = self.inner.store.job(job, include).await? else {
            return Ok(());
        };
        let asked_by = stored.policy.map(|record| record.requester);
        let asked_by = asked_by.unwrap_or_else(Requester::default_one);
        let mut spec = JobSpec {
            env: stored.env.unwrap_or_default(),
            ..stored.spec
        };
        spec.queue = change.queue.clone().unwrap_or(spec.queue);
        spec.priority = change.priority.unwrap_or(spec.priority);
        let for_both =
            [&actor.requester(), &asked_by].map(|requester| JudgedJob::of(&spec, requester));
        let judged = guard.judged(move |policy| {
            let [changed, asked] = &for_both;
            changed.judge(policy)?;
            asked.judge(policy)
        });
        change.policy = Some(judged.await??.record);
        Ok(())
    }

    /// Judges receivers that the server would tell at once; of each command what may be run.
    pub(super) async fn judge_receivers(
        &self,
        receivers: &[NotifyEntry],
        queue: Option<&str>,
        actor: &Actor,
    ) -> Result<Vec<Option<PinnedRun>>, Error> {
        let Some(guard) = &self.inner.supervisor.context().policy else {
            return Ok(vec![None; receivers.len()]);
        };
        let queue = queue.unwrap_or(JobSpec::QUEUE);
        let receivers = JudgedReceivers::of(receivers, queue, &actor.requester());
        let judged = guard.judged(move |policy| receivers.judge(policy));
        Ok(judged.await??)
    }
}

fn not_loaded(error: &PolicyError) -> Error {
    Error::Invalid {
        message: format!("{error}; the policy before stays in force"),
        output_bytes: None,
    }
}

impl From<NotJudged> for Error {
    fn from(error: NotJudged) -> Self {
        Self::Unavailable(error.to_string())
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
