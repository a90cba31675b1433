//! What goes into the ledger and what comes out of it, as plain types. The SQL is in `sqlite`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use super::sqlite::log_bounds::WAL_BYTES_MAX_DEFAULT;
use serde::Serialize;

use crate::access::{Reach, TokenNumber};
use crate::job::{
    Chunk, Delivery, DependencyCondition, Dropped, ExitFacts, Gap, Input, InputAnswer, Job, JobId,
    JobNumber, JobRef, JobSpec, JobState, Micros, NoticeState, Offset, PolicyRecord, Queue, Reason,
    Requester, StopRequest, StreamCounts, UnmetExpectation,
};

/// What a server start stores before it does anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Counts the starts of servers on this data directory, from 1.
    pub epoch: u64,
    /// The random id of this data directory.
    pub instance: String,
    /// Whether `instance` is new, because this directory is a copy of the one that had the instance
    /// before.
    pub is_copy: bool,
}

/// Why a database cannot be used. The server refuses to start with it; it is never replaced.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It belongs to another program, is damaged, is newer, or cannot be opened.
    #[error("{0}")]
    Unusable(String),
    /// The system or SQLite reported an error.
    #[error("{what}: {source}")]
    Failed {
        /// What is wrong with which database, a sentence for people.
        what: String,
        /// The error of the system or of SQLite.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The bounds of a store. Each is a setting of the server with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreBounds {
    /// A database up to this size, bytes, is checked for damage as a whole when it is opened.
    /// [`super::Store::check`] checks a larger one.
    pub check_bytes_max: u64,
    /// How long the write-ahead log may become, bytes, but for one transaction more.
    pub wal_bytes_max: u64,
}

impl Default for StoreBounds {
    /// Everything is checked; a log of 64 MiB.
    fn default() -> Self {
        Self {
            check_bytes_max: u64::MAX,
            wal_bytes_max: WAL_BYTES_MAX_DEFAULT,
        }
    }
}

/// How far a migration of the schema is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationProgress {
    /// The step that is made, from 1.
    pub step: usize,
    /// How many steps are made in all.
    pub steps: usize,
    /// What the step is about.
    pub name: String,
    /// Since the first step began.
    pub elapsed: Duration,
    /// What the step has written so far, bytes. A step writes up to twice what the database has.
    pub written_bytes: u64,
    /// Size of the database, bytes.
    pub database_bytes: u64,
}

/// A job to be submitted, with everything that the server decides about it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// UUIDv7 of the job.
    pub id: JobId,
    /// What the user submitted, with the directory filled in.
    pub job: JobSpec,
    /// The job that this one repeats.
    pub retry_of: Option<JobId>,
    /// SHA-256 of the job without its idempotency key.
    pub fingerprint: [u8; 32],
    /// The actor of the submission, for the event.
    pub actor: String,
    /// The token that submits it; `None`: the administrator, or a schedule.
    pub token: Option<TokenNumber>,
    /// The decision of the policy by which it is taken; `None`: there is no policy.
    pub policy: Option<PolicyRecord>,
    /// When it happened, by the wall clock.
    pub at: Micros,
}

/// A job has come into a state (committed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateMove {
    /// Its number.
    pub job: JobNumber,
    /// Its attempt, if the change is one of an attempt.
    pub attempt: Option<u32>,
    /// The state before; `None`: the job is new.
    pub from: Option<JobState>,
    /// The state.
    pub to: JobState,
}

/// The jobs whose time had come are queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextDue {
    /// When the next ones are due; in the past where there were too many for one transaction. `None`:
    /// none waits for a time.
    pub next: Option<Micros>,
}

