//! How many bytes are held in memory for a client, and waiting until they are fewer.
//!
//! A bound that one message may exceed: whoever adds waits first, so at most the bound and one
//! message of each who adds are held. What the bytes are is not known here.

use std::sync::Arc;

use tokio::sync::watch;

use super::{buffered::BufferKind, memory_budget::SessionUsage};

/// What is held. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ByteSemaphore {
    held: watch::Sender<usize>,
    max: usize,
    /// What the session holds in all, and which part of it this is.
    share: Arc<SessionUsage>,
    pile: BufferKind,
}

impl ByteSemaphore {
    /// Nothing yet; `max` is in bytes. What it holds counts as a pile of `share`, too.
    pub fn new(max: u64, share: Arc<SessionUsage>, pile: BufferKind) -> Self {
        Self {
            held: watch::Sender::new(0),
            max: usize::try_from(max).unwrap_or(usize::MAX),
            share,
            pile,
        }
    }

    /// Returns once less than the bound is held.
    pub async fn light(&self) {
        if *self.held.borrow() < self.max {
            return;
        }
        // It fails where the sender is gone, and we have one.
        let _ = self
            .held
            .subscribe()
            .wait_for(|held| *held < self.max)
            .await;
    }

    /// Holds so many bytes more, until the weight is dropped.
    pub fn add(&self, bytes: usize) -> BytePermit {
        self.held.send_modify(|held| *held += bytes);
        self.share.hold(self.pile, bytes);
        BytePermit {
            load: self.clone(),
            bytes,
        }
    }
}

/// A part of a [`ByteSemaphore`].
#[derive(Debug)]
pub struct BytePermit {
    load: ByteSemaphore,
    bytes: usize,
}

impl BytePermit {
    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.load.held.send_modify(|held| *held -= self.bytes);
        self.load.share.release(self.load.pile, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::limits::memory_budget::MemoryBudget;

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_it_heavy_waits_until_enough_is_dropped() {
        let load = ByteSemaphore::new(10, MemoryBudget::new(1 << 20).share(), BufferKind::Replies);
        let (nine, more) = (load.add(9), load.add(100));
        let waits = tokio::time::timeout(Duration::from_secs(3600), load.light());
        assert!(waits.await.is_err(), "109 bytes are no light load");
        drop(nine);
        let light = tokio::spawn({
            let load = load.clone();
            async move { load.light().await }
        });
        drop(more);
        light.await.expect("light again");
        load.light().await;
    }
}
