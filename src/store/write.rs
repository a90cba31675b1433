//! The writes that the store executes, and the result of each.
//!
//! `sqlite::execute` executes a batch of them.

use std::{ops::Deref, sync::Arc};

use super::audit_types::{AuditWrite, PrunedTrail};
use super::firing::{Fired, Firing, ScheduleSet};
use super::retention_types::{RetentionWrite, RetentionWritten};
use super::token_types::{NewToken, TokenAdded, TokenChange};
use super::types::{
    BatchRefused, Claimed, Deleted, Epoch, Fenced, Finish, InputOutcome, NextDue, NoticeRef,
    NoticeRetried, NoticeTried, OutputPlacement, PauseRequested, QueueDeleted, QueueSet,
    SegmentRow, ShimOffer, StartedAttempt, StopRequested, Submission, SubmitOutcome, Updated,
};
use crate::access::{ClientOrigin, TokenNumber};
use crate::job::{
    Input, JobChange, JobNumber, JobRef, Micros, QueueChange, Schedule, StopRequest, Survivor,
};

/// About how many bytes of the write-ahead log a row of a large batch takes beside its texts, with its
/// entries in other tables and in indexes.
const ROW_LOG_BYTES: u64 = 1600;

/// A write, with who has asked for it.
#[derive(Debug)]
pub struct AuditedWrite {
    pub write: Write,
    /// `None`: the server itself.
    pub origin: Option<Arc<ClientOrigin>>,
}

impl From<Write> for AuditedWrite {
    fn from(write: Write) -> Self {
        let origin = None;
        Self { write, origin }
    }
}

impl Deref for AuditedWrite {
    type Target = Write;

    fn deref(&self) -> &Write {
        &self.write
    }
}

/// One write.
#[derive(Debug)]
pub enum Write {
    /// Boot id of the machine, file id of the database, and the digest of the policy in force.
    BeginEpoch(String, String, Option<String>),
    SetQueue(QueueChange),
    DeleteQueue(String),
    /// The schedule as it shall be; whether its next time stays.
    SetSchedule(Box<Schedule>, bool),
    DeleteSchedule(String),
    Fire(Box<Firing>),
    /// The opening of an MCP session, JSON.
    SaveMcpSession {
        id: String,
        opening: String,
        token: Option<TokenNumber>,
    },
    AddToken(Box<NewToken>),
    ChangeToken((TokenNumber, TokenChange)),
    DeleteMcpSession(String),
    /// The submitter of a job has been told about it over MCP.
    McpAnswered(JobNumber),
    /// All of them or none.
    Submit(Arc<[Submission]>),
    Started(StartedAttempt),
    /// A report that the tree is paused or continued.
    Paused(PauseReport),
    StopRefused(RefusalReport),
    RequestStop(JobRef, StopRequest),
    RequestPause(PauseRequest),
    Input(JobRef, Input),
    /// The change, and who asked for it.
    Update(JobRef, Box<JobChange>, String),
    Delete(JobRef),
    /// Removes what retention does not keep, in small steps.
    Retention(RetentionWrite),
    /// An attempt to deliver a notice has ended.
    NoticeTried(NoticeTried),
    /// Makes a notice due now, with all its attempts.
    RetryNotice {
        notice: NoticeRef,
        at: Micros,
    },
    /// Forgets the oldest of those notices that are not waiting, beyond a number.
    ForgetNotices,
    /// Of the audit trail alone.
    Audit(AuditWrite),
    Void(VoidReport),
    SegmentRead(SegmentRow),
    Finish(Box<Finish>),
    /// Queues the jobs whose time has come.
    Due(Micros),
    /// Lets more jobs follow that waited for final ones; the writer's own.
    Release,
    Claim(ClaimRequest),
}

/// The result of a write, in the variant that belongs to it.
#[derive(Debug)]
pub enum WriteResult {
    Epoch(Epoch),
    QueueSet(QueueSet),
    QueueDeleted(QueueDeleted),
    ScheduleSet(ScheduleSet),
    /// Whether there was one.
    ScheduleDeleted(bool),
    Fired(Box<Fired>),
    Submitted(Result<Vec<SubmitOutcome>, BatchRefused>),
    Fenced(Fenced),
    StopRequested(Box<StopRequested>),
    PauseRequested(Box<PauseRequested>),
    Updated(Box<Updated>),
    Deleted(Box<Deleted>),
    Retention(RetentionWritten),
    TokenAdded(TokenAdded),
    /// The entries that were pruned; `None`: none was old enough.
    AuditPruned(Option<PrunedTrail>),
    /// Whether there was one.
    TokenChanged(bool),
    NoticeRetried(Box<NoticeRetried>),
    InputOutcome(Box<InputOutcome>),
    Claimed(Claimed),
    Due(NextDue),
    /// The write has no result.
    Done,
}

