//! What follows a failed attempt: another one where the job's policy has it, as often as it has it,
//! and otherwise the end; nothing after a cancel. Believes the order of the database's events.

use std::collections::BTreeMap;

use super::Violation;
use crate::{
    course::{Course, courses},
    evidence::{Evidence, Touched},
    plan::{End, Key, Plan},
    rows::EventRow,
};

const NAME: &str = "retries";

/// Judges every job that was acknowledged.
pub fn check(evidence: &Evidence, touched: &BTreeMap<Key, Touched>) -> Vec<Violation> {
    let keys = evidence.keys();
    let mut found = Vec::new();
    for (number, course) in courses(&evidence.rows) {
        let Some(plan) = keys.get(&number).and_then(|key| evidence.plans.get(key)) else {
            continue;
        };
        let touched = touched.get(&plan.key).cloned().unwrap_or_default();
        let wrong = of_job(plan, &course, &touched);
        found.extend(
            wrong
                .into_iter()
                .map(|what| Violation::of(NAME, plan.key, what)),
        );
    }
    found
}

fn of_job(plan: &Plan, course: &Course<'_>, touched: &Touched) -> Vec<String> {
    let mut found = Vec::new();
    let mut failures = 0;
    for (_, event) in course
        .events
        .iter()
        .filter(|(_, event)| event.ends_attempt())
    {
        if event.reason == "lost" || event.to == "queued" || event.to == "cancelled" {
            continue;
        }
        failures += 1;
        if let Some(why) = misjudged(plan, event, failures, touched) {
            found.push(format!(
                "{why}: failure {failures}, {event:?}, {:?}",
                plan.retry
            ));
        }
    }
    found
}

/// Why this must not have been the answer to the end of an attempt.
fn misjudged(
    plan: &Plan,
    event: &EventRow,
    failures: u32,
    touched: &Touched,
) -> Option<&'static str> {
    let end = plan.end_of(event.attempt);
    let code = end.code();
    if event.to == "succeeded" {
        return (end != End::Code(0)).then_some("succeeded, and was to fail");
    }
    let as_planned = end.reason() == Some(event.reason.as_str());
    if !(as_planned || touched.signal && event.reason == "signal") {
        return Some("failed, and was not to fail like this");
    }
    let again = plan.is_tried_again(&event.reason, code, failures);
    match event.is_retry() {
        true => (!again).then_some("tried again, and was not to be"),
        false => (again && !touched.cancel).then_some("final, and was to be tried again"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::waiting::{Condition, Retry};

    fn policy() -> Retry {
        Retry {
            max_attempts: 3,
            backoff_ms: 0,
            max_backoff_ms: 0,
            on: Some(vec![Condition::Code(7)]),
            succeeds_at: Some(2),
        }
    }

    /// Job 1 fails once and succeeds then.
    fn honest() -> Evidence {
        let mut evidence = scene::honest();
        scene::tried_again(&mut evidence, 1, policy());
        evidence
    }

    fn found(evidence: &Evidence) -> usize {
        check(evidence, &evidence.touched()).len()
    }

    fn retry(evidence: &mut Evidence) -> &mut Retry {
        let plan = evidence.plans.get_mut(&1).expect("a plan");
        plan.retry.as_mut().expect("a policy")
    }

    #[test]
    fn an_honest_run_passes() {
        let evidence = honest();
        assert_eq!(check(&evidence, &evidence.touched()), []);
    }

    #[test]
    fn another_attempt_that_no_policy_asks_for_is_found() {
        let mut evidence = honest();
        retry(&mut evidence).max_attempts = 1;
        assert_eq!(found(&evidence), 1, "too many");
        let mut evidence = honest();
        retry(&mut evidence).on = Some(vec![Condition::Code(8), Condition::Reason("signal")]);
        assert_eq!(found(&evidence), 1, "not this code");
        let mut evidence = honest();
        evidence.plans.get_mut(&1).expect("a plan").retry = None;
        assert!(found(&evidence) > 0, "none at all");
    }

    #[test]
    fn an_attempt_that_is_forgotten_is_found() {
        let mut evidence = honest();
        retry(&mut evidence).succeeds_at = None;
        scene::ends_as(&mut evidence, 1, "failed", "exit_code");
        assert_eq!(found(&evidence), 1, "there was to be a third one");
        scene::ask(&mut evidence, 1, "cancel");
        assert_eq!(found(&evidence), 0, "not behind a cancel");
    }

    #[test]
    fn a_false_success_and_another_failure_are_found() {
        let mut evidence = honest();
        retry(&mut evidence).succeeds_at = None;
        assert_eq!(found(&evidence), 1, "it fails each time");
        let mut evidence = honest();
        scene::ends_as(&mut evidence, 1, "failed", "signal");
        assert_eq!(found(&evidence), 1, "nobody sent one");
    }
}
