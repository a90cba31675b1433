//! What MCP clients must find again after a restart: their sessions, and the jobs of lost replies.

use super::{Error, Executor};
use crate::{
    access::{Principal, TokenNumber},
    job::{Job, JobNumber, JobRef, JobSpec, JobState},
    store::{Include, ListFilter},
    supervisor,
};

/// Most live jobs of one client among which an equal one is looked for, the newest.
const LIVE_JOBS_MAX: u32 = 200;

impl Executor {
    /// Stores the opening of a session, JSON.
    pub async fn save_mcp_session(
        &self,
        id: &str,
        opening: String,
        token: Option<TokenNumber>,
    ) -> Result<(), Error> {
        let store = &self.inner.store;
        Ok(store
            .save_mcp_session(id.to_owned(), opening, token)
            .await?)
    }

    /// The token that opened a session; the outer `None`: there is no such session.
    pub async fn token_of_mcp_session(
        &self,
        id: &str,
    ) -> Result<Option<Option<TokenNumber>>, Error> {
        Ok(self.inner.store.token_of_mcp_session(id).await?)
    }

    /// Forgets a session.
    pub async fn delete_mcp_session(&self, id: &str) -> Result<(), Error> {
        Ok(self.inner.store.delete_mcp_session(id.to_owned()).await?)
    }

    /// The opening of a session, JSON; `None` if there is no such session.
    pub async fn mcp_session(&self, id: &str) -> Result<Option<String>, Error> {
        Ok(self.inner.store.mcp_session(id).await?)
    }

    /// Stores that the submitter of this job has been told about it.
    pub async fn set_mcp_answered(&self, job: JobNumber) -> Result<(), Error> {
        Ok(self.inner.store.set_mcp_answered(job).await?)
    }

    /// The job with the idempotency key of `spec`, if it runs the same command in the same directory:
    /// agents that repeat a key may differ in their environment and in where they say they come from.
    pub async fn run_with_key(
        &self,
        spec: &JobSpec,
        principal: &Principal,
    ) -> Result<Option<Job>, Error> {
        match self.check_key(spec, principal).await {
            // The key is in use, and its job is not for this client.
            Err(Error::Conflict(_)) => return Ok(None),
            checked => checked?,
        }
        let Some(key) = spec.idempotency_key.as_deref() else {
            return Ok(None);
        };
        let Some(number) = self.inner.store.job_with_key(key).await? else {
            return Ok(None);
        };
        let job = self.get(JobRef::Number(number), Include::default()).await?;
        Ok(is_same(&job.spec, spec).then_some(job))
    }

    /// The newest live job that has the same command and directory as `spec` and the label
    /// `(key, value)`, and whose submitter may not know of it.
    pub async fn unanswered_run(
        &self,
        spec: &JobSpec,
        (key, value): (&str, &str),
        principal: &Principal,
    ) -> Result<Option<Job>, Error> {
        let live = ListFilter {
            states: JobState::ALL
                .into_iter()
                .filter(|state| !state.is_final())
                .collect(),
            labels: [(key.to_owned(), value.to_owned())].into(),
            limit: LIVE_JOBS_MAX,
            ..ListFilter::default()
        };
        for job in self.list(live, principal).await?.jobs {
            if is_same(&job.spec, spec) && !self.inner.store.is_mcp_answered(job.number).await? {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }
}

/// Whether both run the same command in the same directory.
fn is_same(stored: &JobSpec, new: &JobSpec) -> bool {
    let cwd = new.cwd.as_deref().unwrap_or_else(|| supervisor::home());
    stored.command == new.command && stored.cwd.as_deref() == Some(cwd)
}
