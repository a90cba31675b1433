//! How fast sessions may send requests. Each has a burst of its own (a token bucket); sessions that have
//! used it up wait in one fair queue, so that they leave the processor to the others.
//!
//! No request is refused: a session that waits for its turn is not read from. A session that is alone in
//! the queue is not slowed down.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::{config::Settings, sys::lock};

/// Bytes of a request or a reply that count as one more request.
const REQUEST_BYTES: f64 = 4096.0;
/// The debt, in requests, from which on a session waits: clocks are too coarse for single requests.
const DEBT_MIN: f64 = 16.0;

/// How long new sessions get no burst after an eviction: an evicted client reconnects, and would get
/// another burst each time.
const NO_BURST_AFTER_EVICTION: Duration = Duration::from_secs(30);

/// How long after its turn a session counts as active in the queue.
const LATELY: Duration = Duration::from_secs(1);

/// The queue of all sessions that have used up their burst.
#[derive(Debug)]
pub struct FairQueue {
    turn: Semaphore,
    /// The last two sessions that had a turn, and when: enough to tell whether a session is alone.
    last_turns: Mutex<[Option<(u64, Instant)>; 2]>,
    /// When a session was last evicted.
    evicted_at: Mutex<Option<Instant>>,
    /// The number of the next session.
    next: AtomicU64,
    requests_per_s: f64,
}

impl FairQueue {
    /// An empty queue.
    pub fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            turn: Semaphore::new(1),
            last_turns: Mutex::default(),
            evicted_at: Mutex::default(),
            next: AtomicU64::new(0),
            requests_per_s: settings.flood_requests_per_s as f64,
        })
    }

    /// A session was evicted: new sessions get no burst for a while.
    pub fn record_eviction(&self) {
        *lock(&self.evicted_at) = Some(Instant::now());
    }

    fn evicted_lately(&self) -> bool {
        let evicted_at = *lock(&self.evicted_at);
        evicted_at.is_some_and(|at| at.elapsed() < NO_BURST_AFTER_EVICTION)
    }

    /// Waits for a turn, and, unless the session is alone, for as long as its debt takes at the common
    /// rate.
    async fn wait_for_turn(&self, session: u64, debt: f64) {
        // The semaphore is never closed.
        let _turn = self.turn.acquire().await;
        if !self.is_alone(session) {
            let length = Duration::from_secs_f64(debt / self.requests_per_s);
            #[expect(clippy::disallowed_methods, reason = "this is the rate limit itself")]
            tokio::time::sleep(length).await;
        }
    }

    fn is_alone(&self, session: u64) -> bool {
        let now = Instant::now();
        // A panic cannot leave it half-changed.
        let mut last_turns = lock(&self.last_turns);
        let is_other = |(other, at): &(u64, Instant)| *other != session && now - *at < LATELY;
        let other = last_turns.into_iter().flatten().find(is_other);
        *last_turns = [Some((session, now)), other];
        other.is_none()
    }
}

/// How much one session may still send before it waits in the queue.
#[derive(Debug)]
pub struct RateLimiter {
    fair_queue: Arc<FairQueue>,
    session: u64,
    burst_max: f64,
    per_s: f64,
    bucket: Mutex<TokenBucket>,
}

#[derive(Debug, Clone, Copy)]
struct TokenBucket {
    /// Requests; a debt if below zero.
    left: f64,
    at: Instant,
}

impl RateLimiter {
    /// With a whole burst, or with none soon after an eviction.
    pub fn new(fair_queue: Arc<FairQueue>, settings: &Settings) -> Self {
        let burst_max = settings.requests_burst_max as f64;
        let left = if fair_queue.evicted_lately() {
            0.0
        } else {
            burst_max
        };
        Self {
            session: fair_queue.next.fetch_add(1, Ordering::Relaxed),
            fair_queue,
            burst_max,
            per_s: settings.requests_per_s as f64,
            bucket: Mutex::new(TokenBucket {
                left,
                at: Instant::now(),
            }),
        }
    }

    /// Charges a request of `bytes` that has arrived.
    pub fn charge_request(&self, bytes: usize) {
        self.bucket().left -= 1.0 + bytes as f64 / REQUEST_BYTES;
    }

