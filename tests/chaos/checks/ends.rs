//! How each job ended: as planned if nobody touched it, else in one of the ways that what touched
//! it allows; the same to everybody who asked; `lost` only by the kill of a shim; never a false
//! success. Whether a dependency had failed is for `dependencies` to say.

use std::collections::BTreeMap;

use super::Violation;
use crate::{
    evidence::{Evidence, Touched},
    facts::Facts,
    history::What,
    plan::{End, Key, Plan, RUNS_MAX},
    rows::AttemptRow,
};

const NAME: &str = "ends";

/// Judges the final facts: `last` is what a new server says when all is over.
pub fn check(
    evidence: &Evidence,
    touched: &BTreeMap<Key, Touched>,
    last: &BTreeMap<Key, Facts>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    let (ends, deleted) = (ends(evidence), evidence.deleted());
    let attempts = evidence.attempts();
    for (key, plan) in &evidence.plans {
        let Some(facts) = last.get(key) else {
            if deleted.contains(key) {
                continue;
            }
            found.push(Violation::of(NAME, *key, "has no end"));
            continue;
        };
        let touched = touched.get(key).cloned().unwrap_or_default();
        let attempts = attempts.get(key).map_or(&[][..], Vec::as_slice);
        if let Some(why) = not_allowed(plan, &touched, facts, attempts) {
            found.push(Violation::of(
                NAME,
                *key,
                format!("{why}: {facts:?}, {touched:?}, {plan:?}"),
            ));
        }
        let came_to_its_end = ends.get(key).copied().unwrap_or(false);
        let own_end =
            ["exit_code", "signal"].contains(&facts.reason.as_deref().unwrap_or("exit_code"));
        let by_itself =
            facts.state != "cancelled" && own_end && facts.signal.as_deref() != Some("SIGUSR2");
        if by_itself && !came_to_its_end {
            found.push(Violation::of(
                NAME,
                *key,
                format!("never came to its end: {facts:?}"),
            ));
        }
    }
    found.extend(changed(evidence, last));
    found
}

/// Jobs whose own ledger has an end of the last attempt that began.
fn ends(evidence: &Evidence) -> BTreeMap<Key, bool> {
    let keys = evidence.keys_by_id();
    let mut last: BTreeMap<Key, (u32, bool)> = BTreeMap::new();
    for line in &evidence.lines {
        if let Some(key) = keys.get(line.job_id.as_str()) {
            let (attempt, ended) = last.entry(*key).or_default();
            if line.attempt > *attempt {
                (*attempt, *ended) = (line.attempt, false);
            }
            *ended |= !line.is_start && line.attempt == *attempt;
        }
    }
    last.into_iter()
        .map(|(key, (_, ended))| (key, ended))
        .collect()
}

/// Why a job with these attempts may not have ended like this.
fn not_allowed(
    plan: &Plan,
    touched: &Touched,
    facts: &Facts,
    attempts: &[&AttemptRow],
) -> Option<&'static str> {
    if facts.survivors > 0 {
        return Some("processes survived it");
    }
    if facts.attempts != attempts.len() as u64 {
        return Some("its attempts are not those of the database");
    }
    let by_dependency = facts.reason.as_deref() == Some("dependency");
    if by_dependency != facts.failed_dependency.is_some() {
        return Some("names a dependency, or none, and should not");
    }
    if by_dependency {
        let never_ran = attempts.is_empty() && facts.started_at.is_none();
        let allowed = never_ran && facts.output_bytes == 0 && !plan.waiting.after.is_empty();
        return (!allowed).then_some("failed because of another job");
    }
    let lost = attempts.iter().filter(|row| row.state == "lost").count() as u32;
    let failures = attempts.len() as u32 - lost;
    if lost > 0 && !touched.shim_kill {
        return Some("an attempt is lost whose shim was not killed");
    }
    let is_lost = facts.is_lost();
    if lost > if plan.again { RUNS_MAX } else { 1 } || lost > 0 && !plan.again && !is_lost {
        return Some("too many lost attempts");
    }
    if failures > plan.failures_max() {
        return Some("too many attempts");
    }
    let last = attempts.last().map_or(1, |row| row.attempt);
    if is_planned(plan.end_of(last), facts) {
        let is_there = !attempts.is_empty() && lost < RUNS_MAX;
        return (!is_there).then_some("as planned, but at another attempt");
    }
    let allowed = match (facts.state.as_str(), facts.reason.as_deref()) {
        ("cancelled", _) => touched.cancel,
        ("failed", Some("lost")) => lost == if plan.again { RUNS_MAX } else { 1 },
        ("failed", Some("signal")) => touched.signal && facts.signal.as_deref() == Some("SIGUSR2"),
        _ => false,
    };
    let silent = facts.exit_code.is_none() && facts.signal.is_none();
    if is_lost && !silent {
        return Some("lost, and yet it tells how it ended");
    }
    (!allowed).then_some("not how it was to end, and nothing that touched it allows it")
}

