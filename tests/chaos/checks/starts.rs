//! At most one start per attempt; exactly as many as planned for a job that no kill of a shim and no
//! cancel touched; another attempt only behind a lost or a failed one, where the job wants that.
//! Believes only the ledger that the jobs themselves wrote and synced.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::{
    evidence::{Evidence, Touched},
    plan::{End, Key, Kind, Plan, RUNS_MAX},
    rows::AttemptRow,
};

const NAME: &str = "starts";

/// Compares the jobs' ledger with the attempts of the database.
pub fn check(evidence: &Evidence, touched: &BTreeMap<Key, Touched>) -> Vec<Violation> {
    let mut found = Vec::new();
    let keys = evidence.keys_by_id();
    // Starts and ends of each attempt.
    let mut counts: BTreeMap<Key, BTreeMap<u32, [u32; 2]>> = BTreeMap::new();
    let runs = evidence.rows.runs.iter();
    let runs: BTreeSet<&str> = runs.map(|run| run.id.as_str()).collect();
    let lines = evidence.lines.iter();
    for line in lines.filter(|line| !runs.contains(line.job_id.as_str())) {
        let key = keys.get(line.job_id.as_str()).copied();
        let plan = key.and_then(|key| evidence.plans.get(&key));
        let Some((key, plan)) = key.zip(plan) else {
            found.push(Violation::general(
                NAME,
                format!("a process of no job: {line:?}"),
            ));
            continue;
        };
        if plan.seed != line.seed {
            found.push(Violation::of(
                NAME,
                key,
                format!("another job's process: {line:?}"),
            ));
        }
        let attempts = counts.entry(key).or_default();
        attempts.entry(line.attempt).or_default()[usize::from(!line.is_start)] += 1;
    }
    let (states, deleted) = (states(evidence), evidence.deleted());
    for (key, attempts) in &counts {
        for (attempt, [starts, ends]) in attempts {
            if *starts != 1 || *ends > 1 {
                let what = format!("attempt {attempt}: {starts} starts, {ends} ends");
                found.push(Violation::of(NAME, *key, what));
            }
            match states.get(&(*key, *attempt)) {
                // The attempts of a deleted job went with it.
                None if deleted.contains(key) => {}
                Some(&"void") | None => {
                    let what = format!(
                        "attempt {attempt} ran and is {:?}",
                        states.get(&(*key, *attempt))
                    );
                    found.push(Violation::of(NAME, *key, what));
                }
                Some(_) => {}
            }
        }
    }
    let rows = evidence.attempts();
    for (key, plan) in &evidence.plans {
        let attempts = counts.get(key);
        let sum = |which: usize| attempts.map_or(0, |it| it.values().map(|n| n[which]).sum());
        let (starts, ends): (u32, u32) = (sum(0), sum(1));
        let touched = touched.get(key).cloned().unwrap_or_default();
        let rows = rows.get(key).map_or(&[][..], Vec::as_slice);
        if deleted.contains(key) {
            continue;
        }
        if touched.is_untouched() && !is_as_planned(plan, rows, starts, ends) {
            let what = format!("untouched: {starts} starts, {ends} ends, {rows:?}");
            found.push(Violation::of(NAME, *key, what));
        }
        let ran = |attempt: u32| attempts.is_some_and(|it| it.contains_key(&attempt));
        let wrong = ran_too_often(plan, &touched, rows, ran);
        found.extend(wrong.map(|what| Violation::of(NAME, *key, what)));
    }
    found
}

/// Whether so many starts and ends are what an untouched job with these attempts has to have.
fn is_as_planned(plan: &Plan, rows: &[&AttemptRow], starts: u32, ends: u32) -> bool {
    let count = rows.len() as u32;
    // It waited for a job that ended otherwise.
    if count == 0 && !plan.waiting.after.is_empty() {
        return starts == 0 && ends == 0;
    }
    let mut failures = 0..;
    let goes_on = rows
        .iter()
        .map(|row| plan.is_tried_again_after(row.attempt, failures.next().unwrap_or(0) + 1));
    // Each is followed by another one, but for the last.
    let goes_on: Vec<bool> = goes_on.collect();
    let is_whole = goes_on
        .iter()
        .enumerate()
        .all(|(nth, again)| *again == (nth as u32 + 1 < count));
    let is_right = match (plan.kind, plan.end) {
        (Kind::Missing, _) => starts == 0 && ends == 0,
        (_, End::Code(_) | End::Signal(_)) => starts == count && ends == count,
        // The executor stops it, before its end or just behind it.
        _ => starts == count && ends <= count,
    };
    count > 0 && is_whole && is_right
}

/// More attempts than the job asks for, or one behind an attempt that needed none. `ran`: whether an
/// attempt has written a line.
fn ran_too_often(
    plan: &Plan,
    touched: &Touched,
    rows: &[&AttemptRow],
    ran: impl Fn(u32) -> bool,
) -> Option<String> {
    let (mut lost, mut failures) = (0, 0);
    for (nth, row) in rows.iter().enumerate() {
        let is_last = nth + 1 == rows.len();
        if row.state == "lost" {
            lost += 1;
            if !(is_last || plan.again && lost < RUNS_MAX) {
                return Some(format!("ran again behind {lost} lost attempts"));
            }
            continue;
        }
        failures += 1;
        let planned = plan.is_tried_again_after(row.attempt, failures);
        let signalled = touched.signal && plan.is_tried_again("signal", None, failures);
        if !is_last && !planned && !signalled {
            let (attempt, state) = (row.attempt, &row.state);
            let ran = if ran(attempt) { "ran" } else { "never ran" };
            return Some(format!(
                "another attempt behind {attempt}, which is {state} and {ran}"
            ));
        }
    }
    None
}

