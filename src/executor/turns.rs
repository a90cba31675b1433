//! Turns at work that keeps a processor busy: searches and digests. Each session has a share of its
//! own and takes one piece at a time; among the sessions turns are taken in the order in which they
//! were asked for, so that nobody waits for the whole of what another one wants.
//!
//! What the work is, is not known here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Executor};

/// What one session may do at the same time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionTurns {
    /// Held while one piece of an output is read and looked through: it bounds what is held of it.
    pieces: Arc<Semaphore>,
    /// Held for a whole verification.
    pub(super) verifying: Arc<Semaphore>,
}

impl Default for SessionTurns {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self {
            pieces: one(),
            verifying: one(),
        }
    }
}

impl SessionTurns {
    /// Waits until the session looks through nothing else.
    pub(super) async fn piece(&self) -> Result<OwnedSemaphorePermit, Error> {
        acquire(&self.pieces).await
    }
}

/// A place, when there is one.
pub(super) async fn acquire(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    let slot = slots.clone().acquire_owned().await;
    slot.map_err(|_| Error::stopping())
}

impl Executor {
    /// Does work of a bounded length where nobody waits for the thread, when it is its turn. Dropping
    /// the future leaves the work that has begun to its end, and its turn with it.
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
