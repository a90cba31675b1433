//! When a job whose attempt has failed gets another one, and how long it waits for it.
//!
//! Lost attempts have a policy of their own: `loss`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Exit, NewJobRefusal, Reason, read, time::Seconds};

/// The most attempts that a policy may ask for.
pub const RETRY_ATTEMPTS_MAX: u32 = 1000;
/// The most entries of `on`.
const CONDITIONS_MAX: usize = 300;
/// Reasons that a retry may name. After `output_limit` every later attempt would meet the bound at
/// once; a job that failed with `dependency` has had no attempt; `lost` belongs to `on_lost`.
pub(super) const RETRIED: [Reason; 6] = [
    Reason::ExitCode,
    Reason::Signal,
    Reason::Timeout,
    Reason::Stalled,
    Reason::Spawn,
    Reason::Unverified,
];

/// A job's policy for attempts that fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// How many attempts may fail, lost and void ones aside; 1: there is no retry.
    #[serde(deserialize_with = "attempts")]
    pub max_attempts: u32,
    /// The pause after the first failure; each later one is twice as long.
    pub backoff_s: Seconds,
    /// The longest pause.
    pub max_backoff_s: Seconds,
    /// Which failures are tried again; `None`: all that can be.
    #[serde(deserialize_with = "conditions")]
    pub on: Option<Vec<RetryCondition>>,
}

/// A failure that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCondition {
    /// Every failure with this reason.
    Reason(Reason),
    /// This exit code, 1 to 255.
    ExitCode(u8),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            backoff_s: Seconds(1.0),
            max_backoff_s: Seconds(300.0),
            on: None,
        }
    }
}

impl RetryPolicy {
    /// Refuses what can never be meant.
    pub(super) fn check(&self) -> Result<(), NewJobRefusal> {
        if self.on.is_some() && self.max_attempts == 1 {
            let message = "must be at least 2 where retry.on is given: there would be no retry";
            return Err(NewJobRefusal::invalid("retry.max_attempts", message));
        }
        if self.max_backoff_s < self.backoff_s {
            let message = "must not be shorter than retry.backoff_s (1 where it is left out)";
            return Err(NewJobRefusal::invalid("retry.max_backoff_s", message));
        }
        Ok(())
    }

    /// Refuses failures of which `missing` says for each that the job cannot have it, and which key it needs
    /// for that.
    pub(super) fn check_can_match(
        &self,
        missing: impl Fn(Reason) -> Option<&'static str>,
    ) -> Result<(), NewJobRefusal> {
        let needs = self.on.iter().flatten().map(|condition| match condition {
            RetryCondition::Reason(reason) => Some((reason.name(), missing(*reason)?)),
            RetryCondition::ExitCode(_) => None,
        });
        match needs.collect::<Option<Vec<_>>>() {
            Some(needs) if !needs.is_empty() => {
                let needs = needs
                    .iter()
                    .map(|(reason, key)| format!("{reason} needs {key}"));
                let needs = needs.collect::<Vec<_>>().join(", ");
                let message = format!("can never match: {needs}; add that, or name other failures");
                Err(NewJobRefusal::invalid("retry.on", message))
            }
            _ => Ok(()),
        }
    }

    /// The pause before the next attempt, or `None` if the job stays failed. `failures` counts the
    /// attempts that have failed, this one included, from 1. `random` is from 0 to 1.
    ///
    /// The pause is between half of the exponential one and the whole, so that jobs that failed
    /// together do not come back together.
    pub fn pause_after(
        &self,
        failure: &Failure<'_>,
        failures: u32,
        random: f64,
    ) -> Option<Seconds> {
        if failures >= self.max_attempts || !self.covers(failure) {
            return None;
        }
        // Beyond 2^63 every pause is the longest one.
        let doubled = self.backoff_s.0 * 2f64.powi(failures.saturating_sub(1).min(63) as i32);
        let whole = doubled.min(self.max_backoff_s.0);
        Some(Seconds(whole * (0.5 + random.clamp(0.0, 1.0) / 2.0)))
    }