/// What the database knows about why a job is where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Causes {
    /// The jobs that a blocked one still waits for, up to 100.
    pub unmet: Vec<UnmetDependency>,
    /// How many it waits for besides.
    pub unmet_more: u64,
    /// The job with the same exclusive key for which a queued one waits.
    pub key_holder: Option<JobSummary>,
    /// The line that a queued one stands in.
    pub line: Option<QueueLine>,
    /// How many attempts were lost.
    pub lost: u32,
    /// The last attempts, up to 100, in their order.
    pub attempts: Vec<AttemptSummary>,
    /// The last state changes, up to 100, in their order.
    pub events: Vec<EventSummary>,
}

/// Another job in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobSummary {
    /// Its id.
    #[serde(rename = "job")]
    pub id: JobId,
    /// Its number.
    pub number: JobNumber,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its state.
    pub state: JobState,
}

/// A job that a blocked one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmetDependency {
    /// The job.
    pub job: JobSummary,
    /// How it has to end.
    pub on: DependencyCondition,
}

/// The jobs before a queued one, and how long the jobs of its queue take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueLine {
    /// How many queued jobs of the same queue start before it; of one that waits for its exclusive key
    /// only those with the same key.
    pub ahead: u64,
    /// Whether there are more than that.
    pub ahead_is_least: bool,
    /// The median run time of the queue's last jobs, seconds; `None` where none has ended.
    pub typical_s: Option<f64>,
    /// How many jobs that is the median of.
    pub sample: u64,
}

/// An attempt in a few words.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptSummary {
    /// Its number in the job, from 1.
    pub attempt: u32,
    /// `claimed`, `started`, `ended`, `void` or `lost`.
    pub state: String,
    /// How it ended, as far as it is known.
    pub exit: Option<ExitFacts>,
    /// When its process was started.
    pub started_at: Option<Micros>,
    /// When it ended.
    pub ended_at: Option<Micros>,
}

/// A state change of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventSummary {
    /// The attempt that it belongs to.
    pub attempt: Option<u32>,
    /// The state before; `None` at the submission.
    pub from: Option<JobState>,
    /// The state after.
    pub to: JobState,
    /// Why, where that has a name.
    pub reason: Option<Reason>,
    /// Who caused it.
    pub actor: String,
    /// When.
    pub at: Micros,
}

/// The result of a submission.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSubmission {
    /// The job as users see it.
    pub job: Job,
    /// False where the idempotency key named an earlier one.
    pub created: bool,
}

/// The result of one submission of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmitOutcome {
    /// UUIDv7 of the job.
    pub id: JobId,
    /// Its number; those of new jobs ascend in the order of the batch.
    pub number: JobNumber,
    /// Its current state.
    pub state: JobState,
    /// False where the idempotency key named an earlier one.
    pub created: bool,
}

/// Why a submission stores nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue does not exist.
    #[error("there is no queue {0:?}")]
    UnknownQueue(String),
    /// A job that it is to wait for does not exist.
    #[error("there is no job {0} to wait for")]
    UnknownDependency(JobRef),
    /// A job of a batch is to wait for an entry that does not come before it.
    #[error(
        "#{0} is no earlier entry of the same batch, and jobs cannot wait for each other in a circle"
    )]
    NotAnEarlierEntry(usize),
    /// The queue takes no new jobs.
    #[error("the queue {0:?} drains")]
    QueueDrains(String),
    /// The idempotency key belongs to another job with another NewJob.
    #[error("the idempotency key belongs to job {0}, which is a different one")]
    KeyConflict(JobNumber),
    /// The idempotency key belongs to another entry of the same batch with another NewJob.
    #[error("the idempotency key belongs to entry {0} of the same batch, which is a different one")]
    KeyConflictWithin(usize),
    /// The ledger cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a whole batch stores nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct BatchRefused {
    /// The first entry that was refused; `None` where no entry is the cause.
    pub index: Option<usize>,
    /// Why it was refused.
    #[source]
    pub error: SubmitError,
}

impl From<StoreError> for BatchRefused {
    fn from(error: StoreError) -> Self {
        Self {
            index: None,
            error: error.into(),
        }
    }
}

