//! A stopwatch that can be held: for the run time of an attempt without its pauses, and for its
//! silence without its waits. The monotonic clock does not count while the machine is suspended, so
//! these do not either.

use std::time::{Duration, Instant};

/// Time that is counted while the stopwatch runs.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    counted: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    /// A stopwatch that runs from `now` on.
    pub fn started(now: Instant) -> Self {
        Self {
            counted: Duration::ZERO,
            since: Some(now),
        }
    }

    /// Sets it back to zero; whether it runs stays as it is.
    pub fn reset(&mut self, now: Instant) {
        self.counted = Duration::ZERO;
        self.since = self.since.map(|_| now);
    }

    /// Holds it or lets it run; does nothing where it is in that state already.
    pub fn run(&mut self, runs: bool, now: Instant) {
        match (runs, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.counted += now.saturating_duration_since(since);
                self.since = None;
            }
            _ => {}
        }
    }

    /// When it will show `limit`; `None` while it is held.
    pub fn shows_at(&self, limit: Duration) -> Option<Instant> {
        Some(self.since? + limit.saturating_sub(self.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn held_time_does_not_count() {
        let zero = Instant::now();
        let mut watch = Stopwatch::started(zero);
        watch.run(false, zero + SECOND);
        watch.run(false, zero + 5 * SECOND);
        assert_eq!(watch.shows_at(10 * SECOND), None);
        watch.run(true, zero + 7 * SECOND);
        watch.run(true, zero + 8 * SECOND);
        assert_eq!(watch.shows_at(10 * SECOND), Some(zero + 16 * SECOND));
        watch.reset(zero + 9 * SECOND);
        assert_eq!(watch.shows_at(10 * SECOND), Some(zero + 19 * SECOND));
    }

    #[test]
    fn a_reset_does_not_start_it() {
        let zero = Instant::now();
        let mut watch = Stopwatch::started(zero);
        watch.run(false, zero);
        watch.reset(zero + SECOND);
        assert_eq!(watch.shows_at(SECOND), None);
    }
}