fn states(evidence: &Evidence) -> BTreeMap<(Key, u32), &str> {
    let keys = evidence.keys();
    let attempts = evidence.rows.attempts.iter();
    attempts
        .filter_map(|row| Some(((*keys.get(&row.job)?, row.attempt), row.state.as_str())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};
    use crate::{
        evidence::Line,
        waiting::{After, Retry, Target},
    };

    fn found(evidence: &Evidence) -> usize {
        check(evidence, &evidence.touched()).len()
    }

    #[test]
    fn an_honest_run_passes() {
        let evidence = scene::honest();
        assert_eq!(check(&evidence, &evidence.touched()), []);
    }

    #[test]
    fn a_second_start_of_an_attempt_is_found() {
        let mut evidence = scene::honest();
        evidence.lines.push(evidence.lines[0].clone());
        assert!(found(&evidence) > 0);
    }

    #[test]
    fn a_job_that_never_ran_is_found() {
        let mut evidence = scene::honest();
        evidence.lines.clear();
        assert_eq!(found(&evidence), evidence.plans.len());
    }

    #[test]
    fn a_second_attempt_of_an_untouched_job_is_found() {
        let mut evidence = scene::honest();
        let mut line = evidence.lines[0].clone();
        line.attempt = 2;
        evidence.lines.push(line);
        let mut row = evidence.rows.attempts[0].clone();
        row.attempt = 2;
        evidence.rows.attempts.push(row);
        assert!(found(&evidence) > 0);
    }

    #[test]
    fn only_a_job_that_wants_it_runs_again_and_only_behind_a_loss() {
        let mut evidence = scene::honest();
        let again = evidence.lines[..2].to_vec();
        evidence
            .lines
            .extend(again.into_iter().map(|line| Line { attempt: 2, ..line }));
        let mut second = evidence.rows.attempts[0].clone();
        second.attempt = 2;
        evidence.rows.attempts.push(second);
        scene::kill_shim(&mut evidence, 0);
        assert_eq!(found(&evidence), 1, "not behind a loss");
        evidence.plans.get_mut(&0).expect("a plan").again = true;
        assert_eq!(found(&evidence), 1, "not behind a loss");
        evidence.rows.attempts[0].state = "lost".to_owned();
        assert_eq!(found(&evidence), 0);
        evidence.plans.get_mut(&0).expect("a plan").again = false;
        assert_eq!(found(&evidence), 1, "does not want it");
    }

    #[test]
    fn a_job_that_fails_runs_as_often_as_its_policy_says() {
        let honest = |succeeds_at| {
            let mut evidence = scene::honest();
            let retry = Retry {
                max_attempts: 3,
                backoff_ms: 0,
                max_backoff_ms: 0,
                on: None,
                succeeds_at,
            };
            scene::tried_again(&mut evidence, 1, retry);
            evidence
        };
        assert_eq!(found(&honest(Some(2))), 0);
        assert_eq!(found(&honest(None)), 1, "there was to be a third one");
        assert_eq!(found(&honest(Some(1))), 2, "behind a success");
        let mut evidence = honest(Some(2));
        let plan = evidence.plans.get_mut(&1).expect("a plan");
        plan.retry.as_mut().expect("a policy").max_attempts = 1;
        assert_eq!(found(&evidence), 2, "too many");
        let mut evidence = honest(Some(2));
        evidence.lines.remove(3);
        assert_eq!(
            found(&evidence),
            1,
            "the first attempt did not come to its end"
        );
    }

    #[test]
    fn a_job_that_waits_need_not_run() {
        let mut evidence = scene::honest();
        scene::never_runs(&mut evidence, 1);
        assert_eq!(found(&evidence), 1, "it waits for nothing");
        let waiting = &mut evidence.plans.get_mut(&1).expect("a plan").waiting;
        waiting.after.push(After {
            key: 0,
            target: Target::Id("id-0".to_owned()),
            on_success: true,
        });
        assert_eq!(found(&evidence), 0);
    }

    #[test]
    fn a_void_attempt_that_ran_is_found() {
        let mut evidence = scene::honest();
        evidence.rows.attempts[0].state = "void".to_owned();
        assert_eq!(found(&evidence), 2, "it ran, and the job has no attempt");
    }

    #[test]
    fn a_process_of_no_job_is_found() {
        let mut evidence = scene::honest();
        evidence.lines[0].job_id = "nobody".to_owned();
        assert!(found(&evidence) > 0);
    }

    #[test]
    fn a_lost_job_may_lack_its_end() {
        let mut evidence = scene::honest();
        scene::kill_shim(&mut evidence, 0);
        evidence
            .lines
            .retain(|line| line.is_start || line.job_id != "id-0");
        assert_eq!(found(&evidence), 0);
    }
}
