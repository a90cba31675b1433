//! How each job ended: as planned if nobody touched it, else in one of the ways that what touched
//! it allows; the same to everybody who asked; `lost` only by the kill of a shim; never a false
//! success.

use std::collections::BTreeMap;

use super::Violation;
use crate::{
    evidence::{Evidence, Touched},
    facts::Facts,
    history::What,
    plan::{End, Key, Plan, RUNS_MAX},
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
    for (key, plan) in &evidence.plans {
        let Some(facts) = last.get(key) else {
            if deleted.contains(key) {
                continue;
            }
            found.push(Violation::of(NAME, *key, "has no end"));
            continue;
        };
        let touched = touched.get(key).cloned().unwrap_or_default();
        if let Some(why) = not_allowed(plan, &touched, facts) {
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

/// Why a job may not have ended like this.
fn not_allowed(plan: &Plan, touched: &Touched, facts: &Facts) -> Option<&'static str> {
    if facts.survivors > 0 {
        return Some("processes survived it");
    }
    if is_planned(plan.end, facts) {
        let runs_max = match plan.again && touched.shim_kill {
            true => u64::from(RUNS_MAX),
            false => 1,
        };
        let as_planned = (1..=runs_max).contains(&facts.attempts);
        return (!as_planned).then_some("as planned, but at another attempt");
    }
    let allowed = match (facts.state.as_str(), facts.reason.as_deref()) {
        ("cancelled", _) => touched.cancel,
        ("failed", Some("lost")) => {
            let runs = if plan.again { RUNS_MAX } else { 1 };
            touched.shim_kill && facts.attempts == u64::from(runs)
        }
        ("failed", Some("signal")) => touched.signal && facts.signal.as_deref() == Some("SIGUSR2"),
        _ => false,
    };
    let silent = facts.exit_code.is_none() && facts.signal.is_none();
    if facts.is_lost() && !silent {
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
        assert_eq!(found(&evidence, &last), 1);
        scene::kill_shim(&mut evidence, 0);
        assert_eq!(found(&evidence, &last), 0);
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
        assert_eq!(found(&evidence, &last), 1);
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
