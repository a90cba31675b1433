//! What goes into the ledger and what comes out of it, as plain types.
//!
//! No SQL here; the statements stand in the files named after their tables.

use std::{collections::BTreeMap, sync::Arc};

use crate::job::{
    Chunk, Dropped, ExitFacts, Gap, Input, InputAnswer, Job, JobId, JobNumber, JobSpec, JobState,
    Micros, Offset, Queue, Reason, StopRequest,
};

/// What a server start writes down before it touches anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Counts the starts of servers on this data directory, from 1.
    pub epoch: u64,
    /// The random id of this data directory.
    pub instance: String,
    /// Whether it is a new one, because this is a copy of the directory that had the one before.
    pub is_copy: bool,
}

/// Why a database cannot be used. The server refuses to start with it; it is never replaced.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not ours, damaged, newer, or not to be opened.
    #[error("{0}")]
    Unusable(String),
    /// The system or SQLite says so.
    #[error("{what}: {source}")]
    Failed {
        /// A sentence about the database.
        what: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A job to be submitted, with everything that the server decides about it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its UUIDv7.
    pub id: JobId,
    /// What the user asked for; where it runs is named.
    pub job: JobSpec,
    /// The job that this one tries again.
    pub retry_of: Option<JobId>,
    /// SHA-256 of the job without its idempotency key.
    pub fingerprint: [u8; 32],
    /// Who submitted it (goes into the event).
    pub actor: String,
    /// When.
    pub at: Micros,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSubmission {
    /// The job.
    pub job: Job,
    /// False where the idempotency key named an earlier one.
    pub created: bool,
}

/// What became of one submission of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmitOutcome {
    /// The job.
    pub id: JobId,
    /// Its number; those of new jobs ascend in the order of the batch.
    pub number: JobNumber,
    /// Where it stands.
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
    /// The first entry that was refused; `None` where it is nobody's fault.
    pub index: Option<usize>,
    /// Why.
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

/// What the database's engine says.
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
    /// It could not be read or written now: descriptors or memory are short, its lock is held, or
    /// its disk failed. Trying again may help.
    #[error("the database cannot be used now: {0}")]
    Unavailable(#[source] Arc<EngineError>),
    /// Its file may not be trusted any more: the server ends, and the next one is to be asked.
    #[error(
        "the database cannot be used now: its file cannot be trusted any more; the server ends"
    )]
    Untrusted,
    /// Anything else that SQLite says.
    #[error("the database refused: {0}")]
    Database(#[source] Arc<EngineError>),
    /// The writer has answered another question: a mistake of ours.
    #[error("the database refused: the answer to another question")]
    WrongAnswer,
}

/// What came of setting a queue.
#[derive(Debug, Clone, PartialEq)]
pub enum QueueSet {
    /// It is as wished.
    Done(Queue),
    /// There are [`Queue::COUNT_MAX`] already, and it is not among them.
    TooMany,
}

/// What came of deleting a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueDeleted {
    /// It is gone.
    Done,
    /// So many of its jobs are not final.
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
    /// The shim that shall run it.
    pub shim: String,
    /// Its number.
    pub number: JobNumber,
    /// Its UUID.
    pub id: JobId,
    /// The attempt, from 1; fences everything that is written about it.
    pub attempt: u32,
    /// Where this attempt's output begins.
    pub start_offset: Offset,
    /// How many of the bytes before it are gaps, and take no room.
    pub missing_bytes: u64,
    /// Digest state at `start_offset`, where the job has had output before.
    pub hash_state: Option<Vec<u8>>,
    /// What to run.
    pub job: JobSpec,
    /// Inputs that came before, in order.
    pub inputs: Vec<Input>,
}

/// Result of one claim.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claimed {
    /// One per shim that got work, in claim order.
    pub claims: Vec<ClaimedJob>,
    /// How many more queued jobs have a free slot and lack only a shim.
    pub wanting: u32,
}

/// A process that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedAttempt {
    /// The job.
    pub number: JobNumber,
    /// The attempt.
    pub attempt: u32,
    /// The leader.
    pub pid: i32,
    /// Its start time in ticks since boot.
    pub start_ticks: u64,
    /// When.
    pub at: Micros,
}