/// An error of the database's engine.
pub type EngineError = dyn std::error::Error + Send + Sync;

/// The ledger cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; nothing was written.
    #[error("the disk is full")]
    DiskFull,
    /// The writer has stopped.
    #[error("the server is stopping")]
    Stopping,
    /// It could not be read or written now: descriptors or memory are short, another process holds
    /// its lock, or its disk failed. Trying again may help.
    #[error("the database cannot be used now: {0}")]
    Unavailable(#[source] Arc<EngineError>),
    /// Its file cannot be trusted any more: the server ends. Ask the next one.
    #[error(
        "the database cannot be used now: its file cannot be trusted any more; the server ends"
    )]
    Untrusted,
    /// Any other error of SQLite.
    #[error("the database refused: {0}")]
    Database(#[source] Arc<EngineError>),
    /// The writer has answered with the result of another kind of write: a bug.
    #[error("the database refused: it answered another request (a bug)")]
    WrongAnswer,
}

/// The result of setting a queue.
#[derive(Debug, Clone, PartialEq)]
pub enum QueueSet {
    /// It is changed as requested.
    Done(Queue),
    /// There are [`Queue::COUNT_MAX`] queues already, and it is not among them.
    TooMany,
}

/// The result of deleting a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueDeleted {
    /// It is gone.
    Done,
    /// This number of its jobs are not final.
    HasJobs(u64),
    /// There is no such queue.
    NotFound,
}

/// A shim that is offered for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimOffer {
    /// The shim's id.
    pub shim: String,
    /// Its program version.
    pub version: String,
}

/// A job that has got a slot and a shim: its attempt's row is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    /// The id of the shim that must run it.
    pub shim: String,
    /// Number of the job.
    pub number: JobNumber,
    /// UUIDv7 of the job.
    pub id: JobId,
    /// The attempt, from 1; fences everything that is written about it.
    pub attempt: u32,
    /// The offset at which this attempt's output begins.
    pub start_offset: Offset,
    /// How many of the bytes before `start_offset` are gaps, and take no disk space.
    pub missing_bytes: u64,
    /// Digest state at `start_offset`, where the job has had output before.
    pub hash_state: Option<Vec<u8>>,
    /// What to run.
    pub job: JobSpec,
    /// Inputs that came before the claim, in order.
    pub inputs: Vec<Input>,
    /// Whether a pause was requested of the attempt before, which was lost or never ran.
    pub paused: bool,
    /// The decision of the policy by which it was taken.
    pub policy: Option<PolicyRecord>,
}

/// The result of one claim.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claimed {
    /// One per shim that got work, in claim order.
    pub claims: Vec<ClaimedJob>,
    /// How many more queued jobs have a free slot and lack only a shim.
    pub wanting: u32,
    /// How long it takes until a queue that has used up its starts in a minute may start its next job.
    pub next_start_in: Option<Duration>,
}

/// A process that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedAttempt {
    /// Number of the job.
    pub number: JobNumber,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Process id of the leader.
    pub pid: i32,
    /// Its start time in ticks since boot.
    pub start_ticks: u64,
    /// When it happened, by the wall clock.
    pub at: Micros,
}

/// Where an attempt's output is kept from now on.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputPlacement {
    /// As rows; the segments may be unlinked after the commit.
    Rows {
        /// All bytes, in offset order, contiguous but for `gaps`.
        chunks: Vec<Chunk>,
        /// What is missing, in offset order.
        gaps: Vec<Gap>,
    },
    /// As segments.
    Segments {
        /// Those that have no row yet.
        rows: Vec<SegmentRow>,
        /// What is missing after or between them.
        gaps: Vec<Gap>,
    },
}

