//! When a search is over: not after one look that finds nobody, and not never.
//!
//! What is searched for is not known here.

use std::time::Duration;

use tokio::time::Instant;

/// So many looks at everybody have to find nobody new...
const QUIET_ROUNDS: u32 = 8;
/// ...and for so long, before a tree counts as gone.
const QUIET_FOR: Duration = Duration::from_millis(200);
/// How long the same processes are killed again that stay there: they hang in the kernel, or may not
/// be signalled by us.
const STUBBORN_FOR: Duration = Duration::from_secs(2);
/// How long a tree is searched for in all, where looks fail or new processes appear: a shortage
/// passes, and until then nobody may say that nothing is left.
const HUNT_FOR: Duration = Duration::from_secs(10);
/// Between two looks while new processes are met.
const MOVING_EVERY: Duration = Duration::from_millis(2);
/// Between two looks else, so that the kernel can take the dead away.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// After so many looks without anybody new...
const SLOW_ROUNDS: u32 = 2 * QUIET_ROUNDS;
/// ...the next ones can wait for longer.
const SLOW_EVERY: Duration = Duration::from_millis(100);

/// What one look at everybody came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Glance {
    /// Somebody was met that had not been met before.
    pub has_news: bool,
    /// Somebody is there that belongs to the tree.
    pub is_found: bool,
    /// Somebody could not be looked at.
    pub is_blind: bool,
}

/// What is to be done after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again.
    Again,
    /// Nobody is left.
    Gone,
    /// Those that are left stay.
    Stubborn,
    /// It has taken long enough, and nobody knows; whether new processes still appear.
    TooLong {
        /// They do.
        is_moving: bool,
    },
}

/// How a search has gone until now.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    news_at: Instant,
    /// Looks since then.
    quiet_rounds: u32,
}

impl Patience {
    /// A search that begins.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            news_at: now,
            quiet_rounds: 0,
        }
    }

    /// Something has changed: it is quiet no more.
    pub fn hear_news(&mut self, now: Instant) {
        self.news_at = now;
        self.quiet_rounds = 0;
    }

    /// The decision after a look.
    pub fn judge(&mut self, glance: Glance, now: Instant) -> Verdict {
        match glance.has_news {
            true => self.hear_news(now),
            false => self.quiet_rounds = self.quiet_rounds.saturating_add(1),
        }
        let quiet_for = now.duration_since(self.news_at);
        let is_quiet = self.quiet_rounds >= QUIET_ROUNDS && quiet_for >= QUIET_FOR;
        match glance {
            Glance { is_blind: true, .. } => {}
            Glance {
                is_found: false, ..
            } if is_quiet => return Verdict::Gone,
            _ if is_quiet && quiet_for >= STUBBORN_FOR => return Verdict::Stubborn,
            _ => {}
        }
        match now.duration_since(self.begun) >= HUNT_FOR {
            true => Verdict::TooLong {
                is_moving: !is_quiet,
            },
            false => Verdict::Again,
        }
    }

    /// How long the next look may wait.
    pub fn pause(&self) -> Duration {
        match self.quiet_rounds {
            0 => MOVING_EVERY,
            1..SLOW_ROUNDS => LOOK_EVERY,
            _ => SLOW_EVERY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks again as it is told to, with what `glance` sees after so long, until there is a verdict.
    fn search(glance: impl Fn(Duration) -> Glance) -> (Verdict, Duration) {
        let begun = Instant::now();
        let (mut patience, mut after) = (Patience::new(begun), Duration::ZERO);
        loop {
            let verdict = patience.judge(glance(after), begun + after);
            if verdict != Verdict::Again {
                return (verdict, after);
            }
            after += patience.pause();
        }
    }

    #[test]
    fn a_look_that_finds_nobody_proves_nothing_and_many_do() {
        let (verdict, after) = search(|_| Glance::default());
        assert_eq!(verdict, Verdict::Gone);
        assert!(after >= QUIET_FOR && after < 2 * QUIET_FOR, "{after:?}");
        // A chain that is met now and then.
        let is_met =
            |after: Duration| after < Duration::from_secs(3) && after.as_millis().is_multiple_of(7);
        let (verdict, after) = search(|after| Glance {
            has_news: is_met(after),
            is_found: is_met(after),
            is_blind: false,
        });
        assert_eq!(verdict, Verdict::Gone);
        assert!(after >= Duration::from_secs(3), "{after:?}");
    }

    #[test]
    fn a_chain_that_is_not_caught_is_told() {
        let moving = Glance {
            has_news: true,
            is_found: true,
            is_blind: false,
        };
        let (verdict, after) = search(|_| moving);
        assert_eq!(verdict, Verdict::TooLong { is_moving: true });
        assert!(after < HUNT_FOR + LOOK_EVERY, "{after:?}");
    }

    #[test]
    fn who_stays_is_named_and_who_cannot_be_looked_at_is_waited_for() {
        let found = Glance {
            is_found: true,
            ..Glance::default()
        };
        let (verdict, after) = search(|_| found);
        assert_eq!(verdict, Verdict::Stubborn);
        assert!(after < STUBBORN_FOR + 2 * SLOW_EVERY, "{after:?}");
        let blind = Glance {
            is_blind: true,
            ..Glance::default()
        };
        let (verdict, _) = search(|_| blind);
        assert_eq!(verdict, Verdict::TooLong { is_moving: false });
        let for_a_while = |after| {
            if after < STUBBORN_FOR {
                blind
            } else {
                Glance::default()
            }
        };
        assert_eq!(search(for_a_while).0, Verdict::Gone);
    }
}