/// How an attempt's output is kept from now on.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputPlacement {
    /// As rows; the segments may be unlinked after the commit.
    Rows {
        /// All bytes, in offset order, dense but for `gaps`.
        chunks: Vec<Chunk>,
        /// What is missing, in offset order.
        gaps: Vec<Gap>,
    },
    /// As segments.
    Segments {
        /// Those that have no row yet.
        rows: Vec<SegmentRow>,
        /// What is missing behind or between them.
        gaps: Vec<Gap>,
    },
}

/// Everything that makes an attempt, and its job, final.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The job.
    pub number: JobNumber,
    /// The attempt; another one than the job's current is stale and changes nothing.
    pub attempt: u32,
    /// The final state.
    pub state: JobState,
    /// Why, if failed.
    pub reason: Option<Reason>,
    /// How the attempt ended; `None` where nobody can know (`lost`).
    pub facts: Option<ExitFacts>,
    /// Processes that could not be proven gone, where `facts` are unknown.
    pub survivors: Vec<crate::job::Survivor>,
    /// Why there may be others, where somebody could not be looked at.
    pub survivors_unknown: Option<String>,
    /// The offset behind the last byte or gap.
    pub end_offset: Offset,
    /// What `output.when_full` has dropped of the attempt's output.
    pub dropped: Dropped,
    /// Where the bytes are.
    pub kept: OutputPlacement,
    /// Hex SHA-256 over all bytes; `None` where there are gaps.
    pub output_sha256: Option<String>,
    /// Digest state at `end_offset`, for a next attempt.
    pub hash_state: Option<Vec<u8>>,
    /// Who (goes into the event): `shim` or `rescue`.
    pub actor: String,
    /// When the job is final.
    pub at: Micros,
}

/// A segment that is complete and has a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRow {
    /// The job.
    pub number: JobNumber,
    /// The attempt.
    pub attempt: u32,
    /// Its first offset (also in its file name).
    pub first_offset: Offset,
    /// The offset behind its last byte.
    pub end_offset: Offset,
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// Digest state at `end_offset`.
    pub hash_state: Vec<u8>,
}

/// What came of changing a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Updated {
    /// It is as wished.
    Done(Job),
    /// It runs or is final; nothing happened.
    Started(Job),
    /// The queue does not exist; nothing happened.
    UnknownQueue(String),
    /// There is no such job.
    NotFound,
}

/// What came of deleting a job.
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
    /// The job.
    pub number: JobNumber,
    /// The attempt.
    pub attempt: u32,
    /// The offset of its first byte.
    pub first_offset: Offset,
}

/// What a stop wish met.
#[derive(Debug, Clone, PartialEq)]
pub enum StopRequested {
    /// No attempt was running: the job is cancelled now.
    Withdrawn(Job),
    /// The wish is committed; it must be sent to this attempt's shim.
    ToShim {
        /// The job, with the wish.
        job: Job,
        /// The attempt.
        attempt: u32,
        /// The shim.
        shim: String,
        /// The wish as it stands now (a kill is never weakened to a cancel).
        request: StopRequest,
    },
    /// The job is final; nothing happened.
    Final(Job),
    /// There is no such job.
    NotFound,
}

/// What a pause or resume wish met.
#[derive(Debug, Clone, PartialEq)]
pub enum PauseRequested {
    /// The wish is committed; it must be sent to this attempt's shim.
    ToShim {
        /// The job.
        number: JobNumber,
        /// The attempt.
        attempt: u32,
        /// The shim.
        shim: String,
    },
    /// The job is already as wished, or final: nothing happened.
    Nothing(Job),
    /// A pause of a job that does not run.
    NotRunning(Job),
    /// There is no such job.
    NotFound,
}

