//! How fast sessions may ask. Each has a burst of its own; those that have used it up take turns,
//! so that floods leave the machine to everybody else. What is asked is not known here.
//!
//! Nobody is refused: a session whose turn has not come is not read from. One that is alone in this
//! is not slowed down, for nobody is in its way.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::config::Settings;

/// So many bytes, asked or answered, count as one more request.
const REQUEST_BYTES: f64 = 4096.0;
/// A debt is paid once it is so large, in requests: clocks are too coarse for single ones.
const DEBT_MIN: f64 = 16.0;

/// How long those that begin get no burst of their own once one was closed to make room: who was
/// closed comes back, and would get another burst each time.
const PRESSED: Duration = Duration::from_secs(30);

/// How long one that had a turn counts as being in the others' way.
const LATELY: Duration = Duration::from_secs(1);

/// The turns of all sessions that have used up their burst.
#[derive(Debug)]
pub struct FairQueue {
    turn: Semaphore,
    /// The last two that had one, and when: enough to tell whether one is alone.
    lately: Mutex<[Option<(u64, Instant)>; 2]>,
    /// When a session was last closed to make room.
    pressed: Mutex<Option<Instant>>,
    /// Names the next session.
    next: AtomicU64,
    requests_per_s: f64,
}

impl FairQueue {
    /// Nobody has had a turn.
    pub fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            turn: Semaphore::new(1),
            lately: Mutex::default(),
            pressed: Mutex::default(),
            next: AtomicU64::new(0),
            requests_per_s: settings.flood_requests_per_s as f64,
        })
    }

    /// A session was closed to make room for others.
    pub fn press(&self) {
        *self.pressed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_pressed(&self) -> bool {
        let pressed = *self.pressed.lock().unwrap_or_else(PoisonError::into_inner);
        pressed.is_some_and(|at| at.elapsed() < PRESSED)
    }

    /// Waits for a turn, and as long as what was asked is worth where others had theirs lately.
    async fn pay(&self, session: u64, debt: f64) {
        // It is never closed.
        let _turn = self.turn.acquire().await;
        if !self.is_alone(session) {
            let length = Duration::from_secs_f64(debt / self.requests_per_s);
            #[expect(clippy::disallowed_methods, reason = "this is the pace itself")]
            tokio::time::sleep(length).await;
        }
    }

    fn is_alone(&self, session: u64) -> bool {
        let now = Instant::now();
        // A panic cannot leave it half-changed.
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let other = |(who, at): &(u64, Instant)| *who != session && now - *at < LATELY;
        let other = lately.into_iter().flatten().find(other);
        *lately = [Some((session, now)), other];
        other.is_none()
    }
}

/// What one session may still ask before it has to wait for its turn.
#[derive(Debug)]
pub struct RateLimiter {
    floods: Arc<FairQueue>,
    session: u64,
    burst_max: f64,
    per_s: f64,
    account: Mutex<QueueAccount>,
}

#[derive(Debug, Clone, Copy)]
struct QueueAccount {
    /// Requests; below zero a debt.
    left: f64,
    at: Instant,
}

impl RateLimiter {
    /// With a whole burst, or without one while sessions are closed to make room.
    pub fn new(floods: Arc<FairQueue>, settings: &Settings) -> Self {
        let burst_max = settings.requests_burst_max as f64;
        let left = if floods.is_pressed() { 0.0 } else { burst_max };
        Self {
            session: floods.next.fetch_add(1, Ordering::Relaxed),
            floods,
            burst_max,
            per_s: settings.requests_per_s as f64,
            account: Mutex::new(QueueAccount {
                left,
                at: Instant::now(),
            }),
        }
    }

    /// A message of the session has come.
    pub fn asked(&self, bytes: usize) {
        self.account().left -= 1.0 + bytes as f64 / REQUEST_BYTES;
    }

    /// It was answered.
    pub fn answered(&self, bytes: usize) {
        self.account().left -= bytes as f64 / REQUEST_BYTES;
    }

    /// Returns once the session may ask again. Cancel-safe.
    pub async fn settle(&self) {
        let debt = -self.left();
        if debt >= DEBT_MIN {
            self.floods.pay(self.session, debt).await;
            self.account().left += debt;
        }
    }

    /// What is left, with what has come back since the last look.
    fn left(&self) -> f64 {
        let now = Instant::now();
        let mut account = self.account();
        let back = (now - account.at).as_secs_f64() * self.per_s;
        account.left = (account.left + back).min(self.burst_max);
        account.at = now;
        account.left
    }

    fn account(&self) -> MutexGuard<'_, QueueAccount> {
        // A panic cannot leave it half-changed.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Asks so often, and tells how long that took.
    async fn ask(pace: &RateLimiter, times: u32) -> Duration {
        let began = Instant::now();
        for _ in 0..times {
            pace.settle().await;
            pace.asked(0);
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn one_alone_is_not_slowed_down() {
        let settings = settings(10, 1, 100);
        let pace = RateLimiter::new(FairQueue::new(&settings), &settings);
        assert_eq!(ask(&pace, 10_000).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn floods_share_a_rate_and_a_burst_is_free() {
        let settings = settings(100, 1, 1000);
        let floods = FairQueue::new(&settings);
        let flood = |_| {
            let pace = RateLimiter::new(floods.clone(), &settings);
            tokio::spawn(async move { ask(&pace, 2100).await })
        };
        let flooding: Vec<_> = (0..10).map(flood).collect();
        let honest = RateLimiter::new(floods.clone(), &settings);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ask(&honest, 100).await, Duration::ZERO);
        let mut longest = Duration::ZERO;
        for one in flooding {
            longest = longest.max(one.await.expect("no panic"));
        }
        // Ten times 2,000 beyond the burst at 1,000 a second, less what came back meanwhile.
        assert!(longest > Duration::from_secs(15), "{longest:?}");
        assert!(longest < Duration::from_secs(25), "{longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_burst_for_those_that_begin_while_room_is_made() {
        let settings = settings(10, 1, 100);
        let floods = FairQueue::new(&settings);
        floods.press();
        let pressed = RateLimiter::new(floods.clone(), &settings);
        assert_eq!(pressed.left(), 0.0);
        tokio::time::advance(PRESSED).await;
        assert_eq!(RateLimiter::new(floods, &settings).left(), 10.0);
        assert_eq!(pressed.left(), 10.0, "it comes back with time");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_and_come_back_with_time() {
        let settings = settings(10, 2, 1);
        let floods = FairQueue::new(&settings);
        assert!(floods.is_alone(u64::MAX), "another one has its turn");
        let pace = RateLimiter::new(floods.clone(), &settings);
        pace.asked(4096 * 9);
        assert_eq!(pace.left(), 0.0);
        pace.answered(4096 * 16);
        let waits = timeout(Duration::from_secs(3600), pace.settle());
        let began = Instant::now();
        assert!(waits.await.is_ok());
        assert_eq!(began.elapsed(), Duration::from_secs(16));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(pace.left(), 10.0, "never more than a burst");
    }
}
