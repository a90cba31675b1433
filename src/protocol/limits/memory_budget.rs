//! What all sessions together hold for their clients, against one budget, and who lets go when it
//! is passed: the one whose client has done nothing for the longest time about what is held for it.
//!
//! How a session ends, and what the bytes are, is not known here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::buffered::{BufferKind, Buffered};

/// What every session may hold without being counted, bytes.
pub const FREE_BYTES: usize = 64 << 10;
/// Long replies that are being made at a time, by all sessions: what they are made of takes two to
/// three times as much as they do, and counts only once it is a reply.
const LONG_REPLIES_MADE_MAX: usize = 4;

/// What is held for all, and for whom.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: usize,
    /// Beyond what is free.
    held: AtomicUsize,
    /// How often anybody has made progress: order is all that matters, so there is no clock.
    moments: AtomicU64,
    /// Names the next session.
    next: AtomicU64,
    /// Those for whom more is held than is free.
    holders: Mutex<HashMap<u64, Arc<SessionUsage>>>,
    evicted: Mutex<u64>,
    making: Semaphore,
}

/// The right to make a long reply.
#[derive(Debug)]
pub struct Making<'a>(#[expect(dead_code, reason = "held, not looked at")] SemaphorePermit<'a>);

impl MemoryBudget {
    /// Nothing is held yet, and this may be, in bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX / 2),
            held: AtomicUsize::new(0),
            moments: AtomicU64::new(0),
            next: AtomicU64::new(0),
            holders: Mutex::default(),
            evicted: Mutex::default(),
            making: Semaphore::new(LONG_REPLIES_MADE_MAX),
        })
    }

    /// The share of a session that begins.
    pub fn share(self: &Arc<Self>) -> Arc<SessionUsage> {
        Arc::new(SessionUsage {
            hoard: self.clone(),
            number: self.next.fetch_add(1, Ordering::Relaxed),
            account: Mutex::default(),
            evicted: CancellationToken::new(),
        })
    }

    /// Waits until a long reply may be made. Whoever has the right must not wait for a client.
    pub async fn making(&self) -> Option<Making<'_>> {
        // It is never closed.
        self.making.acquire().await.ok().map(Making)
    }

    fn now(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<u64, Arc<SessionUsage>>> {
        // A panic cannot leave it half-changed.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_passed(&self) -> bool {
        self.held.load(Ordering::SeqCst) > self.bytes_max
    }

    /// Evicts until the budget holds, or those that are left wait for us and not we for them.
    fn relieve(&self) {
        // One at a time: two that see the same would evict one more than they need.
        let mut evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        while self.is_passed() {
            let anybody = self.held.load(Ordering::SeqCst) > self.bytes_max.saturating_mul(2);
            let holders: Vec<Arc<SessionUsage>> = self.holders().values().cloned().collect();
            let standings = holders.iter().map(|share| share.account().piles);
            let Some(longest) = longest_without_progress(standings, anybody) else {
                return;
            };
            holders[longest].evict();
            *evicted += 1;
            // Under attack it happens all the time.
            if evicted.is_power_of_two() {
                tracing::warn!(
                    sessions = *evicted,
                    "sessions were closed because too much is held for clients that do not read, or \
                     do not finish their messages (held_bytes_max)"
                );
            }
        }
    }
}

/// Whose client has done nothing for the longest time; where `anybody` is set, those count too that
/// wait for us.
fn longest_without_progress(
    standings: impl Iterator<Item = Buffered>,
    anybody: bool,
) -> Option<usize> {
    let since = standings.enumerate().filter_map(|(at, piles)| {
        let waiting = anybody.then(|| piles.oldest()).flatten();
        Some((piles.stuck_since().or(waiting)?, at))
    });
    since.min().map(|(_, at)| at)
}

/// What is held for the client of one session.
#[derive(Debug)]
pub struct SessionUsage {
    hoard: Arc<MemoryBudget>,
    number: u64,
    account: Mutex<UsageAccount>,
    evicted: CancellationToken,
}

#[derive(Debug, Default)]
struct UsageAccount {
    piles: Buffered,
    /// Its part of what all hold, bytes.
    counted: usize,
    /// It has been told to let go, and counts no more.
    is_evicted: bool,
}

impl SessionUsage {
    /// Returns once the session has to let go of everything.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Whether it has to.
    pub fn is_evicted(&self) -> bool {
        self.evicted.is_cancelled()
    }

    /// So many bytes more are held.
    pub fn hold(self: &Arc<Self>, pile: BufferKind, bytes: usize) {
        self.change(|piles, now| piles.of(pile).grow(bytes, now));
    }

    /// So many bytes less: progress.
    pub fn release(self: &Arc<Self>, pile: BufferKind, bytes: usize) {
        self.change(|piles, now| piles.of(pile).shrink(bytes, now));
    }

    /// So many bytes of a message have come.
    pub fn arrive(self: &Arc<Self>, bytes: usize) {
        self.change(|piles, now| {
            let arriving = piles.of(BufferKind::Arriving);
            arriving.grow(bytes, now);
            arriving.moved(bytes, now);
        });
    }

    /// The message is whole, or no more of it will come.
    pub fn arrived(self: &Arc<Self>) {
        self.release(BufferKind::Arriving, usize::MAX);
    }

    /// So many bytes of what came were no part of a message.
    pub fn pass(self: &Arc<Self>, bytes: usize) {
        self.change(|piles, _| piles.of(BufferKind::Arriving).forget(bytes));
    }

    /// The client's side has taken so many bytes.
    pub fn take(self: &Arc<Self>, bytes: usize) {
        self.change(|piles, now| piles.of(BufferKind::Replies).moved(bytes, now));
    }

    fn account(&self) -> MutexGuard<'_, UsageAccount> {
        // A panic cannot leave it half-changed.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Buffered, u64)) {
        let mut account = self.account();
        change(&mut account.piles, self.hoard.now());
        let grown = !account.is_evicted && self.count(&mut account);
        drop(account);
        if grown && self.hoard.is_passed() {
            self.hoard.relieve();
        }
    }

    /// Counts anew what is held beyond what is free; whether it has become more.
    fn count(self: &Arc<Self>, account: &mut UsageAccount) -> bool {
        let counted = account.piles.bytes().saturating_sub(FREE_BYTES);
        let before = std::mem::replace(&mut account.counted, counted);
        match (before, counted) {
            (0, 1..) => drop(self.hoard.holders().insert(self.number, self.clone())),
            (1.., 0) => drop(self.hoard.holders().remove(&self.number)),
            _ => {}
        }
        // It wraps around, down as well as up.
        let more = counted.wrapping_sub(before);
        self.hoard.held.fetch_add(more, Ordering::SeqCst);
        counted > before
    }

    /// What it holds is as good as gone.
    fn evict(self: &Arc<Self>) {
        let mut account = self.account();
        account.piles = Buffered::default();
        self.count(&mut account);
        account.is_evicted = true;
        drop(account);
        self.evicted.cancel();
    }
}

#[cfg(test)]
#[path = "hoard_tests.rs"]
mod tests;
