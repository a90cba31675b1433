//! When each chunk of a recording is due, counted from the recording's beginning. Pure arithmetic
//! on the recorded times.

use std::{num::ParseFloatError, time::Duration};

use chrono::{DateTime, Utc};

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// This many times as fast as it was.
    Times(f64),
    /// Without any pause.
    Max,
}

/// The slowest and the fastest factor.
const TIMES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

impl Speed {
    /// Reads `2`, `0.5`, `10x` or `max`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let number: Result<f64, ParseFloatError> = text.trim_end_matches('x').parse();
        match number {
            Ok(times) if TIMES.contains(&times) => Ok(Self::Times(times)),
            _ => Err("write a number such as 2 or 0.5, or max".to_owned()),
        }
    }

    /// When a chunk is due at this speed that was captured `elapsed` after the beginning.
    pub fn due(self, elapsed: Duration) -> Duration {
        match self {
            Self::Times(times) => elapsed.div_f64(times),
            Self::Max => Duration::ZERO,
        }
    }
}

/// Computes the times of a recording, chunk by chunk.
#[derive(Debug, Clone)]
pub struct Pacing {
    idle_max: Option<Duration>,
    before: Option<DateTime<Utc>>,
    elapsed: Duration,
}

impl Pacing {
    /// A recording that begins at `begin`, or if that is `None` with its first chunk. Longer pauses
    /// are shortened to `idle_max`.
    pub fn new(begin: Option<DateTime<Utc>>, idle_max: Option<Duration>) -> Self {
        Self {
            idle_max,
            before: begin,
            elapsed: Duration::ZERO,
        }
    }

    /// How long after the beginning a chunk is due that was captured at `at`. Never before the
    /// chunk before it: if the clock was set back in between, there is no pause.
    pub fn next(&mut self, at: DateTime<Utc>) -> Duration {
        let pause = self.before.map(|before| (at - before).to_std());
        let pause = pause.and_then(Result::ok).unwrap_or_default();
        self.before = Some(at);
        self.elapsed += self.idle_max.map_or(pause, |max| pause.min(max));
        self.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(begin: Option<i64>, idle_max: Option<u64>, at: &[i64]) -> Vec<u64> {
        let moment = |ms| DateTime::from_timestamp_millis(ms).expect("a moment");
        let idle_max = idle_max.map(Duration::from_millis);
        let mut rhythm = Pacing::new(begin.map(moment), idle_max);
        let next = |ms: &i64| rhythm.next(moment(*ms)).as_millis() as u64;
        at.iter().map(next).collect()
    }

    #[test]
    fn pieces_come_as_far_apart_as_they_did() {
        let at = [1500, 1500, 4000, 4001];
        assert_eq!(times(Some(1000), None, &at), [500, 500, 3000, 3001]);
        assert_eq!(times(None, None, &at), [0, 0, 2500, 2501]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_pause_and_no_step_back() {
        assert_eq!(times(Some(9000), None, &[1000, 1200]), [0, 200]);
        let at = [86_400_000, 500, 700, 86_400_700];
        assert_eq!(times(None, None, &at), [0, 0, 200, 86_400_200]);
    }

    #[test]
    fn long_pauses_are_cut() {
        let at = [0, 5000, 5100, 90_000];
        assert_eq!(times(Some(0), Some(2000), &at), [0, 2000, 2100, 4100]);
    }

    #[test]
    fn a_speed_divides_and_max_never_waits() {
        let ten = Duration::from_secs(10);
        let due = |text| Speed::parse(text).map(|speed| speed.due(ten).as_millis());
        assert_eq!(
            [due("1"), due("2x"), due("0.5")],
            [Ok(10_000), Ok(5000), Ok(20_000)]
        );
        assert_eq!(due("max"), Ok(0));
        for wrong in ["", "0", "-1", "NaN", "inf", "1e9", "fast"] {
            assert!(due(wrong).is_err(), "{wrong}");
        }
    }
}
