//! States change only along the contract's table, final ones never, and everybody who was told a
//! state was told one that was. Knows the table from the contract alone.

use std::collections::BTreeMap;

use super::Violation;
use crate::{evidence::Evidence, history::What};

const NAME: &str = "transitions";

/// From where to where; no state at all is `-`.
const LEGAL: [(&str, &[&str]); 6] = [
    ("-", &["queued", "scheduled", "blocked"]),
    ("scheduled", &["queued", "cancelled"]),
    ("blocked", &["queued", "scheduled", "cancelled", "failed"]),
    ("queued", &["running", "cancelled"]),
    (
        "running",
        &[
            "paused",
            "queued",
            "scheduled",
            "succeeded",
            "failed",
            "cancelled",
        ],
    ),
    (
        "paused",
        &[
            "running",
            "queued",
            "scheduled",
            "succeeded",
            "failed",
            "cancelled",
        ],
    ),
];

/// Follows the events of each job.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut chains: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for event in &evidence.rows.events {
        let chain = chains.entry(event.job).or_default();
        let (before, from) = (chain.last().copied(), event.from.as_deref());
        let legal = LEGAL
            .iter()
            .find(|(state, _)| *state == from.unwrap_or("-"));
        if before != from || legal.is_none_or(|(_, to)| !to.contains(&event.to.as_str())) {
            let what = format!("job {}: {event:?} behind {before:?}", event.job);
            found.push(Violation {
                check: NAME,
                job: evidence.keys().get(&event.job).copied(),
                what,
            });
        }
        chain.push(&event.to);
    }
    let jobs = evidence.rows.jobs.iter();
    let jobs = jobs.map(|row| (row.number, &row.state, row.key()));
    let runs = evidence.rows.runs.iter();
    for (number, state, key) in jobs.chain(runs.map(|row| (row.number, &row.state, None))) {
        let mut wrong = |what: String| {
            found.push(Violation {
                check: NAME,
                job: key,
                what: format!("job {number} {what}"),
            })
        };
        let last = chains.get(&number).and_then(|chain| chain.last());
        if last != Some(&state.as_str()) {
            wrong(format!("is {state}, its last event says {last:?}"));
        }
        if !["succeeded", "failed", "cancelled"].contains(&state.as_str()) {
            wrong(format!("is {state} when all is over"));
        }
    }
    found.extend(told(evidence, &chains));
    found
}

/// What a tail was told must be a part of the chain, in its order.
fn told(evidence: &Evidence, chains: &BTreeMap<u64, Vec<&str>>) -> Vec<Violation> {
    let numbers: BTreeMap<_, _> = evidence
        .keys()
        .into_iter()
        .map(|(number, key)| (key, number))
        .collect();
    let mut found = Vec::new();
    for (reader, entries) in evidence.readers() {
        let Some(key) = entries[0].job else { continue };
        let chain = numbers.get(&key).and_then(|number| chains.get(number));
        let mut rest = chain.map_or(&[][..], Vec::as_slice).iter();
        for entry in entries {
            if let What::Told { state, .. } = &entry.what
                && !rest.any(|it| it == state)
            {
                let what = format!("reader {reader} was told {state}: {chain:?}");
                found.push(Violation::of(NAME, key, what));
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};

    #[test]
    fn an_honest_run_passes() {
        assert_eq!(check(&scene::honest()), []);
    }

    #[test]
    fn a_step_that_is_not_in_the_table_is_found() {
        let mut evidence = scene::honest();
        evidence.rows.events.remove(1);
        assert!(!check(&evidence).is_empty(), "queued to succeeded");
    }

    #[test]
    fn life_after_the_end_is_found() {
        let mut evidence = scene::honest();
        let mut event = evidence.rows.events[2].clone();
        (event.from, event.to) = (Some("succeeded".to_owned()), "running".to_owned());
        evidence.rows.events.push(event);
        assert!(!check(&evidence).is_empty());
    }

    #[test]
    fn a_job_that_is_stuck_is_found() {
        let mut evidence = scene::honest();
        evidence.rows.events.remove(2);
        evidence.rows.jobs[0].state = "running".to_owned();
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn a_state_that_never_was_is_found() {
        let mut evidence = scene::honest();
        scene::note(
            &mut evidence,
            0,
            What::Told {
                reader: 1,
                state: "paused".to_owned(),
            },
        );
        assert_eq!(check(&evidence).len(), 1);
    }
}
