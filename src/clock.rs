//! The one place of the server that reads the wall clock.
//!
//! What a moment means (a submit, a chunk, a deadline) is the caller's business.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::job::Micros;

/// Now, by the wall clock. Times are for people and records: order never depends on them.
pub fn now() -> Micros {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is broken hardware; 1970 is as good an answer as any.
    Micros(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_lies_after_this_was_written() {
        assert!(now() > Micros(1_700_000_000_000_000));
    }
}
