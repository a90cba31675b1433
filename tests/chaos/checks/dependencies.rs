//! A job with `after` moves on only behind the ends that it requires, in the order of the database's
//! events and in the order of the lines that the jobs themselves wrote; it fails with `dependency`
//! only because of one that ended otherwise, which it names, and then never runs.

use std::collections::BTreeMap;

use super::Violation;
use crate::{
    course::{Course, courses},
    evidence::Evidence,
    plan::{Key, Plan},
    waiting::After,
};

const NAME: &str = "dependencies";

/// Judges every job that was acknowledged.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let keys = evidence.keys();
    let ids: BTreeMap<Key, &str> = evidence
        .keys_by_id()
        .into_iter()
        .map(|(id, key)| (key, id))
        .collect();
    let courses: BTreeMap<Key, Course<'_>> = courses(&evidence.rows)
        .into_iter()
        .filter_map(|(number, course)| Some((*keys.get(&number)?, course)))
        .collect();
    let mut found = Vec::new();
    for (key, plan) in &evidence.plans {
        let Some(course) = courses.get(key) else {
            continue;
        };
        let mut wrong = moved_too_early(plan, course, &courses);
        wrong.extend(failed_without_cause(evidence, plan, course, &courses, &ids));
        found.extend(
            wrong
                .into_iter()
                .map(|what| Violation::of(NAME, *key, what)),
        );
    }
    found.extend(ran_too_early(evidence));
    found
}

/// How a job ended that is waited for, if it had before this place.
fn end_before<'c>(
    courses: &'c BTreeMap<Key, Course<'_>>,
    after: &After,
    place: usize,
) -> Option<&'c str> {
    let (ended, state) = courses.get(&after.key)?.end()?;
    (ended < place).then_some(state)
}

fn moved_too_early(
    plan: &Plan,
    course: &Course<'_>,
    courses: &BTreeMap<Key, Course<'_>>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (place, event) in &course.events {
        if !["queued", "scheduled", "running"].contains(&event.to.as_str()) {
            continue;
        }
        for after in &plan.waiting.after {
            let end = end_before(courses, after, *place);
            if !end.is_some_and(|state| after.is_met_by(state)) {
                found.push(format!("is {}, and {after:?} is {end:?}", event.to));
            }
        }
    }
    found
}

fn failed_without_cause(
    evidence: &Evidence,
    plan: &Plan,
    course: &Course<'_>,
    courses: &BTreeMap<Key, Course<'_>>,
    ids: &BTreeMap<Key, &str>,
) -> Option<String> {
    let failed = |(_, event): &&(usize, &crate::rows::EventRow)| event.reason == "dependency";
    let (place, event) = course.events.iter().find(failed)?;
    let broken: Vec<(&After, &str)> = plan
        .waiting
        .after
        .iter()
        .filter_map(|after| Some((after, end_before(courses, after, *place)?)))
        .filter(|(after, state)| !after.is_met_by(state))
        .collect();
    if broken.is_empty() || event.from.as_deref() != Some("blocked") {
        return Some(format!(
            "{event:?}, and nothing that it waits for ended otherwise: {:?}",
            plan.waiting.after
        ));
    }
    let row = evidence
        .rows
        .jobs
        .iter()
        .find(|row| row.key() == Some(plan.key))?;
    let (id, state) = &row.failed_dependency;
    let names_one = broken
        .iter()
        .any(|(after, ended)| ids.get(&after.key) == Some(&id.as_str()) && ended == state);
    if !names_one {
        return Some(format!("names {id} ({state}), and broken are {broken:?}"));
    }
    let ran = evidence.lines.iter().any(|line| line.job_id == row.id)
        || evidence.rows.attempts.iter().any(|it| it.job == row.number);
    ran.then(|| "failed with `dependency` and ran".to_owned())
}