impl Write {
    /// The order in which the writes of a batch are executed; those of one rank in the order of
    /// arrival.
    ///
    /// Nothing of a batch has been answered yet, so all of it happens "at the same time" and any
    /// order is correct. This one follows a job's life and lets equal writes share one statement;
    /// claims come last, so that a slot that is freed in a batch is filled in it.
    pub fn rank(&self) -> u8 {
        match self {
            Self::BeginEpoch(..)
            | Self::SetQueue(_)
            | Self::DeleteQueue(_)
            | Self::SetSchedule(..)
            | Self::DeleteSchedule(_)
            | Self::AddToken(_)
            | Self::ChangeToken(_) => 0,
            Self::Submit(_) => 1,
            Self::Started(_) => 2,
            Self::Paused(_)
            | Self::StopRefused(_)
            | Self::RequestStop(..)
            | Self::RequestPause(_)
            | Self::Input(..)
            | Self::Update(..)
            | Self::Delete(_)
            | Self::Retention(_)
            | Self::NoticeTried(_)
            | Self::RetryNotice { .. }
            | Self::ForgetNotices
            | Self::SaveMcpSession { .. }
            | Self::DeleteMcpSession(_)
            | Self::McpAnswered(_)
            | Self::Fire(_)
            | Self::Audit(_)
            | Self::Void(_) => 3,
            Self::SegmentRead(_) => 4,
            Self::Finish(_) => 5,
            Self::Due(_) | Self::Release => 6,
            Self::Claim(_) => 7,
        }
    }

    /// Whether it stores something new. On a full disk such a write is refused, so that ends and
    /// requests can still be stored.
    pub fn can_wait(&self) -> bool {
        matches!(
            self,
            Self::Submit(_)
                | Self::SetQueue(_)
                | Self::SetSchedule(..)
                | Self::Fire(_)
                | Self::SaveMcpSession { .. }
                | Self::AddToken(_)
                | Self::McpAnswered(_)
                | Self::Audit(_)
                | Self::Update(..)
                | Self::Input(..)
                | Self::Claim(_)
        )
    }

    /// Whether it can wait until everything else that has arrived is committed, and then gets a
    /// transaction of its own.
    pub fn yields(&self) -> bool {
        matches!(
            self,
            Self::Retention(RetentionWrite::Remove(..) | RetentionWrite::Reclaim(_))
        )
    }

    /// About how many rows the write changes.
    pub fn rows(&self) -> usize {
        match self {
            Self::Submit(submissions) => submissions.len(),
            Self::Fire(firing) => firing.runs.len(),
            Self::Audit(AuditWrite::Add(entries)) => entries.len(),
            _ => 1,
        }
    }

    /// About how many bytes of the write-ahead log it takes: an upper bound for long texts and many rows.
    pub fn log_bytes(&self) -> u64 {
        self.data_bytes() / 4 * 5 + self.rows() as u64 * ROW_LOG_BYTES
    }

    /// About how many bytes of data it stores, beside a few hundred for each row.
    pub fn data_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Submit(submissions) => submissions.iter().map(|one| one.job.text_bytes()).sum(),
            Self::Finish(finish) => match &finish.kept {
                OutputPlacement::Rows { chunks, .. } => chunks.iter().map(|c| c.data.len()).sum(),
                OutputPlacement::Segments { .. } => 0,
            },
            Self::Input(_, input) => input.data.len(),
            Self::SaveMcpSession { opening, .. } => opening.len(),
            Self::SetSchedule(..) => Schedule::JOB_BYTES_MAX,
            Self::Fire(firing) => {
                let jobs = firing
                    .runs
                    .iter()
                    .filter_map(|run| run.submission.as_ref().ok());
                jobs.map(|one| one.job.text_bytes()).sum()
            }
            _ => 0,
        };
        bytes as u64
    }
}

impl Write {
    pub fn as_submit(&self) -> Option<&[Submission]> {
        match self {
            Self::Submit(submissions) => Some(submissions),
            _ => None,
        }
    }

    pub fn as_started(&self) -> Option<&StartedAttempt> {
        match self {
            Self::Started(started) => Some(started),
            _ => None,
        }
    }

    pub fn as_finish(&self) -> Option<&Finish> {
        match self {
            Self::Finish(finish) => Some(finish),
            _ => None,
        }
    }

    pub fn as_claim(&self) -> Option<&ClaimRequest> {
        match self {
            Self::Claim(claim) => Some(claim),
            _ => None,
        }
    }
}

/// A shim's report that the tree has stopped or continued.
#[derive(Debug, Clone)]
pub struct PauseReport {
    pub number: JobNumber,
    pub attempt: u32,
    pub paused: bool,
    pub actor: String,
    pub at: Micros,
}

/// A shim's report that the kernel does not let it signal some processes for a stop.
#[derive(Debug, Clone)]
pub struct RefusalReport {
    pub number: JobNumber,
    pub attempt: u32,
    pub refused: Vec<Survivor>,
}

/// A proof that an attempt never started.
#[derive(Debug, Clone)]
pub struct VoidReport {
    pub number: JobNumber,
    pub attempt: u32,
    pub at: Micros,
}

/// Idle shims that jobs can be given to.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    pub offers: Vec<ShimOffer>,
    pub boot_id: String,
    pub instance: String,
}

/// A request that a job pauses or resumes.
#[derive(Debug, Clone)]
pub struct PauseRequest {
    pub job: JobRef,
    pub pause: bool,
    pub actor: String,
    pub at: Micros,
}
