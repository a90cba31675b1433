//! The one place that reads clocks.

use chrono::Utc;

use crate::job::Micros;

/// The wall clock.
pub fn now() -> Micros {
    Micros(Utc::now().timestamp_micros())
}