    fn covers(&self, failure: &Failure<'_>) -> bool {
        let Some(conditions) = &self.on else {
            return RETRIED.contains(&failure.reason);
        };
        conditions.iter().any(|condition| match condition {
            RetryCondition::Reason(reason) => *reason == failure.reason,
            RetryCondition::ExitCode(code) => {
                failure.reason == Reason::ExitCode && *failure.exit == Exit::Code(i32::from(*code))
            }
        })
    }
}

/// How an attempt has failed.
#[derive(Debug)]
pub struct Failure<'a> {
    /// The reason that the job would have.
    pub reason: Reason,
    /// How the leader ended.
    pub exit: &'a Exit,
}

impl Serialize for RetryCondition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Reason(reason) => reason.serialize(serializer),
            Self::ExitCode(code) => code.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RetryCondition {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        read::checked(value, |value| condition(&value))
    }
}

fn condition(value: &Value) -> Result<RetryCondition, String> {
    let wrong = || {
        let names: Vec<_> = RETRIED.iter().map(|reason| reason.name()).collect();
        format!(
            "must be exit codes from 1 to 255 and reasons of {}",
            names.join(", ")
        )
    };
    if let Some(number) = value.as_u64() {
        let code = u8::try_from(number).ok().filter(|code| *code > 0);
        return code.map(RetryCondition::ExitCode).ok_or_else(wrong);
    }
    match value.as_str().and_then(Reason::from_name) {
        Some(Reason::Lost) => Err("a lost attempt is tried again by on_lost: \"retry\"".to_owned()),
        Some(reason) if RETRIED.contains(&reason) => Ok(RetryCondition::Reason(reason)),
        _ => Err(wrong()),
    }
}

fn conditions<'de, D>(value: D) -> Result<Option<Vec<RetryCondition>>, D::Error>
where
    D: Deserializer<'de>,
{
    read::checked(value, |value| match value {
        Value::Null => Ok(None),
        Value::Array(entries) if (1..=CONDITIONS_MAX).contains(&entries.len()) => entries
            .iter()
            .map(condition)
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Err(format!(
            "must be a list of 1 to {CONDITIONS_MAX} exit codes or reasons"
        )),
    })
}

