//! Decides when a search is over: one look that finds no process is not enough, and a search must
//! not last for ever.

use std::time::Duration;

use tokio::time::Instant;

/// A tree counts as gone after this many looks in a row without a new process...
const QUIET_ROUNDS: u32 = 8;
/// ...or after this many when the search has taken too long...
const LATE_ROUNDS: u32 = 2;
/// ...if this many of them missed no process: one that has appeared since the look before and is gone
/// before it can be looked at may be the next one of a chain...
const CLEAR_ROUNDS: u32 = 3;
/// ...and if they took at least this long.
const QUIET_FOR: Duration = Duration::from_millis(200);
/// How long processes that do not go away are killed again and again: they hang in the kernel, or
/// we may not signal them.
const STUBBORN_FOR: Duration = Duration::from_secs(2);
/// How long a search goes on while looks fail; or while new processes appear, from the first one
/// on. A shortage passes, and until then it is not proven that nothing is left.
const SEARCH_FOR: Duration = Duration::from_secs(10);
/// The pause between two looks while new processes are met.
const MOVING_EVERY: Duration = Duration::from_millis(2);
/// The pause otherwise: the kernel needs time to remove dead processes.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// After this many looks without a new process...
const SLOW_ROUNDS: u32 = 2 * QUIET_ROUNDS;
/// ...the pauses are this long.
const SLOW_EVERY: Duration = Duration::from_millis(100);

/// What one look at all processes has found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ScanResult {
    /// A process of the tree was met for the first time.
    pub has_news: bool,
    /// A process of the tree is there.
    pub is_found: bool,
    /// A process could not be looked at.
    pub is_blind: bool,
    /// A new process, of the tree or not, was gone before it could be looked at.
    pub has_missed: bool,
}

/// What follows after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SearchStep {
    /// Look again.
    Again,
    /// No process is left.
    Gone,
    /// Processes are left that cannot be ended.
    Stubborn,
    /// It has taken too long: a process still cannot be looked at.
    Unknown,
    /// It has taken too long: new processes still appear.
    Moving,
}

/// How far a search has come.
#[derive(Debug)]
pub(super) struct SearchProgress {
    begun: Instant,
    first_news_at: Option<Instant>,
    news_at: Instant,
    /// Looks without news since `news_at`.
    quiet_rounds: u32,
    /// Those among them that have missed no new process.
    clear_rounds: u32,
}

