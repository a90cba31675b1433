//! Moments and lengths of time as the executor stores them. Clocks are read in `crate::sys::clock`.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// A moment: microseconds since 1970-01-01T00:00:00Z. Serialised as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub i64);

impl Micros {
    /// RFC 3339 in UTC with exactly six digits after the second.
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_micros(self.0)
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// Reads RFC 3339, with any offset from UTC; what is below a microsecond is dropped. The year in
    /// UTC has four digits, too, so that what is written can be read again.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let moment = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
        let is_writable = (0..=9999).contains(&moment.year());
        is_writable.then(|| Self(moment.timestamp_micros()))
    }

    /// The moment that lies so much later; the last one there is, if it lies beyond that.
    pub fn after(self, seconds: Seconds) -> Self {
        Self(self.0.saturating_add((seconds.0 * 1e6).ceil() as i64))
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_rfc3339())
    }
}

/// A length of time in seconds, as a client wrote it: finite, up to [`Seconds::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Seconds(pub f64);

impl Seconds {
    /// Ten years of 365 days.
    pub const MAX: f64 = 10.0 * 365.0 * 86_400.0;

    /// Whole milliseconds, rounded up so that a tiny positive length never becomes none.
    pub fn to_ms(self) -> u64 {
        (self.0 * 1000.0).ceil() as u64
    }
}

impl TryFrom<Value> for Seconds {
    type Error = String;

    /// From 0 on. JSON has no NaN and no infinity; 1e999 does not parse.
    fn try_from(value: Value) -> Result<Self, String> {
        let seconds = value.as_f64().filter(|s| (0.0..=Self::MAX).contains(s));
        seconds
            .map(Self)
            .ok_or("must be a number of seconds, at most ten years (315360000)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_microseconds_and_utc() {
        assert_eq!(Micros(0).to_rfc3339(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            Micros(1_700_000_000_000_001).to_rfc3339(),
            "2023-11-14T22:13:20.000001Z"
        );
    }

    #[test]
    fn what_is_read_can_be_written_and_read_again() {
        for text in [
            "2026-12-01T02:00:00.0000019+01:00",
            "9999-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
        ] {
            let moment = Micros::from_rfc3339(text).expect("a moment");
            assert_eq!(
                Micros::from_rfc3339(&moment.to_rfc3339()),
                Some(moment),
                "{text}"
            );
        }
        for text in [
            "9999-12-31T23:59:59-00:01",
            "0000-01-01T00:00:00+00:01",
            "tomorrow",
        ] {
            assert_eq!(Micros::from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_tiny_length_is_not_nothing() {
        assert_eq!(Seconds(0.0001).to_ms(), 1);
        assert_eq!(Seconds(1.5).to_ms(), 1500);
        assert_eq!(Seconds(0.0).to_ms(), 0);
    }
}
