//! Notices as users see them: lists, another attempt, and tests of receivers. `crate::notices`
//! delivers them.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::{Actor, Error, Executor};
use crate::{
    job::{Delivery, JobRef, JobSpec, Notice, NotifyEntry, NotifySecret, NotifyTarget},
    spool::PinnedRun,
    store::{Include, NoticeFilter, NoticeRef, NoticeRetried},
    sys::clock,
};

/// How many notices there are that have not been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NoticeTotals {
    /// They wait for their delivery.
    pub waiting: u64,
    /// They were given up, and are still kept.
    pub given_up: u64,
}

/// Whose receivers are tested.
#[derive(Debug, Clone, PartialEq)]
pub enum TestReceivers {
    /// Those of a job.
    Job(JobRef),
    /// Those of a queue's defaults.
    Queue(String),
    /// This one.
    One(NotifyEntry),
}

/// The result of testing one receiver.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TestResult {
    /// The id that it got.
    pub id: String,
    /// The command; `None` for a URL.
    pub argv: Option<Vec<String>>,
    /// The URL; `None` for a command.
    pub url: Option<String>,
    /// Whether it has taken the notice.
    pub delivered: bool,
    /// Why it has not.
    pub error: Option<String>,
    /// How long the attempt took, milliseconds.
    pub elapsed_ms: u64,
}

impl Executor {
    /// How many notices wait, and how many were given up.
    pub fn notice_totals(&self) -> NoticeTotals {
        NoticeTotals {
            waiting: self.inner.store.notices_waiting(),
            given_up: self.inner.store.notices_given_up(),
        }
    }

    /// Up to `filter.limit` notices that match, the newest first; those of `job`, if there is one.
    pub async fn notices(
        &self,
        mut filter: NoticeFilter,
        job: Option<JobRef>,
    ) -> Result<Vec<Notice>, Error> {
        filter.job = match job {
            // Of a deleted job, too: its notices outlive it.
            Some(JobRef::Number(number)) => Some(number),
            Some(JobRef::Id(id)) => {
                let number = self.inner.store.job_number(id).await?;
                Some(number.ok_or_else(|| Error::no_such_job(JobRef::Id(id)))?)
            }
            None => None,
        };
        Ok(self.inner.store.notices(&filter).await?)
    }

    /// Makes a notice due now, with all the attempts that a new one has.
    pub async fn retry_notice(&self, notice: NoticeRef) -> Result<(), Error> {
        match self.ledger().retry_notice(notice, clock::now()).await? {
            NoticeRetried::Done => Ok(()),
            NoticeRetried::Delivered => Err(Error::Conflict(
                "the notice was delivered; what it said is not kept".to_owned(),
            )),
            NoticeRetried::NotFound => Err(Error::NotFound(
                "there is no such notice; a list of the notices shows which there are".to_owned(),
            )),
        }
    }

    /// Sends a test to these receivers, once to each, one after the other; nothing is stored.
    pub async fn test_receivers(
        &self,
        receivers: TestReceivers,
        actor: &Actor,
    ) -> Result<Vec<TestResult>, Error> {
        let queue = match &receivers {
            TestReceivers::Queue(queue) => Some(queue.clone()),
            TestReceivers::Job(_) | TestReceivers::One(_) => None,
        };
        let receivers = self.receivers(receivers).await?;
        let pinned = self.judge_receivers(&receivers, queue.as_deref(), actor);
        let pinned = pinned.await?;
        let target = json!({"receivers": receivers.len(), "queue": queue});
        self.note("notice.test", target, json!({})).await?;
        let mut results = Vec::new();
        for (receiver, pinned) in receivers.into_iter().zip(pinned) {
            let tested = self.test_receiver(receiver, pinned.as_ref(), queue.as_deref());
            results.push(tested.await?);
        }
        Ok(results)
    }

