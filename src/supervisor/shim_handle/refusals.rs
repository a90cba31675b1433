//! A shim that has refused an attempt is offered again only after a pause: the reason may last, and
//! each try costs an attempt.

use std::time::Duration;

/// The pause after the first refusal; it doubles with each one that follows.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How many attempts a shim has refused since it last started one.
#[derive(Debug, Default)]
pub(super) struct RefusedAttempts(u32);

impl RefusedAttempts {
    /// The shim has refused another attempt. Returns how long it gets no work.
    pub(super) fn record_refusal(&mut self) -> Duration {
        let doubled = PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(self.0));
        self.0 = self.0.saturating_add(1);
        doubled.min(PAUSE_MAX)
    }

    /// The shim has started an attempt: the next pause is the first one again.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound_and_begins_anew_behind_a_start() {
        let mut refusals = RefusedAttempts::default();
        let seen: Vec<u64> = (0..7)
            .map(|_| refusals.record_refusal().as_secs())
            .collect();
        assert_eq!(seen, [1, 2, 4, 8, 16, 30, 30]);
        refusals.reset();
        assert_eq!(refusals.record_refusal(), PAUSE_FIRST);
    }
}
