//! Counts of jobs by state, counted again only after a write: many calls cost one query.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::SqlitePool;
use tokio::sync::Mutex;

use super::list;
use crate::store::types::Counts;

/// The last count, and whether it still holds.
#[derive(Debug, Default)]
pub(in crate::store) struct StateCounts {
    /// Transactions so far; raised before any of their writes is answered.
    written: AtomicU64,
    /// The value of `written` when the counts were read, and the counts.
    counted: Mutex<Option<(u64, Counts)>>,
}

impl StateCounts {
    /// Call it after every transaction, failed ones too, before its writes are answered.
    pub fn written(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// The counts as they were at some moment of this call, or later.
    pub async fn counts(&self, readers: &SqlitePool) -> sqlx::Result<Counts> {
        let mut counted = self.counted.lock().await;
        let written = self.written.load(Ordering::SeqCst);
        if let Some((at, counts)) = &*counted
            && *at == written
        {
            return Ok(counts.clone());
        }
        let counts = list::counts(readers).await?;
        *counted = Some((written, counts.clone()));
        Ok(counts)
    }
}
