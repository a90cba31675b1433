//! What the clients themselves found wrong, and what the database says of itself.
//! Does not look at jobs.

use super::Violation;
use crate::{evidence::Evidence, history::What};

const NAME: &str = "answers";

/// Everything that was noticed while it happened, and a database that is not sound.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let wrong = evidence
        .entries
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Wrong { what } => Some(Violation {
                check: NAME,
                job: entry.job,
                what: what.clone(),
            }),
            _ => None,
        });
    let integrity = &evidence.rows.integrity;
    let unsound = (integrity != "ok").then(|| Violation::general(NAME, integrity.clone()));
    wrong.chain(unsound).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::scene, *};

    #[test]
    fn an_honest_run_passes() {
        assert_eq!(check(&scene::honest()), []);
    }

    #[test]
    fn what_a_client_found_wrong_is_told() {
        let mut evidence = scene::honest();
        scene::note(
            &mut evidence,
            0,
            What::Wrong {
                what: "refused".to_owned(),
            },
        );
        assert_eq!(check(&evidence).len(), 1);
    }

    #[test]
    fn a_broken_database_is_told() {
        let mut evidence = scene::honest();
        evidence.rows.integrity = "row 3 missing from index".to_owned();
        assert_eq!(check(&evidence).len(), 1);
    }
}
