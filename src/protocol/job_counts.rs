//! The number of jobs in every state, as every interface shows it.

use serde_json::{Map, Value};

use crate::{executor::Counts, job::JobState};

/// The number of jobs in every state, including states without jobs.
pub fn counts(counts: &Counts) -> Value {
    let of = |state: JobState| counts.get(&state).copied().unwrap_or(0);
    let all = JobState::ALL
        .into_iter()
        .map(|state| (state.name().to_owned(), of(state).into()));
    Value::Object(all.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_counted() {
        let counted = counts(&Counts::from([(JobState::Running, 3)]));
        assert_eq!(counted["running"], 3);
        assert_eq!(counted["queued"], 0);
        assert_eq!(counted.as_object().map(Map::len), Some(JobState::ALL.len()));
    }
}
