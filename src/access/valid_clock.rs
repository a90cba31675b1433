//! The clock that expiries are held against: it does not go backward while the server runs.

use std::time::Duration;

use crate::{job::Micros, sys::clock};

/// Counts from a moment of the wall clock with the clock since boot.
#[derive(Debug, Clone, Copy)]
pub struct ValidClock {
    began: Micros,
    boot: Duration,
}

impl ValidClock {
    /// Begins now.
    pub fn start() -> Self {
        Self {
            began: clock::now(),
            boot: clock::since_boot(),
        }
    }

    /// The later of the wall clock and of what has passed since the begin.
    pub fn now(&self) -> Micros {
        self.at(clock::now(), clock::since_boot())
    }

    fn at(&self, wall: Micros, boot: Duration) -> Micros {
        let passed = boot.saturating_sub(self.boot).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        Micros(wall.0.max(self.began.0.saturating_add(passed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_back_wins_no_time() {
        let boot = Duration::from_secs(100);
        let clock = ValidClock {
            began: Micros(1_000_000_000),
            boot,
        };
        let later = boot + Duration::from_secs(60);
        assert_eq!(clock.at(Micros(0), later), Micros(1_060_000_000));
        assert_eq!(
            clock.at(Micros(2_000_000_000), later),
            Micros(2_000_000_000)
        );
        assert_eq!(clock.at(Micros(5), Duration::ZERO), Micros(1_000_000_000));
    }
}