fn attempts<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    read::checked(value, |value| {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (1..=RETRY_ATTEMPTS_MAX).contains(number));
        number.ok_or(format!("must be an integer from 1 to {RETRY_ATTEMPTS_MAX}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::JobSpec;

    fn read(value: &Value) -> Result<RetryPolicy, NewJobRefusal> {
        let job = json!({"argv": ["true"], "retry": value});
        JobSpec::read(job.as_object().expect("an object").clone()).map(|job| job.retry)
    }

    #[test]
    fn policies_are_read_and_written_as_they_came() {
        let value = json!({"max_attempts": 5, "backoff_s": 2.0, "max_backoff_s": 60.0,
            "on": ["timeout", 75, "signal"]});
        let policy = read(&value).expect("valid");
        assert_eq!(serde_json::to_value(&policy).expect("JSON"), value);
        assert_eq!(read(&Value::Null), Ok(RetryPolicy::default()));
    }

    #[test]
    fn what_can_never_be_is_refused() {
        for (wrong, key) in [
            (json!([]), "retry"),
            (json!({"max_attempts": 0}), "retry.max_attempts"),
            (json!({"max_attempts": 1001}), "retry.max_attempts"),
            (json!({"max_attempts": 1.5}), "retry.max_attempts"),
            (json!({"on": ["timeout"]}), "retry.max_attempts"),
            (json!({"max_attempts": 2, "on": []}), "retry.on"),
            (json!({"max_attempts": 2, "on": [0]}), "retry.on"),
            (json!({"max_attempts": 2, "on": [256]}), "retry.on"),
            (json!({"max_attempts": 2, "on": ["lost"]}), "retry.on"),
            (json!({"max_attempts": 2, "on": ["dependency"]}), "retry.on"),
            (
                json!({"max_attempts": 2, "on": ["output_limit"]}),
                "retry.on",
            ),
            (json!({"max_attempts": 2, "on": "timeout"}), "retry.on"),
            (json!({"backoff_s": -1}), "retry.backoff_s"),
            (json!({"backoff_s": 400}), "retry.max_backoff_s"),
            (json!({"attempts": 2}), "retry.attempts"),
        ] {
            let refused = read(&wrong).expect_err("refused");
            assert_eq!(refused.key(), key, "{wrong}");
        }
    }

    #[test]
    fn failures_that_the_job_cannot_have_are_refused() {
        let check = |on: Value, mut job: Value| {
            job["argv"] = json!(["true"]);
            job["retry"] = json!({"max_attempts": 2, "on": on});
            let job = job.as_object().expect("an object").clone();
            JobSpec::read(job).expect("valid").check_retry()
        };
        for (on, needs) in [
            (json!(["timeout"]), "timeout needs timeout_s;"),
            (json!(["stalled"]), "stalled needs stall_timeout_s;"),
            (json!(["unverified"]), "unverified needs expect;"),
            (
                json!(["timeout", "stalled"]),
                "timeout needs timeout_s, stalled needs stall_timeout_s;",
            ),
        ] {
            let refused = check(on.clone(), json!({"grace_s": 1})).expect_err("refused");
            assert_eq!(refused.key(), "retry.on");
            assert!(refused.message().contains(needs), "{refused}");
        }
        for (on, job) in [
            (json!(null), json!({})),
            (json!(["timeout", 75]), json!({})),
            (json!(["exit_code"]), json!({})),
            (json!(["signal", "unverified"]), json!({})),
            (json!(["spawn"]), json!({})),
            (json!(["timeout", "stalled"]), json!({"timeout_s": 1})),
            (json!(["stalled"]), json!({"stall_timeout_s": 1})),
            (
                json!(["unverified"]),
                json!({"expect": [{"contains": "ok"}]}),
            ),
        ] {
            assert_eq!(check(on.clone(), job), Ok(()), "{on}");
        }
    }

    #[test]
    fn pauses_grow_to_the_longest_and_attempts_end() {
        let policy = read(&json!({"max_attempts": 6, "backoff_s": 1, "max_backoff_s": 5}));
        let policy = policy.expect("valid");
        let exit = &Exit::Code(1);
        let failure = Failure {
            reason: Reason::ExitCode,
            exit,
        };
        let pauses = |random| -> Vec<_> {
            let pauses = (1..=6).map(|n| policy.pause_after(&failure, n, random));
            pauses.map(|pause| pause.map(|pause| pause.0)).collect()
        };
        assert_eq!(
            pauses(1.0),
            [Some(1.0), Some(2.0), Some(4.0), Some(5.0), Some(5.0), None]
        );
        assert_eq!(
            pauses(0.0),
            [Some(0.5), Some(1.0), Some(2.0), Some(2.5), Some(2.5), None]
        );
        let endless = RetryPolicy {
            max_attempts: 1000,
            ..policy.clone()
        };
        assert_eq!(endless.pause_after(&failure, 999, 1.0), Some(Seconds(5.0)));
    }

    #[test]
    fn only_what_is_named_is_tried_again() {
        let policy = read(&json!({"max_attempts": 2, "on": ["timeout", 75]})).expect("valid");
        for (exit, reason, again) in [
            (Exit::Code(75), Reason::ExitCode, true),
            (Exit::Code(1), Reason::ExitCode, false),
            (Exit::Signal(9), Reason::Timeout, true),
            (Exit::Code(75), Reason::Unverified, false),
            (Exit::Signal(9), Reason::Signal, false),
        ] {
            let failure = Failure {
                reason,
                exit: &exit,
            };
            let pause = policy.pause_after(&failure, 1, 0.5);
            assert_eq!(pause.is_some(), again, "{failure:?}");
        }
        let all = RetryPolicy {
            max_attempts: 2,
            ..RetryPolicy::default()
        };
        for reason in Reason::ALL {
            let failure = Failure {
                reason,
                exit: &Exit::Code(1),
            };
            let pause = all.pause_after(&failure, 1, 0.5);
            assert_eq!(pause.is_some(), RETRIED.contains(&reason), "{reason:?}");
        }
    }
}
