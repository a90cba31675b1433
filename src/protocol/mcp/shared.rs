//! What all MCP sessions of a server share: how many answers are made at a time, which replies are on their
//! way, and which waits were empty.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Mutex,
};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::{job::JobNumber, sys::lock};

/// Most answers that are made at the same time: each holds megabytes of output.
const SCANS_MAX: usize = 4;
/// Locks among which the runs that may be the same are distributed.
const START_LOCKS: usize = 64;
/// Most empty waits that are remembered, the newest.
const EMPTY_WAITS_MAX: usize = 1024;

/// What all MCP sessions of a server share.
#[derive(Debug)]
pub struct McpShared {
    scans: Semaphore,
    starts: [tokio::sync::Mutex<()>; START_LOCKS],
    /// Calls that wait to tell their client of a job, and when that client has left.
    awaited: Mutex<BTreeMap<u64, (JobNumber, CancellationToken)>>,
    empty_waits: Mutex<EmptyWaits>,
}

/// Waits that ended without news, by what they waited for.
#[derive(Debug, Default)]
struct EmptyWaits {
    counts: HashMap<String, u32>,
    order: VecDeque<String>,
}

/// Held while a `run` waits for its job and its client is connected.
#[derive(Debug)]
pub struct Awaited<'a> {
    shared: &'a McpShared,
    number: u64,
}

impl Default for McpShared {
    fn default() -> Self {
        Self {
            scans: Semaphore::new(SCANS_MAX),
            starts: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            awaited: Mutex::default(),
            empty_waits: Mutex::default(),
        }
    }
}

impl McpShared {
    /// Waits for the permit to hold the part of an output from which an answer is made.
    pub async fn scan_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.scans.acquire().await.ok()
    }

    /// Waits until no other run of this name is about to start, so that the second one sees the first.
    pub async fn turn_to_start(&self, run: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        run.hash(&mut hasher);
        let at = hasher.finish() as usize % START_LOCKS;
        self.starts[at].lock().await
    }

    /// Records that a call waits to tell its client of this job; `left` is cancelled when the client has
    /// left.
    pub fn await_reply(&self, job: JobNumber, left: CancellationToken) -> Awaited<'_> {
        let mut awaited = lock(&self.awaited);
        let number = awaited.last_key_value().map_or(0, |(last, _)| last + 1);
        awaited.insert(number, (job, left));
        Awaited {
            shared: self,
            number,
        }
    }

    /// Whether a call waits to tell its client of this job, and that client is there.
    pub fn is_awaited(&self, job: JobNumber) -> bool {
        let awaited = lock(&self.awaited);
        awaited
            .values()
            .any(|(one, left)| *one == job && !left.is_cancelled())
    }

    /// Counts a wait that ended without news; returns how many in a row were the same.
    pub fn count_empty_wait(&self, wait: &str) -> u32 {
        let mut waits = lock(&self.empty_waits);
        if let Some(count) = waits.counts.get_mut(wait) {
            *count += 1;
            return *count;
        }
        if waits.order.len() >= EMPTY_WAITS_MAX
            && let Some(oldest) = waits.order.pop_front()
        {
            waits.counts.remove(&oldest);
        }
        waits.order.push_back(wait.to_owned());
        waits.counts.insert(wait.to_owned(), 1);
        1
    }

    /// Forgets the empty waits of this kind: there was news.
    pub fn forget_empty_wait(&self, wait: &str) {
        let mut waits = lock(&self.empty_waits);
        if waits.counts.remove(wait).is_some() {
            waits.order.retain(|known| known != wait);
        }
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        lock(&self.shared.awaited).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_awaited_until_its_last_call_has_ended() {
        let shared = McpShared::default();
        let left = CancellationToken::new();
        let first = shared.await_reply(1, left.clone());
        let second = shared.await_reply(1, CancellationToken::new());
        drop(second);
        assert!(shared.is_awaited(1));
        left.cancel();
        assert!(!shared.is_awaited(1), "its client has left");
        drop(first);
        assert!(!shared.is_awaited(1));
    }

    #[test]
    fn equal_empty_waits_are_counted_and_the_oldest_is_forgotten() {
        let shared = McpShared::default();
        assert_eq!(shared.count_empty_wait("a"), 1);
        assert_eq!(shared.count_empty_wait("a"), 2);
        shared.forget_empty_wait("a");
        assert_eq!(shared.count_empty_wait("a"), 1);
        for other in 0..EMPTY_WAITS_MAX {
            shared.count_empty_wait(&other.to_string());
        }
        assert_eq!(shared.count_empty_wait("a"), 1);
    }
}