/// Everything that makes an attempt, and its job, final.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Number of the job.
    pub number: JobNumber,
    /// The attempt; another one than the job's current is stale and changes nothing.
    pub attempt: u32,
    /// The final state.
    pub state: JobState,
    /// Why, if failed.
    pub reason: Option<Reason>,
    /// How the attempt ended; `None` where that is unknown (`lost`).
    pub facts: Option<ExitFacts>,
    /// Processes that could not be proven gone, where `facts` are unknown.
    pub survivors: Vec<crate::job::Survivor>,
    /// Why there may be more survivors, where processes could not be examined.
    pub survivors_unknown: Option<String>,
    /// The offset after the last byte or gap.
    pub end_offset: Offset,
    /// What `output.when_full` has dropped of the attempt's output.
    pub dropped: Dropped,
    /// Where the bytes are.
    pub kept: OutputPlacement,
    /// Hex SHA-256 over all bytes; `None` where there are gaps.
    pub output_sha256: Option<String>,
    /// Digest state at `end_offset`, for a next attempt.
    pub hash_state: Option<Vec<u8>>,
    /// What the job expected and its output does not show, where `reason` is `Unverified`.
    pub unmet_expectations: Vec<UnmetExpectation>,
    /// The actor for the event: `shim` or `rescue`.
    pub actor: String,
    /// When the job became final.
    pub at: Micros,
}

/// A segment that is complete and has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRow {
    /// Number of the job.
    pub number: JobNumber,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Its first offset (also in its file name).
    pub first_offset: Offset,
    /// The offset after its last byte.
    pub end_offset: Offset,
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// Digest state at `end_offset`.
    pub hash_state: Vec<u8>,
    /// What it holds; `None` where that is unknown: it is damaged, or an earlier version read it.
    pub counts: Option<StreamCounts>,
}

/// A part of a job's output that a complete segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedSegment {
    /// Its first offset.
    pub first_offset: Offset,
    /// The offset after its last byte.
    pub end_offset: Offset,
    /// What it holds, where that is known.
    pub counts: Option<StreamCounts>,
}

/// The result of changing a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Updated {
    /// It is changed as requested.
    Done(Job),
    /// It runs or is final; nothing happened.
    Started(Job),
    /// The queue does not exist; nothing happened.
    UnknownQueue(String),
    /// The queue takes no new jobs; nothing happened.
    QueueDrains(String),
    /// There is no such job.
    NotFound,
}

/// The result of deleting a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Deleted {
    /// It is gone.
    Done(Box<DeletedJob>),
    /// It is not final; nothing happened.
    NotFinal(Box<Job>),
    /// There is no such job.
    NotFound,
}

/// What is left of a job that was deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct DeletedJob {
    /// The job as it was.
    pub job: Job,
    /// Attempt and first offset of every segment that may have a file.
    pub segments: Vec<(u32, Offset)>,
}

/// Names a segment that has a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentKey {
    /// Number of the job.
    pub number: JobNumber,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The offset of its first byte.
    pub first_offset: Offset,
}

/// The result of a request to stop.
#[derive(Debug, Clone, PartialEq)]
pub enum StopRequested {
    /// No attempt was running: the job is cancelled now.
    Withdrawn(Job),
    /// The request is committed; the caller must send it to this attempt's shim.
    ToShim {
        /// The job, which shows the request.
        job: Job,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Id of the shim.
        shim: String,
        /// The request as it is stored now (a kill is never weakened to a cancel).
        request: StopRequest,
    },
    /// The job is final; nothing happened.
    Final(Job),
    /// There is no such job.
    NotFound,
}

/// The result of a request to pause or resume.
#[derive(Debug, Clone, PartialEq)]
pub enum PauseRequested {
    /// The request is committed; the caller must send it to this attempt's shim.
    ToShim {
        /// Number of the job.
        number: JobNumber,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Id of the shim.
        shim: String,
    },
    /// The job is already as requested, or final: nothing happened.
    Nothing(Job),
    /// A pause of a job that does not run.
    NotRunning(Job),
    /// There is no such job.
    NotFound,
}