/// What an input met.
#[derive(Debug, Clone, PartialEq)]
pub enum InputOutcome {
    /// The job waits: this is what became of the input, durably.
    Kept {
        /// The job.
        number: JobNumber,
        /// Whether it was taken.
        answer: InputAnswer,
    },
    /// This attempt's shim is to have it.
    ToShim {
        /// The job.
        number: JobNumber,
        /// The attempt.
        attempt: u32,
        /// The shim.
        shim: String,
    },
    /// The job takes no input: it is not interactive, or final.
    Unfit {
        /// The job.
        number: JobNumber,
        /// Whether it is interactive: then it is final.
        interactive: bool,
        /// Its state.
        state: JobState,
    },
    /// There is no such job.
    NotFound,
}

/// Whether a write about an attempt was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// It was written.
    Applied,
    /// It was written, and the job waits for another attempt.
    Requeued,
    /// The attempt is not the current one any more, or the state did not fit: nothing changed.
    Stale,
}

/// An attempt that is not final: what recovery begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenAttempt {
    /// The job.
    pub number: JobNumber,
    /// Its UUID.
    pub id: JobId,
    /// Running or paused.
    pub state: JobState,
    /// The attempt.
    pub attempt: u32,
    /// The shim named before `run` was sent.
    pub shim: String,
    /// Boot id at the claim.
    pub boot_id: String,
    /// Instance of the data directory at the claim.
    pub instance: String,
    /// Where its output begins.
    pub start_offset: Offset,
    /// Where the segments that have rows end, and the digest's state there; else `start_offset`
    /// and the state of the attempt before.
    pub hashed_to: Offset,
    /// The digest's state at `hashed_to`; `None`: nothing hashed yet.
    pub hash_state: Option<Vec<u8>>,
    /// The wish to stop it.
    pub stop: Option<StopRequest>,
    /// Whether a pause is wished.
    pub pause: bool,
    /// Whether the start is on record in the ledger.
    pub started_at: Option<Micros>,
    /// The leader, where known.
    pub pid: Option<i32>,
    /// Its start time.
    pub start_ticks: Option<u64>,
}

/// A state change as the event feed tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The event's id, ascending over all jobs.
    pub event: i64,
    /// The new state.
    pub state: JobState,
    /// Why, if failed.
    pub reason: Option<Reason>,
    /// When.
    pub at: Micros,
}

/// What the row of a job says about its state and its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The job.
    pub number: JobNumber,
    /// Where it is in its life.
    pub state: JobState,
    /// Why, if failed.
    pub reason: Option<Reason>,
    /// The current or last attempt; 0 before the first.
    pub attempt: u32,
    /// Up to where output has rows.
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
    /// The attempt.
    pub attempt: u32,
    /// Where its output begins.
    pub start_offset: Offset,
    /// Where it ends; none while it is open, and where it never began.
    pub end_offset: Option<Offset>,
    /// The digest of the job's output up to there.
    pub output_sha256: Option<String>,
    /// The digest's state there.
    pub hash_state: Option<Vec<u8>>,
}

/// What is known of when the current attempt of a job last showed a sign of life, output aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LifeSigns {
    /// The attempt.
    pub attempt: u32,
    /// When its process was started, clock ticks since boot; `None`: not yet.
    pub start_ticks: Option<u64>,
    /// The event with which it last went on after a pause, and when that was by the wall clock.
    pub resumed: Option<(i64, Micros)>,
}

/// Where a byte of stored output is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// In rows: chunks and gaps from the asked offset on, in order (the first may begin before).
    Rows(Vec<StoredItem>),
    /// In a segment that has a row.
    Segment(SegmentRow),
    /// In no row: behind what is stored, `from` this offset on it belongs to the attempt that
    /// begins at or before it (or nowhere, if no attempt is open).
    Open(Option<OpenTail>),
}

/// The unstored end of a job's output.
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
    /// At most so many, 1 to 1000.
    pub limit: u32,
    /// Only numbers below this one (the cursor of the page before).
    pub below: Option<JobNumber>,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Continue below this number; `None`: this was the last page.
    pub next: Option<JobNumber>,
}

/// What a `job.get` shall contain beyond the usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Include {
    /// Values of the environment.
    pub env: bool,
    /// The stdin.
    pub stdin: bool,
}

/// How many jobs are in each state.
pub type Counts = BTreeMap<JobState, u64>;
