//! Keeps one kind of line from filling the log: of each place in the source so many lines at once, then
//! one a second; what is left out is counted and told.
//!
//! What a line says is not known here. Refused clients are told apart before they come here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Layer};

/// So many lines of one place are written at once.
const BURST_MAX: u32 = 200;
/// After that one more comes every so long.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at what was left out.
pub const TELL_EVERY: Duration = Duration::from_secs(10);

/// Which lines are written. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LineLimiter(Arc<Mutex<HashMap<Identifier, SourceLine>>>);

/// A place in the source that writes lines.
#[derive(Debug)]
struct SourceLine {
    name: &'static str,
    /// Lines that may be written now.
    left: u32,
    /// When the newest of them was added.
    filled_at: Instant,
    left_out: u64,
}

impl LineLimiter {
    /// Tells how many lines were left out since the last time.
    pub fn tell(&self) {
        let told: Vec<_> = self
            .places()
            .values_mut()
            .filter(|place| place.left_out > 0)
            .map(|place| (place.name, std::mem::take(&mut place.left_out)))
            .collect();
        // The lock is free by now: this is a line as well.
        for (place, count) in told {
            tracing::warn!(
                place,
                count,
                "there were too many lines like this; they were left out"
            );
        }
    }

    fn admits(&self, line: &'static Metadata<'static>, now: Instant) -> bool {
        // Who asks for more than the usual lines gets all of them.
        if *line.level() > Level::INFO {
            return true;
        }
        let mut places = self.places();
        let place = places.entry(line.callsite()).or_insert_with(|| SourceLine {
            name: line.name(),
            left: BURST_MAX,
            filled_at: now,
            left_out: 0,
        });
        place.admits(now)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Identifier, SourceLine>> {
        // A panic cannot leave it half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
