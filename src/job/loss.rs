//! What becomes of a job when nobody can know how its attempt ended.
//!
//! That an attempt is lost has been decided before; what a new attempt costs is not known here.

use super::words::words;

/// How often a job is run again after lost attempts, apart from any other retry.
pub const LOST_RETRIES_MAX: u32 = 3;

/// What a job wants where an attempt is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLost {
    /// It is `failed` with the reason `lost`.
    #[default]
    Fail,
    /// It runs again, [`LOST_RETRIES_MAX`] times at most.
    Retry,
}

words!(OnLost: Fail = "fail", Retry = "retry");

/// What follows from a lost attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// The job is `failed`, `lost`.
    Fail,
    /// It waits for another attempt.
    Retry,
    /// It would be run again, but somebody wants it stopped: it is `cancelled`.
    Cancel,
}

/// Decides after a lost attempt, `lost_before` others of which were lost before it.
///
/// A stop only counts where there would be another attempt: whether it reached the one that is lost
/// cannot be known, and what cannot be known is `lost`. Where nobody could look at what is left of
/// the lost attempt (not `looked`), it may still run, and there is no other one beside it.
pub fn after_loss(
    on_lost: OnLost,
    lost_before: u32,
    stop_requested: bool,
    survivors_known: bool,
) -> AfterLoss {
    match on_lost {
        OnLost::Retry if survivors_known && lost_before < LOST_RETRIES_MAX => {
            match stop_requested {
                true => AfterLoss::Cancel,
                false => AfterLoss::Retry,
            }
        }
        OnLost::Fail | OnLost::Retry => AfterLoss::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_decision() {
        for (on_lost, lost_before, stop_requested, expected) in [
            (OnLost::Fail, 0, false, AfterLoss::Fail),
            (OnLost::Fail, 0, true, AfterLoss::Fail),
            (OnLost::Retry, 0, false, AfterLoss::Retry),
            (OnLost::Retry, 2, false, AfterLoss::Retry),
            (OnLost::Retry, 3, false, AfterLoss::Fail),
            (OnLost::Retry, 0, true, AfterLoss::Cancel),
            (OnLost::Retry, 3, true, AfterLoss::Fail),
        ] {
            let decided = after_loss(on_lost, lost_before, stop_requested, true);
            assert_eq!(
                decided, expected,
                "{on_lost:?} {lost_before} {stop_requested}"
            );
            let blind = after_loss(on_lost, lost_before, stop_requested, false);
            assert_eq!(blind, AfterLoss::Fail);
        }
    }

    #[test]
    fn names_go_both_ways() {
        for policy in [OnLost::Fail, OnLost::Retry] {
            assert_eq!(OnLost::from_name(policy.name()), Some(policy));
        }
    }
}
