//! One attempt as the server watches it.

use crate::{
    job::{JobId, JobNumber, Micros, Offset},
    output::Digest,
    spool::SegmentName,
    store::{ClaimedJob, OpenAttempt},
};

/// Names an attempt; its number fences everything that is said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId {
    /// The job.
    pub job: JobNumber,
    /// The attempt.
    pub attempt: u32,
}

impl AttemptId {
    /// The attempt of a claim.
    pub fn of_claim(claim: &ClaimedJob) -> Self {
        Self {
            job: claim.number,
            attempt: claim.attempt,
        }
    }

    /// An open attempt.
    pub fn of_open(open: &OpenAttempt) -> Self {
        Self {
            job: open.number,
            attempt: open.attempt,
        }
    }
}

/// The segment that is the right to start an open attempt.
pub fn first_segment(open: &OpenAttempt) -> SegmentName {
    SegmentName {
        job: open.number,
        attempt: open.attempt,
        first_offset: open.start_offset,
    }
}

/// What the server must know to settle an attempt when it ends.
#[derive(Debug, Clone)]
pub struct AttemptWatch {
    /// Which attempt.
    pub key: AttemptId,
    /// The job's UUID.
    pub id: JobId,
    /// Where its output begins.
    pub start_offset: Offset,
    /// The digest as far as segments have rows.
    pub digest: Digest,
    /// Whether the start is committed.
    pub started_at: Option<Micros>,
}

impl AttemptWatch {
    /// The attempt of a claim.
    pub fn of_claim(claim: &ClaimedJob) -> Self {
        Self {
            key: AttemptId::of_claim(claim),
            id: claim.id,
            start_offset: claim.start_offset,
            digest: Digest::resume(claim.start_offset, claim.hash_state.as_deref()),
            started_at: None,
        }
    }

    /// What was hashed is to be hashed again. Of a later attempt nobody has the state at its
    /// beginning any more: its digest stays.
    pub fn read_again(&mut self) {
        if self.start_offset == 0 {
            self.digest = Digest::resume(0, None);
        }
    }

    /// An open attempt.
    pub fn of_open(open: &OpenAttempt) -> Self {
        Self {
            key: AttemptId::of_open(open),
            id: open.id,
            start_offset: open.start_offset,
            digest: Digest::resume(open.hashed_to, open.hash_state.as_deref()),
            started_at: open.started_at,
        }
    }
}
