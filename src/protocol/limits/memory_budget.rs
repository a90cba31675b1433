//! One budget for what all sessions together hold in memory for their clients. If it is exceeded, the
//! session is evicted whose client has made no progress for the longest time with what is held for it.
//!
//! How an evicted session ends is in `ws::connection`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::buffered::{BufferKind, Buffered};

use crate::sys::lock;

/// What every session may hold without being counted, bytes.
pub const FREE_BYTES: usize = 64 << 10;
/// Long replies that all sessions together make at a time. Their sources take two to three times as much
/// memory as they do, and only a finished reply counts as held.
const LONG_REPLIES_MADE_MAX: usize = 4;

/// What all sessions together hold, and which sessions hold it.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: usize,
    /// Bytes that count: of each session what it holds beyond [`FREE_BYTES`].
    held: AtomicUsize,
    /// A logical clock that every change advances: only the order of progress matters.
    clock: AtomicU64,
    /// The number of the next session.
    next: AtomicU64,
    /// The sessions that hold more than [`FREE_BYTES`], by number.
    holders: Mutex<HashMap<u64, Arc<SessionUsage>>>,
    evicted: Mutex<u64>,
    long_replies: Semaphore,
}

/// The right to make a long reply.
#[derive(Debug)]
pub struct LongReplyPermit<'a>(
    #[expect(dead_code, reason = "held, not looked at")] SemaphorePermit<'a>,
);

impl MemoryBudget {
    /// An empty budget of `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX / 2),
            held: AtomicUsize::new(0),
            clock: AtomicU64::new(0),
            next: AtomicU64::new(0),
            holders: Mutex::default(),
            evicted: Mutex::default(),
            long_replies: Semaphore::new(LONG_REPLIES_MADE_MAX),
        })
    }

    /// The account of a new session.
    pub fn session_usage(self: &Arc<Self>) -> Arc<SessionUsage> {
        Arc::new(SessionUsage {
            budget: self.clone(),
            number: self.next.fetch_add(1, Ordering::Relaxed),
            account: Mutex::default(),
            arrived: AtomicU64::new(0),
            evicted: CancellationToken::new(),
        })
    }

    /// Waits until a long reply may be made. While the permit is held, its holder must not wait for a
    /// client.
    pub async fn long_reply_permit(&self) -> Option<LongReplyPermit<'_>> {
        // The semaphore is never closed.
        self.long_replies.acquire().await.ok().map(LongReplyPermit)
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<u64, Arc<SessionUsage>>> {
        // A panic cannot leave it half-changed.
        lock(&self.holders)
    }

    fn is_exceeded(&self) -> bool {
        self.held.load(Ordering::SeqCst) > self.bytes_max
    }

    /// Evicts sessions until the budget holds, or until the sessions that are left wait for the server and
    /// not for their clients.
    fn evict_until_within(&self) {
        // One thread at a time: two that see the same excess would evict one session too many.
        let mut evicted = lock(&self.evicted);
        while self.is_exceeded() {
            let any_session = self.held.load(Ordering::SeqCst) > self.bytes_max.saturating_mul(2);
            let holders: Vec<Arc<SessionUsage>> = self.holders().values().cloned().collect();
            let sessions = holders.iter().map(|usage| usage.account().buffered);
            let Some(longest) = longest_without_progress(sessions, any_session) else {
                return;
            };
            holders[longest].evict();
            *evicted += 1;
            // Under attack this happens all the time.
            if evicted.is_power_of_two() {
                tracing::warn!(
                    sessions = *evicted,
                    "sessions were closed: too much is held for clients that do not read, or do not \
                     finish their messages (held_bytes_max)"
                );
            }
        }
    }
}

/// The session whose client has made no progress for the longest time; with `any_session`, sessions that
/// wait for the server count too.
fn longest_without_progress(
    sessions: impl Iterator<Item = Buffered>,
    any_session: bool,
) -> Option<usize> {
    let since = sessions.enumerate().filter_map(|(at, buffered)| {
        let waiting = any_session.then(|| buffered.oldest()).flatten();
        Some((buffered.stuck_since().or(waiting)?, at))
    });
    since.min().map(|(_, at)| at)
}