impl SearchProgress {
    /// A search that begins.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            first_news_at: None,
            news_at: now,
            quiet_rounds: 0,
            clear_rounds: 0,
        }
    }

    /// Something has changed: the quiet time begins anew.
    pub fn note_news(&mut self, now: Instant) {
        self.first_news_at.get_or_insert(now);
        self.news_at = now;
        self.quiet_rounds = 0;
        self.clear_rounds = 0;
    }

    /// Decides after a look.
    pub fn judge(&mut self, result: ScanResult, now: Instant) -> SearchStep {
        match result.has_news {
            true => self.note_news(now),
            false => {
                self.quiet_rounds = self.quiet_rounds.saturating_add(1);
                self.clear_rounds = self
                    .clear_rounds
                    .saturating_add(u32::from(!result.has_missed));
            }
        }
        let is_late = now.duration_since(self.since(result)) >= SEARCH_FOR;
        let quiet_for = now.duration_since(self.news_at);
        // If looks take long, there is no time for many.
        let rounds = if is_late { LATE_ROUNDS } else { QUIET_ROUNDS };
        let is_quiet = self.quiet_rounds >= rounds
            && self.clear_rounds >= CLEAR_ROUNDS.min(rounds)
            && quiet_for >= QUIET_FOR;
        match result {
            _ if result.is_blind && !is_late => SearchStep::Again,
            _ if result.is_blind => SearchStep::Unknown,
            _ if is_quiet && !result.is_found => SearchStep::Gone,
            _ if is_quiet && (quiet_for >= STUBBORN_FOR || is_late) => SearchStep::Stubborn,
            _ if is_late => SearchStep::Moving,
            _ => SearchStep::Again,
        }
    }

    /// The beginning of what may take up to `SEARCH_FOR`.
    fn since(&self, result: ScanResult) -> Instant {
        match result.is_blind {
            true => self.begun,
            false => self.first_news_at.unwrap_or(self.begun),
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

    /// Looks again and again until there is a decision; `result` is what a look sees after that
    /// time.
    fn search(result: impl Fn(Duration) -> ScanResult) -> (SearchStep, Duration) {
        let begun = Instant::now();
        let (mut progress, mut after) = (SearchProgress::new(begun), Duration::ZERO);
        loop {
            let step = progress.judge(result(after), begun + after);
            if step != SearchStep::Again {
                return (step, after);
            }
            after += progress.pause();
        }
    }

    #[test]
    fn looks_that_miss_a_process_prove_nothing() {
        let missing = |after: Duration| ScanResult {
            has_missed: after < Duration::from_secs(3),
            ..ScanResult::default()
        };
        let (step, after) = search(missing);
        assert_eq!(step, SearchStep::Gone);
        assert!(after >= Duration::from_secs(3), "{after:?}");
        let (step, after) = search(|_| ScanResult {
            has_missed: true,
            ..ScanResult::default()
        });
        assert_eq!(step, SearchStep::Moving);
        assert!(after >= SEARCH_FOR, "{after:?}");
    }

    #[test]
    fn a_look_that_finds_nobody_proves_nothing_and_many_do() {
        let (step, after) = search(|_| ScanResult::default());
        assert_eq!(step, SearchStep::Gone);
        assert!(after >= QUIET_FOR && after < 2 * QUIET_FOR, "{after:?}");
        // A chain that is met now and then.
        let is_met =
            |after: Duration| after < Duration::from_secs(3) && after.as_millis().is_multiple_of(7);
        let (step, after) = search(|after| ScanResult {
            has_news: is_met(after),
            is_found: is_met(after),
            ..ScanResult::default()
        });
        assert_eq!(step, SearchStep::Gone);
        assert!(after >= Duration::from_secs(3), "{after:?}");
    }

    #[test]
    fn a_chain_that_is_not_caught_is_told() {
        let moving = ScanResult {
            has_news: true,
            is_found: true,
            ..ScanResult::default()
        };
        let (step, after) = search(|_| moving);
        assert_eq!(step, SearchStep::Moving);
        assert!(after < SEARCH_FOR + LOOK_EVERY, "{after:?}");
    }

    #[test]
    fn who_stays_is_named_and_who_cannot_be_looked_at_is_waited_for() {
        let found = ScanResult {
            is_found: true,
            ..ScanResult::default()
        };
        let (step, after) = search(|_| found);
        assert_eq!(step, SearchStep::Stubborn);
        assert!(after < STUBBORN_FOR + 2 * SLOW_EVERY, "{after:?}");
        let blind = ScanResult {
            is_blind: true,
            ..ScanResult::default()
        };
        let (step, _) = search(|_| blind);
        assert_eq!(step, SearchStep::Unknown);
    }

    #[test]
    fn looks_that_take_long_make_no_chain() {
        let begun = Instant::now();
        let mut progress = SearchProgress::new(begun);
        let verdicts: Vec<_> = (0..8)
            .map(|round| {
                let result = ScanResult {
                    has_news: round == 0,
                    is_found: round == 0,
                    ..ScanResult::default()
                };
                progress.judge(result, begun + SEARCH_FOR / 5 * round)
            })
            .collect();
        assert_eq!(verdicts[..5], [SearchStep::Again; 5]);
        assert_eq!(verdicts[5], SearchStep::Gone);
    }

    #[test]
    fn who_is_found_in_the_last_moment_of_a_shortage_is_ended_like_any_other() {
        let last_moment = SEARCH_FOR - 2 * SLOW_EVERY;
        let until_then = |after| ScanResult {
            has_news: after >= last_moment && after < last_moment + SLOW_EVERY,
            is_found: after >= last_moment && after < last_moment + SLOW_EVERY,
            is_blind: after < last_moment,
            has_missed: false,
        };
        let (step, after) = search(until_then);
        assert_eq!(step, SearchStep::Gone);
        assert!(after >= SEARCH_FOR, "{after:?}");
    }
}
