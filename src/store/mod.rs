//! THE LEDGER: every SQL statement, and the one task that writes.

use std::path::Path;

use crate::job::{JobId, JobNumber, JobRef, Micros, Offset, StopWish};

mod types;
pub use types::*;

/// Why a database cannot be used. The server refuses to start with it; it is never replaced.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not ours, damaged, newer, or not to be opened.
    #[error("{0}")]
    Unusable(String),
}

/// The ledger: one writer, a few read-only readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Store {
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        todo!()
    }
    /// Increments and commits the epoch.
    pub async fn begin_epoch(&self, boot_id: &str) -> Result<Epoch, StoreError> {
        todo!()
    }
    /// Commits what has been handed in, checkpoints, and closes.
    pub async fn close(&self) {
        todo!()
    }
    pub async fn failed(&self) {
        todo!()
    }

    // ---- writes: each is answered after its transaction is durable; those that arrive together
    // share one transaction, in the order of arrival.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        todo!()
    }
    /// Gives queued jobs to offered shims, by queue bounds, priority and number.
    pub async fn claim(
        &self,
        offers: Vec<Offer>,
        boot_id: String,
        instance: String,
        at: Micros,
    ) -> Result<Claimed, StoreError> {
        todo!()
    }
    /// `finish`, then `claim`, in one transaction.
    pub async fn finish(&self, finish: Finish) -> Result<Fenced, StoreError> {
        todo!()
    }
    pub async fn started(&self, started: Started) -> Result<Fenced, StoreError> {
        todo!()
    }
    pub async fn paused(
        &self,
        number: JobNumber,
        attempt: u32,
        actor: String,
        at: Micros,
    ) -> Result<Fenced, StoreError> {
        todo!()
    }
    pub async fn resumed(
        &self,
        number: JobNumber,
        attempt: u32,
        actor: String,
        at: Micros,
    ) -> Result<Fenced, StoreError> {
        todo!()
    }
    pub async fn wish_stop(&self, job: JobRef, wish: StopWish) -> Result<Wished, StoreError> {
        todo!()
    }
    pub async fn wish_pause(
        &self,
        job: JobRef,
        pause: bool,
        actor: String,
        at: Micros,
    ) -> Result<PauseWished, StoreError> {
        todo!()
    }
    /// The attempt is proven never to have started: it becomes `void`, the job `queued` again (or
    /// `cancelled`, where a stop is wished).
    pub async fn void(
        &self,
        number: JobNumber,
        attempt: u32,
        at: Micros,
    ) -> Result<Fenced, StoreError> {
        todo!()
    }
    pub async fn segment_read(&self, row: SegmentRow) -> Result<Fenced, StoreError> {
        todo!()
    }

    // ---- reads
    pub async fn job(
        &self,
        job: JobRef,
        include: Include,
    ) -> Result<Option<crate::job::Job>, StoreError> {
        todo!()
    }
    pub async fn list(&self, filter: ListFilter) -> Result<JobPage, StoreError> {
        todo!()
    }
    /// State changes of a job with `event > after`, in order.
    pub async fn changes(
        &self,
        number: JobNumber,
        after: i64,
    ) -> Result<Vec<StateChange>, StoreError> {
        todo!()
    }
    /// The id of a job's newest event.
    pub async fn newest_change(&self, number: JobNumber) -> Result<i64, StoreError> {
        todo!()
    }
    pub async fn open_attempts(&self) -> Result<Vec<OpenAttempt>, StoreError> {
        todo!()
    }
    /// Where the byte at `offset` is; rows up to about `max_bytes` of data (at least one row).
    pub async fn stored(
        &self,
        number: JobNumber,
        offset: Offset,
        max_bytes: u64,
    ) -> Result<Stored, StoreError> {
        todo!()
    }
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        todo!()
    }
    pub async fn queue_exists(&self, queue: &str) -> Result<bool, StoreError> {
        todo!()
    }
    pub async fn job_number(&self, id: JobId) -> Result<Option<JobNumber>, StoreError> {
        todo!()
    }
}