    /// Charges a reply of `bytes`.
    pub fn charge_reply(&self, bytes: usize) {
        self.bucket().left -= bytes as f64 / REQUEST_BYTES;
    }

    /// Returns when the session may send its next request. Cancel-safe.
    pub async fn wait_until_allowed(&self) {
        let debt = -self.left();
        if debt >= DEBT_MIN {
            self.fair_queue.wait_for_turn(self.session, debt).await;
            self.bucket().left += debt;
        }
    }

    /// What is left, including what has come back since the last call.
    fn left(&self) -> f64 {
        let now = Instant::now();
        let mut bucket = self.bucket();
        let back = (now - bucket.at).as_secs_f64() * self.per_s;
        bucket.left = (bucket.left + back).min(self.burst_max);
        bucket.at = now;
        bucket.left
    }

    fn bucket(&self) -> MutexGuard<'_, TokenBucket> {
        // A panic cannot leave it half-changed.
        lock(&self.bucket)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::time::timeout;

    use super::*;
    use crate::config;

    fn settings(burst: u64, per_s: u64, flood_per_s: u64) -> Settings {
        let defaults = config::load_from(None, BTreeMap::new(), &BTreeMap::new());
        Settings {
            requests_burst_max: burst,
            requests_per_s: per_s,
            flood_requests_per_s: flood_per_s,
            ..defaults.expect("defaults").settings
        }
    }

    /// Sends `times` requests; returns how long that took.
    async fn send_requests(rate_limiter: &RateLimiter, times: u32) -> Duration {
        let began = Instant::now();
        for _ in 0..times {
            rate_limiter.wait_until_allowed().await;
            rate_limiter.charge_request(0);
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn one_alone_is_not_slowed_down() {
        let settings = settings(10, 1, 100);
        let rate_limiter = RateLimiter::new(FairQueue::new(&settings), &settings);
        assert_eq!(send_requests(&rate_limiter, 10_000).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn queued_sessions_share_a_rate_and_a_burst_is_free() {
        let settings = settings(100, 1, 1000);
        let fair_queue = FairQueue::new(&settings);
        let busy_session = |_| {
            let rate_limiter = RateLimiter::new(fair_queue.clone(), &settings);
            tokio::spawn(async move { send_requests(&rate_limiter, 2100).await })
        };
        let busy: Vec<_> = (0..10).map(busy_session).collect();
        let honest = RateLimiter::new(fair_queue.clone(), &settings);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(send_requests(&honest, 100).await, Duration::ZERO);
        let mut longest = Duration::ZERO;
        for one in busy {
            longest = longest.max(one.await.expect("no panic"));
        }
        // Ten times 2,000 beyond the burst at 1,000 a second, less what came back meanwhile.
        assert!(longest > Duration::from_secs(15), "{longest:?}");
        assert!(longest < Duration::from_secs(25), "{longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_burst_for_those_that_begin_while_room_is_made() {
        let settings = settings(10, 1, 100);
        let fair_queue = FairQueue::new(&settings);
        fair_queue.record_eviction();
        let pressed = RateLimiter::new(fair_queue.clone(), &settings);
        assert_eq!(pressed.left(), 0.0);
        tokio::time::advance(NO_BURST_AFTER_EVICTION).await;
        assert_eq!(RateLimiter::new(fair_queue, &settings).left(), 10.0);
        assert_eq!(pressed.left(), 10.0, "it comes back with time");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_and_come_back_with_time() {
        let settings = settings(10, 2, 1);
        let fair_queue = FairQueue::new(&settings);
        assert!(fair_queue.is_alone(u64::MAX), "another one has its turn");
        let rate_limiter = RateLimiter::new(fair_queue.clone(), &settings);
        rate_limiter.charge_request(4096 * 9);
        assert_eq!(rate_limiter.left(), 0.0);
        rate_limiter.charge_reply(4096 * 16);
        let waits = timeout(Duration::from_secs(3600), rate_limiter.wait_until_allowed());
        let began = Instant::now();
        assert!(waits.await.is_ok());
        assert_eq!(began.elapsed(), Duration::from_secs(16));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(rate_limiter.left(), 10.0, "never more than a burst");
    }
}