/// By the ledger alone: the first line of a job comes behind the last one of each that it waits for.
fn ran_too_early(evidence: &Evidence) -> Vec<Violation> {
    let keys = evidence.keys_by_id();
    let mut lines: BTreeMap<Key, (usize, usize)> = BTreeMap::new();
    for (nth, line) in evidence.lines.iter().enumerate() {
        if let Some(key) = keys.get(line.job_id.as_str()) {
            lines.entry(*key).or_insert((nth, nth)).1 = nth;
        }
    }
    let mut found = Vec::new();
    for (key, (first, _)) in &lines {
        let Some(plan) = evidence.plans.get(key) else {
            continue;
        };
        for after in &plan.waiting.after {
            if lines.get(&after.key).is_some_and(|(_, last)| last > first) {
                let what = format!("ran before the last line of {}", after.key);
                found.push(Violation::of(NAME, *key, what));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::waiting::Target;

    /// Job 1 waits for job 0.
    fn honest(on_success: bool) -> Evidence {
        let mut evidence = scene::honest();
        let after = After {
            key: 0,
            target: Target::Id("id-0".to_owned()),
            on_success,
        };
        let plan = evidence.plans.get_mut(&1).expect("a plan");
        plan.waiting.after = vec![after];
        evidence
    }

    /// Job 0 has failed, and job 1 with it.
    fn failed() -> Evidence {
        let mut evidence = honest(true);
        scene::ends_as(&mut evidence, 0, "failed", "exit_code");
        scene::never_runs(&mut evidence, 1);
        scene::ends_as(&mut evidence, 1, "failed", "dependency");
        let row = &mut evidence.rows.jobs[1];
        row.failed_dependency = ("id-0".to_owned(), "failed".to_owned());
        evidence
    }

    #[test]
    fn honest_runs_pass() {
        assert_eq!(check(&scene::honest()), []);
        assert_eq!(check(&honest(true)), []);
        assert_eq!(check(&failed()), []);
        let mut evidence = honest(false);
        scene::ends_as(&mut evidence, 0, "failed", "exit_code");
        assert_eq!(check(&evidence), [], "any end will do");
    }

    #[test]
    fn a_job_that_moves_before_the_other_has_ended_is_found() {
        let mut evidence = honest(true);
        let end = evidence.rows.events.remove(2);
        evidence.rows.events.push(end);
        assert_eq!(check(&evidence).len(), 2, "queued and running");
    }

    #[test]
    fn a_job_that_moves_although_the_other_has_failed_is_found() {
        let mut evidence = honest(true);
        scene::ends_as(&mut evidence, 0, "failed", "exit_code");
        assert_eq!(check(&evidence).len(), 2);
    }

    #[test]
    fn a_job_that_waits_for_one_that_never_was_is_found() {
        let mut evidence = honest(true);
        let plan = evidence.plans.get_mut(&1).expect("a plan");
        plan.waiting.after[0].key = 99;
        assert_eq!(check(&evidence).len(), 2);
    }

    #[test]
    fn a_job_that_fails_without_cause_is_found() {
        let mut evidence = failed();
        scene::ends_as(&mut evidence, 0, "succeeded", "");
        assert_eq!(check(&evidence).len(), 1);
        let mut evidence = failed();
        evidence.plans.get_mut(&1).expect("a plan").waiting.after[0].on_success = false;
        assert_eq!(check(&evidence).len(), 1, "any end would have done");
        let mut evidence = scene::honest();
        scene::ends_as(&mut evidence, 2, "failed", "dependency");
        assert_eq!(check(&evidence).len(), 1, "it waits for nothing");
    }

    #[test]
    fn a_job_that_names_another_cause_is_found() {
        for wrong in [("id-2", "failed"), ("id-0", "cancelled"), ("", "")] {
            let mut evidence = failed();
            let row = &mut evidence.rows.jobs[1];
            row.failed_dependency = (wrong.0.to_owned(), wrong.1.to_owned());
            assert_eq!(check(&evidence).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn a_job_that_failed_with_dependency_and_ran_is_found() {
        let mut evidence = failed();
        let lines = scene::honest().lines;
        evidence.lines.push(lines[2].clone());
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn lines_in_the_wrong_order_are_found() {
        let mut evidence = honest(false);
        evidence.lines.swap(1, 2);
        assert_eq!(check(&evidence).len(), 1);
    }
}
