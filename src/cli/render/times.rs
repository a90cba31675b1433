//! Points in time as people read them: relative if they are near, else as a date. Only [`now`]
//! reads the clock.

use chrono::{DateTime, Local, Utc};

use super::duration;

/// How points in time are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// In the local time zone, relative if near.
    Local,
    /// In UTC, always absolute.
    Utc,
}

/// From this age on a time is shown as a date, seconds.
const RELATIVE_S_MAX: f64 = 86_400.0;

/// A time less than this ahead counts as now, seconds: the clocks of two machines differ.
const AHEAD_S_MIN: f64 = 1.0;

/// The present time.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the command line"
)]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The seconds from one time to another; negative if `to` is the earlier one.
pub fn seconds_between(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_milliseconds() as f64 / 1000.0
}

/// A time, short: `3m05s ago`, `2026-11-20 14:03`, `2026-11-20T13:03:11Z`. A time ahead was
/// recorded before the clock was set back: `in 3h00m`.
pub fn short(at: DateTime<Utc>, now: DateTime<Utc>, clock: Clock) -> String {
    let age = seconds_between(at, now);
    match clock {
        Clock::Utc => at.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Clock::Local if age.abs() < RELATIVE_S_MAX => relative(age),
        Clock::Local => at
            .with_timezone(&Local)
            .format("%Y-%m-%d %H:%M")
            .to_string(),
    }
}

/// A time with its date: `2026-11-20 14:03:11 (3m05s ago)`, or in UTC without the age.
pub fn long(at: DateTime<Utc>, now: DateTime<Utc>, clock: Clock) -> String {
    let local = at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S");
    match clock {
        Clock::Utc => at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Clock::Local => format!("{local} ({})", relative(seconds_between(at, now))),
    }
}

fn relative(age: f64) -> String {
    if age <= -AHEAD_S_MIN {
        return format!("in {}", duration::short(-age));
    }
    format!("{} ago", duration::short(age))
}

/// A time for the beginning of a line, to the millisecond and with the zone.
pub fn timestamp(at: DateTime<Utc>, clock: Clock) -> String {
    match clock {
        Clock::Utc => at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Clock::Local => {
            let local = at.with_timezone(&Local);
            local.format("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("RFC 3339")
    }

    #[test]
    fn near_moments_are_relative_and_utc_is_absolute() {
        let now = at("2026-11-22T10:00:00Z");
        let then = at("2026-11-22T09:56:55.5Z");
        assert_eq!(short(then, now, Clock::Local), "3m05s ago");
        assert_eq!(short(then, now, Clock::Utc), "2026-11-22T09:56:55Z");
        assert_eq!(long(then, now, Clock::Utc), "2026-11-22T09:56:55.500Z");
        assert_eq!(timestamp(then, Clock::Utc), "2026-11-22T09:56:55.500Z");
    }

    #[test]
    fn a_moment_that_lies_ahead_was_not_just_now() {
        let now = at("2026-11-22T10:00:00Z");
        let shown = |then| short(at(then), now, Clock::Local);
        assert_eq!(shown("2026-11-22T10:00:00.5Z"), "0ms ago");
        assert_eq!(shown("2026-11-22T13:00:00Z"), "in 3h00m");
        assert!(shown("2026-11-25T10:00:00Z").starts_with("2026-11-2"));
        let long = long(at("2026-11-23T10:00:00Z"), now, Clock::Local);
        assert!(long.ends_with("(in 1d00h)"), "{long}");
    }

    #[test]
    fn far_moments_are_dates() {
        let now = at("2026-11-22T10:00:00Z");
        let shown = short(at("2026-10-01T12:00:00Z"), now, Clock::Local);
        assert!(
            shown.starts_with("2026-10-0") && !shown.contains("ago"),
            "{shown}"
        );
    }
}
