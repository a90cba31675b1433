//! What was acknowledged is there, once, under the id that was told; nothing else is there.
//! Does not look at what became of it.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::{evidence::Evidence, history::What, plan::Key};

const NAME: &str = "presence";

/// Compares acknowledgements with the rows of the database.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut told: BTreeMap<Key, BTreeSet<&str>> = BTreeMap::new();
    let mut created: BTreeMap<Key, u32> = BTreeMap::new();
    for entry in &evidence.entries {
        if let (
            Some(key),
            What::Acknowledged {
                id, created: new, ..
            },
        ) = (entry.job, &entry.what)
        {
            told.entry(key).or_default().insert(id);
            *created.entry(key).or_default() += u32::from(*new);
        }
    }
    let mut rows: BTreeMap<Key, Vec<&str>> = BTreeMap::new();
    for row in &evidence.rows.jobs {
        match row.key() {
            Some(key) => rows.entry(key).or_default().push(&row.id),
            None => found.push(Violation::general(
                NAME,
                format!("a job of nobody: {row:?}"),
            )),
        }
    }
    let asked = evidence.deleted();
    let deleted: BTreeSet<Key> = evidence
        .entries
        .iter()
        .filter(|entry| entry.what == What::Deleted)
        .filter_map(|entry| entry.job)
        .collect();
    for key in deleted.iter().filter(|key| rows.contains_key(key)) {
        found.push(Violation::of(NAME, *key, "was deleted and is there"));
    }
    for (key, ids) in &told {
        if ids.len() != 1 {
            found.push(Violation::of(
                NAME,
                *key,
                format!("one key, several ids: {ids:?}"),
            ));
        }
        // A deletion that nobody knows the answer of may have come about.
        let may_be_gone = asked.contains(key) && !rows.contains_key(key);
        if !may_be_gone
            && rows
                .get(key)
                .is_none_or(|rows| !ids.contains(rows[0]) || rows.len() != 1)
        {
            let rows = rows.get(key);
            found.push(Violation::of(
                NAME,
                *key,
                format!("acknowledged as {ids:?}, is {rows:?}"),
            ));
        }
    }
    for (key, count) in created.iter().filter(|(_, count)| **count > 1) {
        found.push(Violation::of(NAME, *key, format!("created {count} times")));
    }
    for key in rows.keys().filter(|key| !told.contains_key(key)) {
        found.push(Violation::of(
            NAME,
            *key,
            "is there, and every submit was to be acknowledged",
        ));
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
    fn a_lost_job_is_found() {
        let mut evidence = scene::honest();
        evidence.rows.jobs.remove(0);
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn a_deleted_job_is_gone() {
        let mut evidence = scene::honest();
        scene::note(&mut evidence, 0, What::Deleted);
        assert_eq!(check(&evidence).len(), 1, "it is still there");
        evidence.rows.jobs.remove(0);
        assert_eq!(check(&evidence), []);
    }

    #[test]
    fn a_second_job_under_one_key_is_found() {
        let mut evidence = scene::honest();
        let mut twin = evidence.rows.jobs[0].clone();
        (twin.number, twin.id) = (99, "another".to_owned());
        evidence.rows.jobs.push(twin);
        scene::note(
            &mut evidence,
            0,
            What::Acknowledged {
                call: 9,
                id: "another".to_owned(),
                number: 99,
                created: true,
            },
        );
        assert_eq!(
            check(&evidence).len(),
            3,
            "two ids, two rows, created twice"
        );
    }

    #[test]
    fn a_job_that_nobody_submitted_is_found() {
        let mut evidence = scene::honest();
        let mut stranger = evidence.rows.jobs[0].clone();
        stranger.idempotency_key = "chaos-77".to_owned();
        evidence.rows.jobs.push(stranger);
        assert_eq!(check(&evidence).len(), 1);
    }
}
