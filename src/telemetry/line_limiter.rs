//! Keeps a single place in the source from filling the log: each may write [`BURST_MAX`] lines at once,
//! then one a second. The log reports how many lines were left out.
//!
//! `protocol::refusals` counts refused clients by peer before they come here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Layer};

use crate::sys::lock;

/// The target of events for programs: they are not limited in number (docs/logs.md).
pub const EVENTS: &str = "cc_executor::events";
/// Lines that one place may write at once.
const BURST_MAX: u32 = 200;
/// The interval at which a place regains one line.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// The time between two reports of lines that were left out.
pub const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Decides which lines are written. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LineLimiter(Arc<Mutex<HashMap<Identifier, SourceLine>>>);

/// A place in the source that writes lines.
#[derive(Debug)]
struct SourceLine {
    name: &'static str,
    /// Lines that may be written now.
    left: u32,
    /// When lines were last added to `left`.
    filled_at: Instant,
    left_out: u64,
}

impl LineLimiter {
    /// Reports how many lines were left out since the last report.
    pub fn report(&self) {
        let due: Vec<_> = self
            .lines()
            .values_mut()
            .filter(|place| place.left_out > 0)
            .map(|place| (place.name, std::mem::take(&mut place.left_out)))
            .collect();
        // The lock is free here: this line passes through the limiter as well.
        for (place, count) in due {
            tracing::warn!(
                place,
                count,
                "lines of this place were left out: there were too many"
            );
        }
    }

    fn admits(&self, line: &'static Metadata<'static>, now: Instant) -> bool {
        // Lines of debug and trace are off by default; a user that enables them gets all of them. Events are
        // as many as there are changes, and each is wanted.
        if *line.level() > Level::INFO || line.target() == EVENTS {
            return true;
        }
        let mut lines = self.lines();
        let place = lines.entry(line.callsite()).or_insert_with(|| SourceLine {
            name: line.name(),
            left: BURST_MAX,
            filled_at: now,
            left_out: 0,
        });
        place.admits(now)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Identifier, SourceLine>> {
        // A panic cannot leave it half-changed.
        lock(&self.0)
    }
}

impl SourceLine {
    fn admits(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled_at);
        let more = since.as_secs() / LINE_EVERY.as_secs();
        if more > 0 {
            self.left = u32::try_from(u64::from(self.left) + more).unwrap_or(BURST_MAX);
            self.left = self.left.min(BURST_MAX);
            self.filled_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.left_out += 1;
                false
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for LineLimiter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.admits(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_writes_all_the_time_gets_a_line_a_second_and_a_quiet_one_its_burst() {
        let began = Instant::now();
        let mut place = SourceLine {
            name: "here",
            left: BURST_MAX,
            filled_at: began,
            left_out: 0,
        };
        let mut written = 0;
        for millisecond in 0..600_000 {
            let now = began + Duration::from_millis(millisecond);
            written += u64::from(place.admits(now));
        }
        assert_eq!(written, u64::from(BURST_MAX) + 599);
        assert_eq!(written + place.left_out, 600_000);
        let later = began + Duration::from_secs(6000);
        let at_once = (0..1000).filter(|_| place.admits(later)).count();
        assert_eq!(at_once, BURST_MAX as usize);
    }
}
