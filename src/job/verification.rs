//! What a look at a stored job finds: what is wrong with it, and where.
//!
//! How it is looked at is not known here.

use serde::Serialize;

use super::{Gap, JobNumber, JobState, Offset};

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Bytes are not there: their rows or their file are gone.
    Missing,
    /// A file is not as it was written: a checksum is wrong, or it is cut off.
    Damaged,
    /// The bytes can be read, and are not those that were hashed when they were written.
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

/// Something that is not as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerificationProblem {
    /// What kind of thing.
    pub what: Fault,
    /// A sentence for people.
    pub message: String,
    /// The first byte of the output that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Offset>,
    /// The first byte behind those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Offset>,
    /// The attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The file in the spool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Where in that file the record begins that cannot be read, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// The offset of the row of `output_chunks`, where it can be but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<Offset>,
    /// The id of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<i64>,
}

impl VerificationProblem {
    /// A problem of which nothing but this is known.
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

    /// The same, about these bytes of the output.
    pub fn of_bytes(self, from: Offset, to: Offset) -> Self {
        Self {
            from: Some(from),
            to: Some(to),
            ..self
        }
    }
}

/// What became of a claim about an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it is true.
    pub found: bool,
    /// Where the match begins; none for a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Where it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Offset>,
}

/// What there is to say about a stored job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Number of the job.
    pub job: JobNumber,
    /// Its state.
    pub state: JobState,
    /// Whether everything is as it was recorded.
    pub intact: bool,
    /// So many bytes of output were looked through, missing ones included.
    pub output_bytes: Offset,
    /// The digest of those bytes, hashed anew; none where some are missing.
    pub output_sha256: Option<String>,
    /// What became of the claims, in the order in which they came.
    pub claims: Vec<Finding>,
    /// What is wrong, in the order in which it was met.
    pub problems: Vec<VerificationProblem>,
    /// How many more problems there are.
    #[serde(skip_serializing_if = "is_none")]
    pub more_problems: u64,
    /// Bytes that the record itself says are missing: no problem.
    pub gaps: Vec<Gap>,
    /// How many more gaps there are.
    #[serde(skip_serializing_if = "is_none")]
    pub more_gaps: u64,
}

fn is_none(number: &u64) -> bool {
    *number == 0
}
