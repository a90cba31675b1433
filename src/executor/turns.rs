//! Shares out work that keeps a processor busy, such as searches and digests, in short turns. Each
//! session works on one piece of output at a time; turns are given in the order in which they were
//! asked for, so that no session waits for the whole work of another.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Executor};

/// Bounds what one session does at the same time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionTurns {
    /// Held while one piece of an output is read and searched: it bounds the memory that a session
    /// uses.
    pieces: Arc<Semaphore>,
    /// Held for a whole verification.
    pub(super) verifying: Arc<Semaphore>,
    /// Held for a whole search over outputs, and until its answer was taken.
    pub(super) searching: Arc<Semaphore>,
}

impl Default for SessionTurns {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self {
            pieces: one(),
            verifying: one(),
            searching: one(),
        }
    }
}

impl SessionTurns {
    /// Waits until the session works on no other piece.
    pub(super) async fn piece(&self) -> Result<OwnedSemaphorePermit, Error> {
        acquire(&self.pieces).await
    }
}

/// A permit, as soon as one is free.
pub(super) async fn acquire(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    let slot = slots.clone().acquire_owned().await;
    slot.map_err(|_| Error::stopping())
}

impl Executor {
    /// Does work of a bounded length on a thread for blocking work, when it is its turn. If the
    /// future is dropped, work that has begun is done to its end, and keeps its turn until then.
    pub async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let slot = acquire(&self.inner.search_slots).await?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        done.await
            .map_err(|error| Error::Internal(format!("a part of the work failed: {error}")))
    }
}
