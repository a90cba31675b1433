//! How many jobs are in each state, counted again only after something was written: a flood of
//! those who ask costs one look.
//!
//! What was written is not known here.

use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::SqlitePool;
use tokio::sync::Mutex;

use super::list;
use crate::store::types::Counts;

/// The last count, and whether it still holds.
#[derive(Debug, Default)]
pub(in crate::store) struct StateCounts {
    /// Transactions so far; raised before anybody is answered.
    written: AtomicU64,
    /// Counted when so many had been written.
    counted: Mutex<Option<(u64, Counts)>>,
}

impl StateCounts {
    /// A transaction has been tried; whoever was in it is not answered yet.
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