/// The result of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum InputOutcome {
    /// The job waits: the answer, stored durably.
    Kept {
        /// Number of the job.
        number: JobNumber,
        /// Whether it was kept.
        answer: InputAnswer,
    },
    /// The caller must send it to this attempt's shim.
    ToShim {
        /// Number of the job.
        number: JobNumber,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Id of the shim.
        shim: String,
    },
    /// The job takes no input: it is not interactive, or final.
    Unfit {
        /// Number of the job.
        number: JobNumber,
        /// Whether the job is interactive: then it is final.
        interactive: bool,
        /// Its state.
        state: JobState,
    },
    /// There is no such job.
    NotFound,
}

/// Whether a write about an attempt was applied. The attempt's number fences it: a write of an
/// attempt that is not current any more changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// It was written.
    Applied,
    /// It was written, and the job waits for another attempt.
    Requeued,
    /// The attempt is not the current one any more, or the state did not fit: nothing changed.
    Stale,
}

/// An attempt that is not final; recovery starts from these.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenAttempt {
    /// Number of the job.
    pub number: JobNumber,
    /// UUIDv7 of the job.
    pub id: JobId,
    /// `Running` or `Paused`.
    pub state: JobState,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The shim that the claim named, before `run` was sent.
    pub shim: String,
    /// Boot id at the claim.
    pub boot_id: String,
    /// Instance of the data directory at the claim.
    pub instance: String,
    /// The offset at which its output begins.
    pub start_offset: Offset,
    /// Where the segments that have rows end; else `start_offset`.
    pub hashed_to: Offset,
    /// The digest's state at `hashed_to`, of this attempt or the one before; `None`: nothing is
    /// hashed yet.
    pub hash_state: Option<Vec<u8>>,
    /// The request to stop it.
    pub stop: Option<StopRequest>,
    /// Whether a pause is requested.
    pub pause: bool,
    /// When its process started; `None`: no start is stored.
    pub started_at: Option<Micros>,
    /// Process id of the leader, where known.
    pub pid: Option<i32>,
    /// The leader's start time in ticks since boot.
    pub start_ticks: Option<u64>,
    /// Whether the job expects something of its output.
    pub expects: bool,
}

/// A state change as the event feed shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The event's id, ascending over all jobs.
    pub event: i64,
    /// The new state.
    pub state: JobState,
    /// Why, if failed.
    pub reason: Option<Reason>,
    /// When it happened, by the wall clock.
    pub at: Micros,
}

/// What the row of a job says about its state and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Number of the job.
    pub number: JobNumber,
    /// Its current state.
    pub state: JobState,
    /// Why, if failed.
    pub reason: Option<Reason>,
    /// The current or last attempt; 0 before the first.
    pub attempt: u32,
    /// The offset up to which output has rows.
    pub output_bytes: Offset,
    /// What `when_full` has dropped.
    pub dropped_bytes: u64,
    /// The digest, once final.
    pub output_sha256: Option<String>,
    /// The id of its newest event; 0 where there is none.
    pub newest_event: i64,
}

/// What the row of an attempt says about its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The offset at which its output begins.
    pub start_offset: Offset,
    /// The offset at which it ends; `None` while it is open, and where it never began.
    pub end_offset: Option<Offset>,
    /// The digest of the job's output up to `end_offset`.
    pub output_sha256: Option<String>,
    /// The digest's state at `end_offset`.
    pub hash_state: Option<Vec<u8>>,
}

/// When the current attempt of a job last showed a sign of life, output aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeSigns {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When its process was started, clock ticks since boot; `None`: not yet.
    pub start_ticks: Option<u64>,
    /// The event of its last resume after a pause, and when that was by the wall clock.
    pub resumed: Option<(i64, Micros)>,
}

