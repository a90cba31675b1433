//! When to connect again: at once after progress, else after pauses that double.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The time of the next try. A connection that is made and lost again without progress is a failed try:
/// otherwise a server that closes every connection would get hundreds of them a second.
#[derive(Debug, Clone)]
pub struct ReconnectBackoff {
    /// The pause after the last try.
    pause: Duration,
    next_try: Instant,
}

impl ReconnectBackoff {
    /// The first try is made at once.
    pub fn new() -> Self {
        Self {
            pause: Duration::ZERO,
            next_try: Instant::now(),
        }
    }

    /// When to try.
    pub fn next_try(&self) -> Instant {
        self.next_try
    }

    /// A try begins: the next one comes later.
    pub fn on_try(&mut self) {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.next_try = Instant::now() + self.pause;
    }

    /// There was progress: the next try is made at once.
    pub fn on_progress(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_until_there_is_progress() {
        let mut backoff = ReconnectBackoff::new();
        let begin = Instant::now();
        assert_eq!(backoff.next_try(), begin);
        for pause in [50, 100, 200, 400, 800, 1000, 1000] {
            backoff.on_try();
            assert_eq!(backoff.next_try(), begin + Duration::from_millis(pause));
        }
        backoff.on_progress();
        assert_eq!(backoff.next_try(), begin);
        backoff.on_try();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(backoff.next_try() < Instant::now(), "a try that took long");
    }
}
