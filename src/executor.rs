//! The ideal API in plain Rust types: submit, read, tail, wait, control, query. Every door calls
//! it, and so does every in-process test.
//!
//! It knows no wire format, no session and no HTTP.

use std::{sync::Arc, time::Duration};

use crate::{
    job::{
        Chunk, Gap, Job, JobId, JobNumber, JobRef, JobState, Micros, NewJob, Offset, Reason, Stream,
    },
    store::{Counts, Include, JobPage, ListFilter},
};

/// Why the executor does not do what it was asked for. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such job, queue, …
    #[error("{0}")]
    NotFound(String),
    /// A value is wrong. `output_bytes` is set where an offset lies beyond the end.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// The end of the output.
        output_bytes: Option<Offset>,
    },
    /// The state of things does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Stopping, or the disk is full. Trying again later may help.
    #[error("{0}")]
    Unavailable(String),
    /// Our own failure; the cause is in the log.
    #[error("{0}")]
    Internal(String),
}

/// A new job and whether it was new.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// False where the idempotency key named an earlier one.
    pub created: bool,
}

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At this offset.
    Offset(Offset),
    /// So many bytes before the end as it stands (of the chosen streams or not: bytes of the log).
    LastBytes(u64),
    /// So many lines before the end as it stands.
    LastLines(u64),
}

/// What a tail shall do.
#[derive(Debug, Clone, PartialEq)]
pub struct TailOptions {
    /// Where it begins.
    pub from: From,
    /// Whether it goes on behind the end as it stands.
    pub follow: bool,
    /// Only these streams; `None`: all.
    pub streams: Option<Vec<Stream>>,
}

/// What a tail says, in offset order.
#[derive(Debug, Clone, PartialEq)]
pub enum TailEvent {
    /// Bytes; never more than [`Executor::CHUNK_BYTES_MAX`].
    Output(Chunk),
    /// Missing bytes.
    Gap(Gap),
    /// A state that is not final.
    State {
        /// The new state.
        state: JobState,
        /// Why.
        reason: Option<Reason>,
        /// When.
        at: Micros,
    },
    /// The replay has reached the end as it stood; once, before `End`.
    CaughtUp {
        /// The first byte not yet told.
        next_offset: Offset,
    },
    /// The job is final and all its output was told. The last event.
    End(Box<Job>),
}

/// A reader that replays from an offset and then follows: nothing but a cursor. Dropping it ends
/// it. A reader that does not call `next` costs nothing.
#[derive(Debug)]
pub struct Tail {}

#[allow(clippy::todo, missing_docs)]
impl Tail {
    /// The job as it was when the tail began.
    pub fn job(&self) -> &Job {
        todo!()
    }
    /// The offset at which it begins.
    pub fn from(&self) -> Offset {
        todo!()
    }
    /// The next event; waits for it. `None` after the last one (`End`, or `CaughtUp` of a tail
    /// that does not follow). Cancel-safe: a dropped call loses no event.
    pub async fn next(&mut self) -> Result<Option<TailEvent>, Error> {
        todo!()
    }
}

/// What a read shall return.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// Where to begin.
    pub from: Offset,
    /// At most so many bytes, cut exactly.
    pub max_bytes: u64,
    /// How long to wait for the first byte.
    pub wait: Duration,
    /// Only these streams; `None`: all.
    pub streams: Option<Vec<Stream>>,
}

/// One item of a read.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadItem {
    /// Bytes.
    Chunk(Chunk),
    /// Missing bytes.
    Gap(Gap),
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// In offset order.
    pub items: Vec<ReadItem>,
    /// Where to go on.
    pub next_offset: Offset,
    /// The job, once it is final and read through.
    pub end: Option<Box<Job>>,
}

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The job is final.
    Final,
    /// A process of it has started.
    Running,
}

/// A wait over jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitOptions {
    /// Which; at least one.
    pub jobs: Vec<JobRef>,
    /// All of them, or any.
    pub all: bool,
    /// For what.
    pub until: Until,
    /// How long at most.
    pub timeout: Option<Duration>,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Waited {
    /// False after a timeout, or where the condition can no longer come true.
    pub met: bool,
    /// The job that decided it.
    pub job: Option<Job>,
    /// All jobs, in the order asked.
    pub jobs: Vec<Job>,
    /// The last 4 KiB of `job`.
    pub last_output: Option<Chunk>,
}

