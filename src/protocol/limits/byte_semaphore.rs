//! How many bytes are held in memory for a client, and how to wait until they are fewer.
//!
//! One message may exceed the bound: a sender waits first and adds then. So up to the bound and one message
//! of each sender are held.

use std::sync::Arc;

use tokio::sync::watch;

use super::{buffered::BufferKind, memory_budget::SessionUsage};

/// Counts bytes against a bound. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ByteSemaphore {
    held: watch::Sender<usize>,
    max: usize,
    /// The session's usage, in which the bytes count too, and their kind there.
    usage: Arc<SessionUsage>,
    kind: BufferKind,
}

impl ByteSemaphore {
    /// Holds nothing yet; `max` is in bytes. What it holds counts as `kind` in `usage`, too.
    pub fn new(max: u64, usage: Arc<SessionUsage>, kind: BufferKind) -> Self {
        Self {
            held: watch::Sender::new(0),
            max: usize::try_from(max).unwrap_or(usize::MAX),
            usage,
            kind,
        }
    }

    /// Whether less than the bound is held.
    pub fn is_below_max(&self) -> bool {
        *self.held.borrow() < self.max
    }

    /// Returns when less than the bound is held.
    pub async fn wait_below_max(&self) {
        if self.is_below_max() {
            return;
        }
        // It fails only without a sender, and `self` is one.
        let _ = self
            .held
            .subscribe()
            .wait_for(|held| *held < self.max)
            .await;
    }

    /// Holds `bytes` more, until the permit is dropped.
    pub fn add(&self, bytes: usize) -> BytePermit {
        self.held.send_modify(|held| *held += bytes);
        self.usage.hold(self.kind, bytes);
        BytePermit {
            semaphore: self.clone(),
            bytes,
        }
    }
}

/// Bytes that a [`ByteSemaphore`] holds; dropping this releases them.
#[derive(Debug)]
pub struct BytePermit {
    semaphore: ByteSemaphore,
    bytes: usize,
}

impl BytePermit {
    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records that their client made progress with them.
    pub fn progressed(&self) {
        self.semaphore.usage.release(self.semaphore.kind, 0);
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.semaphore.held.send_modify(|held| *held -= self.bytes);
        self.semaphore
            .usage
            .release(self.semaphore.kind, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::limits::memory_budget::MemoryBudget;

    #[tokio::test(start_paused = true)]
    async fn a_full_semaphore_is_waited_for_until_enough_is_dropped() {
        let semaphore = ByteSemaphore::new(
            10,
            MemoryBudget::new(1 << 20).session_usage(),
            BufferKind::Replies,
        );
        let (nine, more) = (semaphore.add(9), semaphore.add(100));
        let waits = tokio::time::timeout(Duration::from_secs(3600), semaphore.wait_below_max());
        assert!(waits.await.is_err(), "109 bytes are above the bound");
        drop(nine);
        let waiter = tokio::spawn({
            let semaphore = semaphore.clone();
            async move { semaphore.wait_below_max().await }
        });
        drop(more);
        waiter.await.expect("below the bound again");
        semaphore.wait_below_max().await;
    }
}
