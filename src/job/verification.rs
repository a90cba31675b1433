//! What `verify` finds about a stored job: what is wrong with it, and where.

use serde::Serialize;

use super::{Gap, JobNumber, JobState, Offset};

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Bytes are missing: their rows or their file are gone.
    Missing,
    /// A file is not as it was written: a checksum is wrong, or it is truncated.
    Damaged,
    /// The bytes can be read, but are not those that were hashed when they were written.
    Changed,
    /// All bytes together do not have the job's `output_sha256`.
    Digest,
    /// Rows disagree about where bytes begin or end.
    Length,
    /// What was dropped and what is missing do not agree.
    Dropped,
    /// The job's attempts and its row do not agree.
    Attempts,
    /// The recorded state changes cannot have led to where the job is.
    Events,
}

/// A stored fact that does not agree with the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerificationProblem {
    /// Its kind.
    pub what: Fault,
    /// A sentence for people; programs use the other fields.
    pub message: String,
    /// The first byte of the output that it concerns; `None`: no range of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Offset>,
    /// The offset after the last of those bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Offset>,
    /// The attempt that it concerns; `None`: no single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Name of the file in the spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Position of the unreadable record in that file, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// The offset of the row of `output_chunks`, if it can only be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<Offset>,
    /// The id of the event that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<i64>,
}

impl VerificationProblem {
    /// A problem without a place; set the other fields where they are known.
    pub fn new(what: Fault, message: impl Into<String>) -> Self {
        Self {
            what,
            message: message.into(),
            from: None,
            to: None,
            attempt: None,
            segment: None,
            byte: None,
            row: None,
            event: None,
        }
    }

    /// The same problem, at these bytes of the output.
    pub fn of_bytes(self, from: Offset, to: Offset) -> Self {
        Self {
            from: Some(from),
            to: Some(to),
            ..self
        }
    }
}

/// The result of an assertion about an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it is true.
    pub found: bool,
    /// The offset at which the match begins; `None` for a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// The offset after the match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Offset>,
}

/// The result of verifying a stored job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Number of the job.
    pub job: JobNumber,
    /// The job's state.
    pub state: JobState,
    /// Whether everything is as it was recorded.
    pub intact: bool,
    /// Bytes of output that were verified, missing ones included.
    pub output_bytes: Offset,
    /// The digest of those bytes, hashed again; `None` where some are missing.
    pub output_sha256: Option<String>,
    /// The results of the assertions, in the order of the request.
    #[serde(rename = "claims")]
    pub assertions: Vec<Finding>,
    /// The problems, in the order in which they were found; the first ones, if there are many.
    pub problems: Vec<VerificationProblem>,
    /// How many more problems there are.
    #[serde(skip_serializing_if = "is_none")]
    pub more_problems: u64,
    /// Bytes that are recorded as missing: no problem.
    pub gaps: Vec<Gap>,
    /// How many more gaps there are.
    #[serde(skip_serializing_if = "is_none")]
    pub more_gaps: u64,
}

fn is_none(number: &u64) -> bool {
    *number == 0
}