    async fn receivers(&self, receivers: TestReceivers) -> Result<Vec<NotifyEntry>, Error> {
        let (found, what) = match receivers {
            TestReceivers::One(entry) => return Ok(vec![entry]),
            TestReceivers::Job(job) => {
                let include = Include {
                    notify_secrets: true,
                    ..Include::default()
                };
                let found = self.inner.store.job(job, include).await?;
                let found = found.ok_or_else(|| Error::no_such_job(job))?;
                (found.spec.notify, format!("job {job} has"))
            }
            TestReceivers::Queue(queue) => {
                let queues = self.inner.store.queues().await?;
                if !queues.iter().any(|one| one.name == queue) {
                    return Err(Error::no_such_queue(&queue));
                }
                let job = json!({"argv": ["true"], "queue": queue});
                let job = job.as_object().cloned().unwrap_or_default();
                let job = self.read_new_job(&job);
                let job = job.map_err(|wrong| Error::Internal(wrong.to_string()))?;
                let JobSpec { notify, queue, .. } = job;
                (notify, format!("the defaults of queue {queue:?} have"))
            }
        };
        match found.is_empty() {
            true => Err(Error::Conflict(format!(
                "{what} no notify: there is nobody to test"
            ))),
            false => Ok(found),
        }
    }

    async fn test_receiver(
        &self,
        receiver: NotifyEntry,
        pinned: Option<&PinnedRun>,
        queue: Option<&str>,
    ) -> Result<TestResult, Error> {
        let id = format!("test_{}", uuid::Uuid::now_v7());
        let began = clock::now();
        let body = json!({"type": "test", "timestamp": began, "data": {"id": id, "queue": queue}});
        let secret = match receiver.secret {
            NotifySecret::Known(secret) => Some(secret),
            NotifySecret::None | NotifySecret::Hidden => None,
        };
        let delivery = Delivery {
            id,
            target: receiver.target,
            secret,
            body: body.to_string(),
        };
        let (sent, elapsed) = timed(self.inner.notices.test(&delivery, pinned)).await;
        let (argv, url) = match delivery.target {
            NotifyTarget::Argv(argv) => (Some(argv), None),
            NotifyTarget::Url(url) => (None, Some(url)),
        };
        Ok(TestResult {
            id: delivery.id,
            argv,
            url,
            delivered: sent.is_ok(),
            error: sent.err().map(|failure| failure.error),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Has the requests of a new job that have no secret signed with those of another job, for the same states
    /// and the same receiver. No interface shows secrets, so a client that submits a job once more with
    /// changes cannot send them.
    pub async fn sign_like(
        &self,
        job: &mut JobSpec,
        other: JobRef,
        actor: &Actor,
    ) -> Result<(), Error> {
        self.check_reach(actor.principal(), other).await?;
        let include = Include {
            notify_secrets: true,
            ..Include::default()
        };
        let other_job = self.inner.store.job(other, include).await?;
        let other_job = other_job.ok_or_else(|| Error::no_such_job(other))?;
        let unsigned = job.notify.iter_mut();
        for entry in unsigned.filter(|entry| entry.secret == NotifySecret::None) {
            let same =
                |other: &&NotifyEntry| (other.on, &other.target) == (entry.on, &entry.target);
            if let Some(same) = other_job.spec.notify.iter().find(same) {
                entry.secret = same.secret.clone();
            }
        }
        Ok(())
    }

    /// Refuses jobs that ask for notices while too many wait: their receivers do not take them.
    pub(super) fn refuse_too_many_notices(&self, jobs: &[JobSpec]) -> Result<(), Error> {
        let max = self.inner.notices.settings().waiting_max;
        let waiting = self.inner.store.notices_waiting();
        if waiting < max || jobs.iter().all(|job| job.notify.is_empty()) {
            return Ok(());
        }
        Err(Error::Limit {
            limit: "notices_waiting_max".into(),
            message: format!(
                "{waiting} notices wait for their delivery, and up to {max} may (notices_waiting_max); \
                 a list of the notices shows why, or leave notify out"
            ),
        })
    }
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = tokio::time::Instant::now();
    let done = work.await;
    (done, began.elapsed())
}
