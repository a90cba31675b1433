//! No job starts before its time: the delay from its submission, and the pause after a failure that
//! is tried again, by the times of the database's events and of the shims' starts.

use super::Violation;
use crate::{
    course::{Course, courses},
    evidence::Evidence,
    plan::Plan,
    rows::AttemptRow,
};

const NAME: &str = "times";

/// Judges every job that was acknowledged.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let keys = evidence.keys();
    let mut found = Vec::new();
    for (number, course) in courses(&evidence.rows) {
        let Some(plan) = keys.get(&number).and_then(|key| evidence.plans.get(key)) else {
            continue;
        };
        let attempts = evidence.rows.attempts.iter();
        let attempts: Vec<_> = attempts.filter(|row| row.job == number).collect();
        let wrong = too_early(plan, &course, &attempts);
        found.extend(
            wrong
                .into_iter()
                .map(|what| Violation::of(NAME, plan.key, what)),
        );
    }
    found
}

fn too_early(plan: &Plan, course: &Course<'_>, attempts: &[&AttemptRow]) -> Vec<String> {
    let mut found = Vec::new();
    let submitted = course.events.first().map_or(0, |(_, event)| event.at);
    let mut ready = submitted + plan.waiting.delay_ms * 1000;
    let mut failures = 0;
    for (_, event) in &course.events {
        if event.is_retry() {
            failures += 1;
            let pause = plan.retry.as_ref().map_or(0, |it| it.pause_us(failures));
            ready = ready.max(event.at + pause);
        }
        if event.to == "queued" && event.at < ready {
            let early = ready - event.at;
            found.push(format!("{event:?} {early} µs before its time"));
        }
        if event.begins_attempt() {
            let row = attempts.iter().find(|row| row.attempt == event.attempt);
            let started = row.and_then(|row| row.started_at);
            if let Some(early) = started
                .and_then(|at| ready.checked_sub(at))
                .filter(|it| *it > 0)
            {
                let attempt = event.attempt;
                found.push(format!(
                    "attempt {attempt} began {early} µs before its time"
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::waiting::Retry;

    /// Job 0 waits for 2 ms, job 1 fails once and waits for at least 3 ms.
    fn honest() -> Evidence {
        let mut evidence = scene::honest();
        scene::delayed(&mut evidence, 0, 2);
        let retry = Retry {
            max_attempts: 2,
            backoff_ms: 6,
            max_backoff_ms: 6,
            on: None,
            succeeds_at: Some(2),
        };
        scene::tried_again(&mut evidence, 1, retry);
        evidence
    }

    #[test]
    fn an_honest_run_passes() {
        assert_eq!(check(&honest()), []);
    }

    #[test]
    fn a_start_before_the_delay_is_found() {
        let mut evidence = honest();
        evidence.plans.get_mut(&0).expect("a plan").waiting.delay_ms = 3;
        assert_eq!(check(&evidence).len(), 2, "the event and the start");
        let mut evidence = honest();
        evidence.rows.attempts[0].started_at = Some(scene::SUBMITTED_US + 1999);
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn a_delay_that_was_forgotten_is_found() {
        let mut evidence = scene::honest();
        evidence.plans.get_mut(&0).expect("a plan").waiting.delay_ms = 1;
        assert_eq!(check(&evidence).len(), 2);
    }

    #[test]
    fn a_start_before_the_pause_is_found() {
        let mut evidence = honest();
        let retry = evidence.plans.get_mut(&1).expect("a plan").retry.as_mut();
        let retry = retry.expect("a policy");
        (retry.backoff_ms, retry.max_backoff_ms) = (20, 20);
        assert_eq!(check(&evidence).len(), 2);
    }
}
