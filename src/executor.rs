//! The API of the server in plain Rust types: submit, read, tail, wait, control. The protocol's
//! methods call it, and so does every in-process test.
//!
//! Wire formats, sessions and HTTP are in `protocol`.

mod actor;
mod admission;
mod audit;
mod backup;
mod change;
mod control;
mod disconnect;
mod error;
mod explain;
mod input;
mod judge;
mod last_input;
pub mod log_events;
mod mcp;
mod notices;
mod policy;
mod query;
mod queues;
mod quiet;
mod read;
mod retention;
mod retry;
mod schedules;
mod search;
mod secrets;
mod start;
mod submit;
mod timekeeper;
mod tokens;
mod turns;
mod until;
mod usage;
mod verify;
mod wait;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{
    backup::Backups, disconnect::Ties, last_input::LastInputs, retention::RetentionRuns,
    schedules::ScheduleChanges, search::Searches, usage::UsageCache, verify::Verifies,
};
use crate::{
    access::{ClientOrigin, Principal},
    job::{Job, JobNumber, JobRef, Micros},
    notices::Notices,
    output::{Hub, Log},
    query::Queries,
    scheduler::Wakeup,
    store::Store,
    supervisor::Supervisor,
};

pub use crate::notices::NoticeSettings;
pub use crate::output::{
    Assertion, Observed, Pattern, PatternError, StartAt, TailEvent, TailOptions,
    line_search::{FoundLine, LINE_MATCH_BYTES_MAX, pattern::LinePattern, position::LinePosition},
    search::MATCH_BYTES_MAX,
    verify::assertions::TEXT_BYTES_MAX,
};
pub use crate::policy::PolicyStatus;
pub use crate::query::{QueryAnswer, QueryParams};
pub use crate::store::{
    AuditKeyRow, AuditPage, AuditRow, Counts, Include, JobPage, ListFilter, NewToken, NoticeFilter,
    NoticeRef, StoredToken, SubmitOutcome, TokenChange,
};
pub use crate::supervisor::WantedLevel;
pub use actor::Actor;
pub use audit::{AuditSettings, CheckpointHealth};
pub use backup::Backup;
pub use control::Action;
pub use disconnect::{TIED_JOBS_MAX, Tie};
pub use error::{BatchError, Error};
pub use explain::Explanation;
pub use notices::{NoticeTotals, TestReceivers, TestResult};
pub use read::{Read, ReadItem, ReadOptions, Tail};
pub use retention::{PruneOptions, Pruned, RetentionSettings};
pub use schedules::{ScheduleError, ScheduleView};
pub use search::{
    SearchBound, SearchCursor, SearchHit, SearchOptions, SearchResult, SearchScope, SearchSettings,
    SearchTurn,
};
pub use start::{Ceased, ExecutorSettings, StartError};
pub use submit::{PreparedJob, Submitted};
pub use turns::SessionTurns;
pub use until::Until;
pub use usage::{DiskTotals, DiskUsage};
pub use verify::VerifySettings;
pub use wait::{Decision, WaitOptions, Waited};

/// Facts about the server as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// The program's version (`CARGO_PKG_VERSION`).
    pub version: &'static str,
    /// Since when it serves.
    pub started_at: Micros,
    /// `A` (a control group for each attempt) or `B` (the process tree below a shim).
    pub isolation: &'static str,
    /// Why it is not level A; `None` where it is.
    pub isolation_reason: Option<String>,
    /// How many jobs are in each state.
    pub counts: Counts,
    /// The data directory's instance: a copy of the directory gets another one.
    pub instance: String,
    /// The epoch of this server: each start gets a higher one.
    pub epoch: u64,
    /// How many notices wait for their delivery, and how many were given up.
    pub notices: NoticeTotals,
    /// The last checkpoint of the audit trail; `None`: none are made.
    pub audit: Option<CheckpointHealth>,
    /// What stays free on the data directory's file system, bytes: the setting or its default.
    pub free_bytes_min: u64,
    /// The size of the disk reserve, bytes; 0: none is kept; `None`: it cannot be examined now.
    pub ballast_bytes: Option<u64>,
}

/// The executor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Executor {
    inner: Arc<ExecutorInner>,
    /// For whom it writes; `None`: for the server itself.
    origin: Option<Arc<ClientOrigin>>,
}