/// What can be done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGSTOP to its tree.
    Pause,
    /// SIGCONT to its tree.
    Resume,
    /// TERM, grace, KILL.
    Cancel,
    /// KILL.
    Kill,
    /// This signal to its group.
    Signal(i32),
}

/// What there is to say about the server as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// `CARGO_PKG_VERSION`.
    pub version: &'static str,
    /// Since when it serves.
    pub started_at: Micros,
    /// `A` (cgroup v2, pidfd) or `B` (subreaper and process groups).
    pub isolation: &'static str,
    /// How many jobs are in each state.
    pub counts: Counts,
    /// The data directory's instance.
    pub instance: String,
    /// The epoch of this server.
    pub epoch: u64,
}

/// The bounds of an executor. Every one is a setting of the server with the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorSettings {
    /// Segments are sealed at this size, bytes.
    pub segment_bytes: u64,
    /// Output up to this size goes into rows of the database when the job is final, bytes.
    pub inline_bytes_max: u64,
    /// Bound of all segments together, bytes; `None`: none.
    pub spool_bytes_max: Option<u64>,
    /// What stays free on the data directory's file system, bytes; `None`: the smaller of 256 MiB
    /// and 5 % of it.
    pub free_bytes_min: Option<u64>,
    /// Idle shims that are kept ready.
    pub warm_shims: u32,
    /// How long a shim may take to answer before it is left as it is, milliseconds.
    pub shim_answer_ms: u64,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 4 << 20,
            inline_bytes_max: 256 << 10,
            spool_bytes_max: None,
            free_bytes_min: None,
            warm_shims: 2,
            shim_answer_ms: 1000,
        }
    }
}

/// Why an executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be used.
    #[error(transparent)]
    Open(#[from] crate::store::OpenError),
    /// Anything else, as a sentence.
    #[error("{0}")]
    Other(String),
}

/// The executor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Executor {
    #[allow(dead_code)]
    inner: Arc<()>,
}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Executor {
    /// Longest chunk that a tail or a read hands out, bytes.
    pub const CHUNK_BYTES_MAX: usize = 64 << 10;

    /// Opens the ledger in a data directory whose lock the caller holds, recovers every open
    /// attempt, and begins to claim. When it returns, every acknowledged job is there and every
    /// offset that was ever shown can be read.
    pub async fn start(
        layout: crate::spool::Layout,
        settings: ExecutorSettings,
    ) -> Result<Self, StartError> {
        todo!()
    }
    /// Takes no more work (`Unavailable`), leaves running jobs to their shims, ends all tails and
    /// waits with `Unavailable`, and closes the ledger.
    pub async fn stop(&self) {
        todo!()
    }

    pub async fn submit(&self, job: NewJob, actor: &str) -> Result<Submitted, Error> {
        todo!()
    }
    pub async fn get(&self, job: JobRef, include: Include) -> Result<Job, Error> {
        todo!()
    }
    pub async fn list(&self, filter: ListFilter) -> Result<JobPage, Error> {
        todo!()
    }
    pub async fn tail(&self, job: JobRef, options: TailOptions) -> Result<Tail, Error> {
        todo!()
    }
    pub async fn read(&self, job: JobRef, options: ReadOptions) -> Result<Read, Error> {
        todo!()
    }
    pub async fn wait(&self, options: WaitOptions) -> Result<Waited, Error> {
        todo!()
    }
    pub async fn control(&self, job: JobRef, action: Action, actor: &str) -> Result<Job, Error> {
        todo!()
    }
    pub async fn info(&self) -> Result<Info, Error> {
        todo!()
    }
    /// How many jobs are live (not final): what the idle stop of a self-started server asks.
    pub async fn live_jobs(&self) -> Result<u64, Error> {
        todo!()
    }
}

#[allow(unused)]
type Unused = (JobId, JobNumber);
