//! When a notice is tried again, and when it is given up. Pure.

use std::time::Duration;

use super::types::{DeliveryFailure, NoticeSettings};
use crate::{
    job::Micros,
    store::{DeliveryOutcome, WaitingNotice},
};

/// The longest pause between two attempts, jitter aside.
pub const PAUSE_MAX: Duration = Duration::from_secs(4 * 3600);
/// A pause is up to this much shorter or longer, so that notices that failed together do not come
/// back together.
const JITTER: f64 = 0.2;

/// What becomes of a notice whose attempt has failed at `now`. `random` is from 0 to 1.
pub fn after_failure(
    notice: &WaitingNotice,
    failure: DeliveryFailure,
    settings: &NoticeSettings,
    now: Micros,
    random: f64,
) -> DeliveryOutcome {
    let DeliveryFailure {
        error,
        retry_after,
        is_final,
    } = failure;
    let age_max_us = i64::try_from(settings.age_max_s * 1_000_000).unwrap_or(i64::MAX);
    let is_last = u64::from(notice.attempts) + 1 >= settings.attempts_max;
    let is_old = now.0.saturating_sub(notice.since.0) >= age_max_us;
    if is_final || is_last || is_old {
        return DeliveryOutcome::GivenUp { error };
    }
    let first = Duration::from_millis(settings.backoff_ms);
    let pause = pause(first, notice.attempts, random).max(retry_after.unwrap_or_default());
    let pause_us = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
    let due_at = Micros(now.0.saturating_add(pause_us));
    DeliveryOutcome::Retry { error, due_at }
}

/// The pause after an attempt that followed `earlier` failed ones.
fn pause(first: Duration, earlier: u32, random: f64) -> Duration {
    let factor = 1u32.checked_shl(earlier.min(31)).unwrap_or(u32::MAX);
    let pause = first.saturating_mul(factor).min(PAUSE_MAX);
    pause.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Delivery, NotifyTarget};

    const SETTINGS: NoticeSettings = NoticeSettings {
        running_max: 16,
        timeout_s: 15,
        attempts_max: 30,
        age_max_s: 3 * 24 * 3600,
        backoff_ms: 5000,
        waiting_max: 1000,
    };

    fn notice(attempts: u32) -> WaitingNotice {
        WaitingNotice {
            number: 1,
            job: 1,
            queue: "default".into(),
            requester: None,
            entry: 0,
            destination: "a".into(),
            attempts,
            since: Micros(0),
            due_at: Micros(0),
            delivery: Delivery {
                id: "evt".into(),
                target: NotifyTarget::Url("http://a".into()),
                secret: None,
                body: "{}".into(),
            },
        }
    }

    fn after(attempts: u32, now_s: i64, failure: DeliveryFailure) -> Option<i64> {
        let now = Micros(now_s * 1_000_000);
        match after_failure(&notice(attempts), failure, &SETTINGS, now, 0.5) {
            DeliveryOutcome::Retry { due_at, .. } => Some((due_at.0 - now.0) / 1_000_000),
            _ => None,
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let failure = || DeliveryFailure::new("no");
        let pauses = [0, 1, 2, 5, 11, 12, 28].map(|earlier| after(earlier, 0, failure()));
        let expected = [5, 10, 20, 160, 10_240, 14_400, 14_400].map(Some);
        assert_eq!(pauses, expected);
        assert_eq!(
            pause(Duration::from_secs(5), 0, 0.0),
            Duration::from_secs(4)
        );
        assert_eq!(
            pause(Duration::from_secs(5), 0, 1.0),
            Duration::from_secs(6)
        );
        assert_eq!(pause(Duration::from_secs(5), u32::MAX, 0.5), PAUSE_MAX);
    }

    #[test]
    fn it_ends_with_the_last_attempt_the_age_or_the_receivers_word() {
        let failure = || DeliveryFailure::new("no");
        assert_eq!(after(29, 0, failure()), None);
        assert_eq!(after(0, 3 * 24 * 3600, failure()), None);
        assert!(after(0, 3 * 24 * 3600 - 1, failure()).is_some());
        let gone = DeliveryFailure {
            is_final: true,
            ..failure()
        };
        assert_eq!(after(0, 0, gone), None);
        // A clock that was set back makes no notice old.
        assert!(after(0, -1_000_000, failure()).is_some());
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause() {
        let busy = |seconds| DeliveryFailure {
            retry_after: Some(Duration::from_secs(seconds)),
            ..DeliveryFailure::new("busy")
        };
        assert_eq!(after(0, 0, busy(60)), Some(60));
        assert_eq!(after(0, 0, busy(1)), Some(5));
    }
}
