//! One attempt as the server watches it.

use crate::{
    job::{JobId, JobNumber, Micros, Offset},
    output::Digest,
    spool::SegmentName,
    store::{ClaimedJob, OpenAttempt},
};

/// Names an attempt. Every commit about an attempt names it, and changes nothing if it is not the
/// job's current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId {
    /// The job's number.
    pub job: JobNumber,
    /// The attempt's number within the job, from 1 on.
    pub attempt: u32,
}

impl AttemptId {
    /// The id of a claimed attempt.
    pub fn of_claim(claim: &ClaimedJob) -> Self {
        Self {
            job: claim.number,
            attempt: claim.attempt,
        }
    }

    /// The id of an open attempt.
    pub fn of_open(open: &OpenAttempt) -> Self {
        Self {
            job: open.number,
            attempt: open.attempt,
        }
    }
}

/// The first segment of an open attempt. Creating it takes the right to start the attempt, because
/// only one process can create it.
pub fn first_segment(open: &OpenAttempt) -> SegmentName {
    SegmentName {
        job: open.number,
        attempt: open.attempt,
        first_offset: open.start_offset,
    }
}

/// What the server must know to finalize an attempt when it ends.
#[derive(Debug, Clone)]
pub struct AttemptWatch {
    /// The attempt that is watched.
    pub key: AttemptId,
    /// The job's UUID.
    pub id: JobId,
    /// The offset at which the output of this attempt begins.
    pub start_offset: Offset,
    /// The digest of the output, up to the last segment that has a row.
    pub digest: Digest,
    /// When it started; `None` if its start is not committed yet.
    pub started_at: Option<Micros>,
    /// Whether the job expects something of its output.
    pub expects: bool,
}

impl AttemptWatch {
    /// Watches a claimed attempt from its beginning.
    pub fn of_claim(claim: &ClaimedJob) -> Self {
        Self {
            key: AttemptId::of_claim(claim),
            id: claim.id,
            start_offset: claim.start_offset,
            digest: Digest::resume(claim.start_offset, claim.hash_state.as_deref()),
            started_at: None,
            expects: !claim.job.expect.is_empty(),
        }
    }

    /// Makes the digest begin anew, so that what was hashed is hashed again. For an attempt that
    /// begins after offset 0 the state at its beginning is not kept, so its digest stays.
    pub fn read_again(&mut self) {
        if self.start_offset == 0 {
            self.digest = Digest::resume(0, None);
        }
    }

    /// Watches an open attempt, from the state that the database has.
    pub fn of_open(open: &OpenAttempt) -> Self {
        Self {
            key: AttemptId::of_open(open),
            id: open.id,
            start_offset: open.start_offset,
            digest: Digest::resume(open.hashed_to, open.hash_state.as_deref()),
            started_at: open.started_at,
            expects: open.expects,
        }
    }
}