/// What is held for the client of one session.
#[derive(Debug)]
pub struct SessionUsage {
    budget: Arc<MemoryBudget>,
    number: u64,
    account: Mutex<UsageAccount>,
    /// Bytes that have arrived in all.
    arrived: AtomicU64,
    evicted: CancellationToken,
}

#[derive(Debug, Default)]
struct UsageAccount {
    buffered: Buffered,
    /// Its part of what counts in the budget, bytes.
    counted: usize,
    /// The session has been evicted, and what it still holds does not count.
    is_evicted: bool,
}

impl SessionUsage {
    /// Returns when the session has to release everything.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Whether the session has to release everything.
    pub fn is_evicted(&self) -> bool {
        self.evicted.is_cancelled()
    }

    /// Adds `bytes` to what is held.
    pub fn hold(self: &Arc<Self>, kind: BufferKind, bytes: usize) {
        self.change(|buffered, now| buffered.of(kind).grow(bytes, now));
    }

    /// Removes `bytes`: progress.
    pub fn release(self: &Arc<Self>, kind: BufferKind, bytes: usize) {
        self.change(|buffered, now| buffered.of(kind).shrink(bytes, now));
    }

    /// Adds `bytes` of a message that have arrived.
    pub fn received(self: &Arc<Self>, bytes: usize) {
        self.arrived.fetch_add(bytes as u64, Ordering::Relaxed);
        self.change(|buffered, now| {
            let arriving = buffered.of(BufferKind::Arriving);
            arriving.grow(bytes, now);
            arriving.moved(bytes, now);
        });
    }

    /// How many bytes have arrived in all, also of a message that is not complete.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// The message is complete, or no more of it will come.
    pub fn message_complete(self: &Arc<Self>) {
        self.release(BufferKind::Arriving, usize::MAX);
    }

    /// Removes `bytes` that arrived and were no part of a message: no progress.
    pub fn discard(self: &Arc<Self>, bytes: usize) {
        self.change(|buffered, _| buffered.of(BufferKind::Arriving).forget(bytes));
    }

    /// The kernel has taken `bytes` for the client.
    pub fn written(self: &Arc<Self>, bytes: usize) {
        self.change(|buffered, now| buffered.of(BufferKind::Replies).moved(bytes, now));
    }

    /// How many bytes are held.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.account().buffered.bytes()
    }

    fn account(&self) -> MutexGuard<'_, UsageAccount> {
        // A panic cannot leave it half-changed.
        lock(&self.account)
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Buffered, u64)) {
        let mut account = self.account();
        change(&mut account.buffered, self.budget.now());
        let grown = !account.is_evicted && self.recount(&mut account);
        drop(account);
        if grown && self.budget.is_exceeded() {
            self.budget.evict_until_within();
        }
    }

    /// Counts again what is held beyond [`FREE_BYTES`]; true if it has become more.
    fn recount(self: &Arc<Self>, account: &mut UsageAccount) -> bool {
        let counted = account.buffered.bytes().saturating_sub(FREE_BYTES);
        let before = std::mem::replace(&mut account.counted, counted);
        match (before, counted) {
            (0, 1..) => drop(self.budget.holders().insert(self.number, self.clone())),
            (1.., 0) => drop(self.budget.holders().remove(&self.number)),
            _ => {}
        }
        // The atomic addition wraps around, so a negative difference subtracts.
        let more = counted.wrapping_sub(before);
        self.budget.held.fetch_add(more, Ordering::SeqCst);
        counted > before
    }

    /// Evicts the session: what it holds counts as released at once.
    fn evict(self: &Arc<Self>) {
        let mut account = self.account();
        account.buffered = Buffered::default();
        self.recount(&mut account);
        account.is_evicted = true;
        drop(account);
        self.evicted.cancel();
    }
}

#[cfg(test)]
#[path = "memory_budget_tests.rs"]
mod tests;
