//! Of the jobs with one exclusive key one runs at a time, by the order of the lines that the jobs
//! themselves wrote and by the order of the database's events. Two attempts of one job exclude each
//! other as well.

use std::collections::BTreeMap;

use super::Violation;
use crate::{evidence::Evidence, plan::Key};

const NAME: &str = "exclusive";

/// What excludes whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    Job(Key),
    Key(&'static str),
}

/// An attempt of a job.
type Holder = (Key, u32);

/// Judges every job that was acknowledged.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = by_lines(evidence);
    found.extend(by_events(evidence));
    found
}

fn locks(evidence: &Evidence, key: Key) -> Vec<Lock> {
    let exclusive = evidence.plans.get(&key).and_then(|it| it.waiting.exclusive);
    [Lock::Job(key)]
        .into_iter()
        .chain(exclusive.map(Lock::Key))
        .collect()
}

/// Between the start and the end of an attempt there is no start of another one. One that never came
/// to its end is over by the next start: the database knows when.
fn by_lines(evidence: &Evidence) -> Vec<Violation> {
    let keys = evidence.keys_by_id();
    let mut found = Vec::new();
    let mut newest: BTreeMap<Lock, Holder> = BTreeMap::new();
    for line in &evidence.lines {
        let Some(key) = keys.get(line.job_id.as_str()) else {
            continue;
        };
        let holder = (*key, line.attempt);
        for lock in locks(evidence, *key) {
            if line.is_start {
                newest.insert(lock, holder);
            } else if newest.get(&lock) != Some(&holder) {
                let other = newest.get(&lock);
                let what = format!("{lock:?}: {other:?} began before the end of {holder:?}");
                found.push(Violation::of(NAME, *key, what));
            }
        }
    }
    found
}

fn by_events(evidence: &Evidence) -> Vec<Violation> {
    let keys = evidence.keys();
    let mut found = Vec::new();
    let mut held: BTreeMap<Lock, Holder> = BTreeMap::new();
    for event in &evidence.rows.events {
        let Some(key) = keys.get(&event.job) else {
            continue;
        };
        let holder = (*key, event.attempt);
        for lock in locks(evidence, *key) {
            if event.begins_attempt() {
                if let Some(other) = held.insert(lock, holder) {
                    let what = format!("{lock:?}: {holder:?} was claimed while {other:?} had it");
                    found.push(Violation::of(NAME, *key, what));
                }
            } else if event.ends_attempt() && held.get(&lock) == Some(&holder) {
                held.remove(&lock);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};

    /// Jobs 0 and 1 have one key, job 2 has another.
    fn honest() -> Evidence {
        let mut evidence = scene::honest();
        for (key, exclusive) in [(0, "red"), (1, "red"), (2, "blue")] {
            let plan = evidence.plans.get_mut(&key).expect("a plan");
            plan.waiting.exclusive = Some(exclusive);
        }
        evidence
    }

    #[test]
    fn an_honest_run_passes() {
        assert_eq!(check(&honest()), []);
    }

    #[test]
    fn other_keys_may_overlap() {
        let mut evidence = honest();
        evidence.lines.swap(3, 4);
        let events = &mut evidence.rows.events;
        let (end, claim) = (5, 7);
        events.swap(end, claim);
        assert_eq!(check(&evidence), []);
    }

    #[test]
    fn lines_that_overlap_are_found() {
        let mut evidence = honest();
        evidence.lines.swap(1, 2);
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn a_job_that_never_came_to_its_end_holds_its_key_by_the_events() {
        let mut evidence = honest();
        evidence.lines.remove(1);
        assert_eq!(check(&evidence), []);
        let end = evidence.rows.events.remove(2);
        evidence.rows.events.insert(5, end);
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn two_attempts_of_one_job_at_once_are_found() {
        let mut evidence = scene::honest();
        let mut second = evidence.lines[0].clone();
        second.attempt = 2;
        evidence.lines.insert(1, second);
        assert_eq!(check(&evidence).len(), 1);
    }
}