#[derive(Debug)]
struct ExecutorInner {
    store: Store,
    hub: Hub,
    log: Log,
    supervisor: Supervisor,
    wakeup: Wakeup,
    defaults: queues::Defaults,
    ties: Ties,
    schedules: ScheduleChanges,
    /// Cancelled when no schedule fires any more.
    schedules_stopped: CancellationToken,
    last_inputs: LastInputs,
    backups: Backups,
    /// Slots for waits, verifications and searches that read output.
    read_slots: Semaphore,
    /// Slots for turns of work on output that keep a processor busy.
    search_slots: Arc<Semaphore>,
    queries: Queries,
    verifies: Verifies,
    searches: Searches,
    retention: RetentionRuns,
    usage: UsageCache,
    notices: Notices,
    audit: audit::AuditRuns,
    started_at: Micros,
}

/// Why a server must end without a request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The database has failed, and nothing may be acknowledged any more.
    Ledger,
    /// A vital task has panicked.
    Task,
}

impl Executor {
    /// Longest chunk that a tail or a read returns, bytes.
    pub const CHUNK_BYTES_MAX: usize = crate::output::tail::CHUNK_BYTES_MAX;

    /// A job as it is now, with the exact length of its output.
    pub async fn get(&self, job: JobRef, include: Include) -> Result<Job, Error> {
        let stored = self.inner.store.job(job, include).await?;
        let stored = stored.ok_or_else(|| Error::no_such_job(job))?;
        if !stored.state.is_active() {
            return Ok(stored);
        }
        let now = self.snapshot(stored.number).await?;
        Ok(Job {
            env: stored.env,
            stdin: stored.stdin,
            ..now
        })
    }

    /// Jobs that match and that the client reaches, newest first. Running ones have the exact length of their output, as in
    /// `get`: there are never more of those than there are slots.
    pub async fn list(
        &self,
        mut filter: ListFilter,
        principal: &Principal,
    ) -> Result<JobPage, Error> {
        filter.reach = principal.grant.reach.clone();
        let mut page = self.inner.store.list(filter).await?;
        for job in &mut page.jobs {
            if job.state.is_active() {
                let (log, number) = (&self.inner.log, job.number);
                // If a segment cannot be read, the list still shows the job.
                if let Ok(Some(end)) = log.open_end(number, job.output_bytes).await {
                    end.apply_to(job);
                }
            }
        }
        Ok(page)
    }

    /// Facts about the server as a whole.
    pub async fn info(&self) -> Result<Info, Error> {
        let ctx = self.inner.supervisor.context();
        Ok(Info {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.inner.started_at,
            isolation: ctx.isolation.level(),
            isolation_reason: ctx.isolation.reason().map(str::to_owned),
            counts: self.inner.store.counts().await?,
            instance: ctx.instance.clone(),
            epoch: ctx.epoch,
            notices: self.notice_totals(),
            audit: self.checkpoint_health(),
            free_bytes_min: ctx.bounds.free_bytes_min,
            ballast_bytes: self.inner.store.disk_reserve().bytes().ok(),
        })
    }

    /// How many jobs are not final.
    pub async fn live_jobs(&self) -> Result<u64, Error> {
        let counts = self.inner.store.counts().await?;
        Ok(counts
            .iter()
            .filter(|(state, _)| !state.is_final())
            .map(|(_, count)| count)
            .sum())
    }

    /// Resolves when the database has failed in a way that allows no further acknowledgement (an
    /// I/O error), or a vital task has panicked; returns which. The process must end, and the next
    /// start verifies and recovers.
    pub async fn failed(&self) -> Failed {
        let ledger = self.inner.store.failed();
        tokio::select! {
            () = ledger.cancelled() => Failed::Ledger,
            () = self.inner.supervisor.context().vital.failed() => Failed::Task,
        }
    }

    /// A job with the exact length of its output.
    async fn snapshot(&self, number: JobNumber) -> Result<Job, Error> {
        let ExecutorInner { store, log, .. } = &*self.inner;
        crate::output::tail::snapshot(store, log, number)
            .await?
            .ok_or_else(|| Error::no_such_job(JobRef::Number(number)))
    }
}
