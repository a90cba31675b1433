//! What happens to a job when it is unknown how its attempt ended.
//!
//! `scheduler` decides that an attempt is lost.

use super::words::words;

/// How often a job is run again after lost attempts, apart from any other retry.
pub const LOST_RETRIES_MAX: u32 = 3;

/// A job's policy for a lost attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLost {
    /// It is `failed` with the reason `lost`.
    #[default]
    Fail,
    /// It runs again, up to [`LOST_RETRIES_MAX`] times.
    Retry,
}

words!(OnLost: Fail = "fail", Retry = "retry");

/// The decision after a lost attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// The job is `failed`, `lost`.
    Fail,
    /// It waits for another attempt.
    Retry,
    /// It would run again, but a stop is requested: it is `cancelled`.
    Cancel,
}

/// Decides after a lost attempt, before which `lost_before` others of the job were lost.
///
/// A stop only counts where there would be another attempt: whether it reached the lost one is
/// unknown, and an unknown end is `lost`. If the remains of the lost attempt could not be examined
/// (not `survivors_known`), it may still run, so no other one may start beside it.
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