fn is_planned(end: End, facts: &Facts) -> bool {
    let (state, reason) = (facts.state.as_str(), facts.reason.as_deref());
    let (code, signal) = (facts.exit_code, facts.signal.as_deref());
    match end {
        End::Code(0) => (state, reason, code, signal) == ("succeeded", None, Some(0), None),
        End::Code(n) => {
            (state, reason, code, signal) == ("failed", Some("exit_code"), Some(n), None)
        }
        End::Signal(name) => {
            (state, reason, code, signal) == ("failed", Some("signal"), None, Some(name))
        }
        End::Timeout => (state, reason) == ("failed", Some("timeout")),
        End::OutputLimit => (state, reason) == ("failed", Some("output_limit")),
        End::Spawn => (state, reason, code, signal) == ("failed", Some("spawn"), None, None),
        End::Never => false,
    }
}

/// A final job never changes: whoever was told one was told this one.
fn changed(evidence: &Evidence, last: &BTreeMap<Key, Facts>) -> Vec<Violation> {
    let told = evidence
        .entries
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Ended { facts, .. } | What::Final { facts } => Some((entry.job?, facts)),
            _ => None,
        });
    // Of a deleted job, what was told first.
    let mut known: BTreeMap<Key, &Facts> = last.iter().map(|(key, facts)| (*key, facts)).collect();
    told.filter(|(key, facts)| *known.entry(*key).or_insert(*facts) != *facts)
        .map(|(key, facts)| {
            let last = last.get(&key);
            Violation::of(NAME, key, format!("was told as {facts:?} and is {last:?}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::waiting::{After, Retry, Target};

    fn found(evidence: &Evidence, last: &BTreeMap<Key, Facts>) -> usize {
        check(evidence, &evidence.touched(), last).len()
    }

    #[test]
    fn an_honest_run_passes() {
        let evidence = scene::honest();
        assert_eq!(
            check(&evidence, &evidence.touched(), &scene::ends(&evidence)),
            []
        );
    }

    #[test]
    fn a_job_without_an_end_is_found() {
        let evidence = scene::honest();
        assert_eq!(found(&evidence, &BTreeMap::new()), evidence.plans.len());
    }

    #[test]
    fn a_false_success_is_found() {
        let mut evidence = scene::honest();
        scene::kill_shim(&mut evidence, 0);
        evidence
            .lines
            .retain(|line| line.is_start || line.job_id != "id-0");
        assert_eq!(found(&evidence, &scene::ends(&evidence)), 1);
    }

    #[test]
    fn lost_is_only_for_those_whose_shim_was_killed() {
        let mut evidence = scene::honest();
        // Nobody was told an end before.
        evidence
            .entries
            .retain(|entry| !matches!(entry.what, What::Ended { .. }));
        let mut last = scene::ends(&evidence);
        let lost = last.get_mut(&0).expect("a job");
        (lost.state, lost.reason) = ("failed".to_owned(), Some("lost".to_owned()));
        lost.exit_code = None;
        evidence.rows.attempts[0].state = "lost".to_owned();
        assert_eq!(found(&evidence, &last), 1);
        scene::kill_shim(&mut evidence, 0);
        assert_eq!(found(&evidence, &last), 0);
    }

    #[test]
    fn a_dependency_is_named_by_those_that_failed_with_it_and_never_ran() {
        let honest = || {
            let mut evidence = scene::honest();
            evidence
                .entries
                .retain(|entry| !matches!(entry.what, What::Ended { .. }));
            let waiting = &mut evidence.plans.get_mut(&0).expect("a plan").waiting;
            waiting.after.push(After {
                key: 1,
                target: Target::Id("id-1".to_owned()),
                on_success: true,
            });
            scene::never_runs(&mut evidence, 0);
            let mut last = scene::ends(&evidence);
            let facts = last.get_mut(&0).expect("a job");
            (facts.state, facts.reason) = ("failed".to_owned(), Some("dependency".to_owned()));
            (facts.exit_code, facts.attempts, facts.output_bytes) = (None, 0, 0);
            facts.failed_dependency = Some("{}".to_owned());
            (evidence, last)
        };
        let (evidence, last) = honest();
        assert_eq!(found(&evidence, &last), 0);
        let (mut evidence, last) = honest();
        evidence
            .plans
            .get_mut(&0)
            .expect("a plan")
            .waiting
            .after
            .clear();
        assert_eq!(found(&evidence, &last), 1, "it waits for nothing");
        let change: [fn(&mut Facts); 3] = [
            |facts| facts.failed_dependency = None,
            |facts| facts.output_bytes = 1,
            |facts| facts.reason = Some("spawn".to_owned()),
        ];
        for change in change {
            let (evidence, mut last) = honest();
            change(last.get_mut(&0).expect("a job"));
            assert_eq!(found(&evidence, &last), 1);
        }
    }

    #[test]
    fn more_attempts_than_the_policy_has_are_found() {
        let mut evidence = scene::honest();
        evidence
            .entries
            .retain(|entry| !matches!(entry.what, What::Ended { .. }));
        let retry = Retry {
            max_attempts: 2,
            backoff_ms: 0,
            max_backoff_ms: 0,
            on: None,
            succeeds_at: Some(2),
        };
        scene::tried_again(&mut evidence, 1, retry);
        let mut last = scene::ends(&evidence);
        assert_eq!(found(&evidence, &last), 1, "one attempt of two is told");
        last.get_mut(&1).expect("a job").attempts = 2;
        assert_eq!(found(&evidence, &last), 0);
        let plan = evidence.plans.get_mut(&1).expect("a plan");
        plan.retry.as_mut().expect("a policy").max_attempts = 1;
        assert_eq!(found(&evidence, &last), 1);
    }

    #[test]
    fn a_job_that_runs_again_is_lost_only_the_fourth_time() {
        let mut evidence = scene::honest();
        evidence
            .entries
            .retain(|entry| !matches!(entry.what, What::Ended { .. }));
        evidence.plans.get_mut(&0).expect("a plan").again = true;
        scene::kill_shim(&mut evidence, 0);
        let mut last = scene::ends(&evidence);
        let lost = last.get_mut(&0).expect("a job");
        (lost.state, lost.reason) = ("failed".to_owned(), Some("lost".to_owned()));
        lost.exit_code = None;
        evidence.rows.attempts[0].state = "lost".to_owned();
        assert_eq!(found(&evidence, &last), 1);
        for attempt in 2..=4 {
            let mut row = evidence.rows.attempts[0].clone();
            row.attempt = attempt;
            evidence.rows.attempts.push(row);
        }
        last.get_mut(&0).expect("a job").attempts = 4;
        assert_eq!(found(&evidence, &last), 0);
    }

    #[test]
    fn a_cancel_that_nobody_asked_for_is_found() {
        let mut evidence = scene::honest();
        evidence
            .entries
            .retain(|entry| !matches!(entry.what, What::Ended { .. }));
        let mut last = scene::ends(&evidence);
        let cancelled = last.get_mut(&0).expect("a job");
        (cancelled.state, cancelled.exit_code) = ("cancelled".to_owned(), None);
        assert_eq!(found(&evidence, &last), 1);
    }

    #[test]
    fn another_exit_code_is_found() {
        let evidence = scene::honest();
        let mut last = scene::ends(&evidence);
        last.get_mut(&0).expect("a job").exit_code = Some(7);
        assert_eq!(
            found(&evidence, &last),
            2,
            "not as planned, and not as told"
        );
    }

    #[test]
    fn a_final_state_that_changes_is_found() {
        let mut evidence = scene::honest();
        let mut facts = scene::ends(&evidence)[&0].clone();
        facts.finished_at = Some("another day".to_owned());
        scene::note(&mut evidence, 0, What::Final { facts });
        assert_eq!(found(&evidence, &scene::ends(&evidence)), 1);
    }
}
