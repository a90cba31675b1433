//! At most one start per attempt; exactly one in all for a job that no kill of a shim and no
//! cancel touched; another attempt only behind a lost one, where the job wants that. Believes only the ledger that the jobs themselves wrote and synced.

use std::collections::BTreeMap;

use super::Violation;
use crate::{
    evidence::{Evidence, Touched},
    plan::{End, Key, Kind, RUNS_MAX},
};

const NAME: &str = "starts";

/// Compares the jobs' ledger with the attempts of the database.
pub fn check(evidence: &Evidence, touched: &BTreeMap<Key, Touched>) -> Vec<Violation> {
    let mut found = Vec::new();
    let keys = evidence.keys_by_id();
    // Starts and ends of each attempt.
    let mut counts: BTreeMap<Key, BTreeMap<u32, [u32; 2]>> = BTreeMap::new();
    for line in &evidence.lines {
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
    for (key, plan) in &evidence.plans {
        let attempts = counts.get(key);
        let sum = |which: usize| attempts.map_or(0, |it| it.values().map(|n| n[which]).sum());
        let (starts, ends): (u32, u32) = (sum(0), sum(1));
        let touched = touched.get(key).cloned().unwrap_or_default();
        let as_planned = match (plan.kind, plan.end) {
            (Kind::Missing, _) => starts == 0 && ends == 0,
            (_, End::Code(_) | End::Signal(_)) => starts == 1 && ends == 1,
            // The executor stops it, before its end or just behind it.
            _ => starts == 1 && ends <= 1,
        };
        if touched.is_untouched() && !deleted.contains(key) && !as_planned {
            let what = format!("untouched: {starts} starts, {ends} ends");
            found.push(Violation::of(NAME, *key, what));
        }
        if starts > if plan.again { RUNS_MAX } else { 1 } {
            found.push(Violation::of(NAME, *key, format!("ran {starts} times")));
        }
        let earlier = attempts.into_iter().flatten().rev().skip(1);
        for state in earlier.filter_map(|(attempt, _)| states.get(&(*key, *attempt))) {
            if *state != "lost" {
                let what = format!("ran again behind an attempt that is {state}");
                found.push(Violation::of(NAME, *key, what));
            }
        }
    }
    found
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
    use crate::evidence::Line;

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
        assert_eq!(found(&evidence), 2, "ran twice, and not behind a loss");
        evidence.plans.get_mut(&0).expect("a plan").again = true;
        assert_eq!(found(&evidence), 1, "not behind a loss");
        evidence.rows.attempts[0].state = "lost".to_owned();
        assert_eq!(found(&evidence), 0);
    }

    #[test]
    fn a_void_attempt_that_ran_is_found() {
        let mut evidence = scene::honest();
        evidence.rows.attempts[0].state = "void".to_owned();
        assert_eq!(found(&evidence), 1);
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
