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

use super::piles::{Pile, Piles};

/// What every session may hold without being counted, bytes.
pub const FREE_BYTES: usize = 64 << 10;
/// Long replies that are being made at a time, by all sessions: what they are made of takes two to
/// three times as much as they do, and counts only once it is a reply.
const LONG_REPLIES_MADE_MAX: usize = 4;

/// What is held for all, and for whom.
#[derive(Debug)]
pub struct Hoard {
    bytes_max: usize,
    /// Beyond what is free.
    held: AtomicUsize,
    /// How often anybody has made progress: order is all that matters, so there is no clock.
    moments: AtomicU64,
    /// Names the next session.
    next: AtomicU64,
    /// Those for whom more is held than is free.
    holders: Mutex<HashMap<u64, Arc<Share>>>,
    evicted: Mutex<u64>,
    making: Semaphore,
}

/// The right to make a long reply.
#[derive(Debug)]
pub struct Making<'a>(#[expect(dead_code, reason = "held, not looked at")] SemaphorePermit<'a>);

impl Hoard {
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
    pub fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share {
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

    fn holders(&self) -> MutexGuard<'_, HashMap<u64, Arc<Share>>> {
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
            let holders: Vec<Arc<Share>> = self.holders().values().cloned().collect();
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
    standings: impl Iterator<Item = Piles>,
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
pub struct Share {
    hoard: Arc<Hoard>,
    number: u64,
    account: Mutex<Account>,
    evicted: CancellationToken,
}

#[derive(Debug, Default)]
struct Account {
    piles: Piles,
    /// Its part of what all hold, bytes.
    counted: usize,
    /// It has been told to let go, and counts no more.
    is_evicted: bool,
}

impl Share {
    /// Returns once the session has to let go of everything.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Whether it has to.
    pub fn is_evicted(&self) -> bool {
        self.evicted.is_cancelled()
    }

    /// So many bytes more are held.
    pub fn hold(self: &Arc<Self>, pile: Pile, bytes: usize) {
        self.change(|piles, now| piles.of(pile).grow(bytes, now));
    }

    /// So many bytes less: progress.
    pub fn release(self: &Arc<Self>, pile: Pile, bytes: usize) {
        self.change(|piles, now| piles.of(pile).shrink(bytes, now));
    }

    /// So many bytes of a message have come.
    pub fn arrive(self: &Arc<Self>, bytes: usize) {
        self.change(|piles, now| {
            let arriving = piles.of(Pile::Arriving);
            arriving.grow(bytes, now);
            arriving.moved(bytes, now);
        });
    }

    /// The message is whole, or no more of it will come.
    pub fn arrived(self: &Arc<Self>) {
        self.release(Pile::Arriving, usize::MAX);
    }

    /// So many bytes of what came were no part of a message.
    pub fn pass(self: &Arc<Self>, bytes: usize) {
        self.change(|piles, _| piles.of(Pile::Arriving).forget(bytes));
    }

    /// The client's side has taken so many bytes.
    pub fn take(self: &Arc<Self>, bytes: usize) {
        self.change(|piles, now| piles.of(Pile::Replies).moved(bytes, now));
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // A panic cannot leave it half-changed.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Piles, u64)) {
        let mut account = self.account();
        change(&mut account.piles, self.hoard.now());
        let grown = !account.is_evicted && self.count(&mut account);
        drop(account);
        if grown && self.hoard.is_passed() {
            self.hoard.relieve();
        }
    }

    /// Counts anew what is held beyond what is free; whether it has become more.
    fn count(self: &Arc<Self>, account: &mut Account) -> bool {
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
        account.piles = Piles::default();
        self.count(&mut account);
        account.is_evicted = true;
        drop(account);
        self.evicted.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn evicted(shares: &[Arc<Share>]) -> Vec<bool> {
        shares.iter().map(|share| share.is_evicted()).collect()
    }

    fn held(hoard: &Hoard) -> usize {
        hoard.held.load(Ordering::SeqCst)
    }

    fn hoard_of<const N: usize>(bytes_max: usize) -> (Arc<Hoard>, [Arc<Share>; N]) {
        let hoard = Hoard::new(bytes_max as u64);
        let shares = std::array::from_fn(|_| hoard.share());
        (hoard, shares)
    }

    #[test]
    fn little_is_free_and_everything_comes_back() {
        let (hoard, shares) = hoard_of::<100>(KIB);
        for share in &shares {
            share.hold(Pile::Replies, FREE_BYTES / 2);
            share.arrive(FREE_BYTES / 2);
        }
        assert_eq!((held(&hoard), hoard.holders().len()), (0, 0));
        shares[0].hold(Pile::Requests, 100);
        assert_eq!((held(&hoard), hoard.holders().len()), (100, 1));
        shares[0].arrived();
        assert_eq!((held(&hoard), hoard.holders().len()), (0, 0));
        assert!(!evicted(&shares).contains(&true));
    }

    #[test]
    fn the_longest_without_progress_lets_go_and_no_more_than_needed() {
        let (hoard, shares) = hoard_of::<4>(1000 * KIB);
        for share in &shares[..3] {
            share.hold(Pile::Replies, 364 * KIB);
        }
        assert_eq!(held(&hoard), 900 * KIB);
        // The first one reads, the second one does not.
        shares[0].take(100 * KIB);
        shares[3].arrive(164 * KIB);
        assert_eq!(evicted(&shares), [false, false, false, false]);
        shares[3].arrive(KIB);
        assert_eq!(evicted(&shares), [false, true, false, false]);
        assert_eq!(held(&hoard), 701 * KIB);
        // What it still lets go of is not counted twice.
        shares[1].release(Pile::Replies, 364 * KIB);
        shares[1].hold(Pile::Replies, 1000 * KIB);
        assert_eq!(held(&hoard), 701 * KIB);
    }

    /// A byte now and then is no progress.
    #[test]
    fn a_message_that_drips_lets_go_before_one_that_flows() {
        let (_hoard, shares) = hoard_of::<3>(1000 * KIB);
        shares[0].arrive(500 * KIB);
        shares[1].arrive(500 * KIB);
        for _ in 0..1000 {
            shares[0].arrive(1);
        }
        shares[1].arrive(20 * KIB);
        shares[2].arrive(200 * KIB);
        assert_eq!(evicted(&shares), [true, false, false]);
    }

    #[test]
    fn who_sends_and_reads_outlasts_any_number_that_do_not() {
        let (hoard, [honest]) = hoard_of::<1>(4096 * KIB);
        for round in 0..1000 {
            let deaf = hoard.share();
            deaf.hold(Pile::Replies, 700 * KIB);
            let endless = hoard.share();
            endless.arrive(600 * KIB);
            honest.arrive(900 * KIB);
            honest.arrived();
            honest.hold(Pile::Requests, 900 * KIB);
            honest.hold(Pile::Replies, 700 * KIB);
            honest.take(700 * KIB);
            honest.release(Pile::Requests, 900 * KIB);
            honest.release(Pile::Replies, 700 * KIB);
            assert!(!honest.is_evicted(), "round {round}");
            assert!(held(&hoard) <= 4096 * KIB);
        }
        assert!(hoard.holders().len() < 8);
    }

    #[test]
    fn who_waits_for_us_is_left_alone_up_to_twice_the_budget() {
        let (hoard, shares) = hoard_of::<5>(1000 * KIB);
        for share in &shares[..4] {
            share.hold(Pile::Requests, 500 * KIB + FREE_BYTES);
        }
        assert_eq!(held(&hoard), 2000 * KIB);
        assert!(!evicted(&shares).contains(&true));
        shares[4].hold(Pile::Requests, FREE_BYTES + 1);
        assert_eq!(evicted(&shares), [true, false, false, false, false]);
    }

    #[test]
    fn who_leaves_holds_nothing() {
        let (hoard, [share]) = hoard_of::<1>(1000 * KIB);
        share.arrive(500 * KIB);
        share.arrived();
        drop(share);
        assert_eq!((held(&hoard), hoard.holders().len()), (0, 0));
    }
}