/// Where a byte of stored output is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// In rows: chunks and gaps from the requested offset on, in order (the first may begin before
    /// it).
    Rows(Vec<StoredItem>),
    /// In a segment that has a row.
    Segment(SegmentRow),
    /// In no row: it is after all that is stored. It belongs to the open attempt; `None`: no
    /// attempt is open.
    Open(Option<OpenTail>),
}

/// The end of a job's output that has no row yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTail {
    /// The attempt that writes it.
    pub attempt: u32,
    /// The first offset without a row: the name of the segment that holds it.
    pub first_offset: Offset,
}

/// One row of stored output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredItem {
    /// Bytes.
    Chunk(Chunk),
    /// Missing bytes.
    Gap(Gap),
}

/// Which jobs `list` returns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListFilter {
    /// Only these states; empty: all.
    pub states: Vec<JobState>,
    /// Only this queue.
    pub queue: Option<String>,
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// Submitted at or after.
    pub since: Option<Micros>,
    /// The most jobs on a page, 1 to 1000.
    pub limit: u32,
    /// Only numbers below this one (the cursor of the page before).
    pub below: Option<JobNumber>,
    /// Only jobs that a token reaches.
    pub reach: Reach,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPage {
    /// The jobs of this page.
    pub jobs: Vec<Job>,
    /// Continue below this number; `None`: this is the last page.
    pub next: Option<JobNumber>,
}

/// What a `job.get` returns beyond the usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Include {
    /// Values of the environment.
    pub env: bool,
    /// Whether with its stdin.
    pub stdin: bool,
    /// The secrets of its notices. They are shown to nobody, so this is for the server alone.
    pub notify_secrets: bool,
}

/// A notice as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeRef {
    /// By number.
    Number(i64),
    /// By the id that its receiver gets.
    Id(String),
}

/// A notice that waits to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingNotice {
    /// Its number.
    pub number: i64,
    /// Number of the job.
    pub job: JobNumber,
    /// The queue of the job.
    pub queue: String,
    /// Who asked for the job; `None`: as [`Requester::default_one`].
    pub requester: Option<Requester>,
    /// Index of the receiver in the job's `notify`.
    pub entry: u32,
    /// What notices to the same receiver have in common.
    pub destination: String,
    /// How many attempts have failed.
    pub attempts: u32,
    /// When these attempts began to be counted, by the wall clock.
    pub since: Micros,
    /// When it is due, by the wall clock.
    pub due_at: Micros,
    /// What is delivered.
    pub delivery: Delivery,
}

/// An attempt to deliver a notice that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeTried {
    /// Number of the notice.
    pub number: i64,
    /// When the attempt ended, by the wall clock.
    pub at: Micros,
    /// What became of it.
    pub outcome: DeliveryOutcome,
}

/// What became of an attempt to deliver a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver has taken it.
    Delivered,
    /// It has not; the next attempt is due at this time.
    Retry {
        /// Why.
        error: String,
        /// When, by the wall clock.
        due_at: Micros,
    },
    /// It has not, and there is no other attempt.
    GivenUp {
        /// Why.
        error: String,
    },
}

/// The result of asking for another attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeRetried {
    /// It is due now.
    Done,
    /// It was delivered.
    Delivered,
    /// There is no such notice, or it was forgotten.
    NotFound,
}

/// Which notices a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoticeFilter {
    /// Only of this job.
    pub job: Option<JobNumber>,
    /// Only in this state.
    pub state: Option<NoticeState>,
    /// Only numbers below this one (the cursor of the page before).
    pub below: Option<i64>,
    /// The most notices on a page.
    pub limit: u32,
}

/// How many jobs are in each state.
pub type Counts = BTreeMap<JobState, u64>;

/// A job that is another one once more, or that was tried again: to a user they are the same job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryKin {
    /// The first of them that still exists.
    pub origin: JobNumber,
    /// This one.
    pub number: JobNumber,
    /// Its id.
    pub id: JobId,
}
