//! The changes that a job which has not started allows. The store checks whether it has started.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{JobSpec, Micros, NewJobRefusal, PolicyRecord};

/// A requested change; `None` leaves a value as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobChange {
    /// The queue it waits in from now on.
    pub queue: Option<String>,
    /// The higher one starts first.
    pub priority: Option<i64>,
    /// The new name; `Some(None)` removes it.
    pub name: Option<Option<String>>,
    /// All labels; they replace the old ones.
    pub labels: Option<BTreeMap<String, String>>,
    /// The time before which it does not start; `Some(None)`: at once.
    pub run_at: Option<Option<Micros>>,
    /// The decision of the policy about the job as it will be.
    pub policy: Option<PolicyRecord>,
}

/// The keys of a change in JSON.
pub const KEYS: [&str; 5] = ["queue", "priority", "name", "labels", "run_at"];

impl JobChange {
    /// Reads a change. Null removes the name, all labels or the time; elsewhere it changes nothing. Other
    /// keys are ignored.
    pub fn read(object: &Map<String, Value>) -> Result<Self, NewJobRefusal> {
        let named = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
        let cleared = |key: &str| object.get(key).is_some_and(Value::is_null);
        let keys = KEYS.into_iter().filter(|key| named(key));
        let mut keys: Map<String, Value> = keys
            .filter_map(|key| Some((key.to_owned(), object.get(key)?.clone())))
            .collect();
        // A NewJob needs a command; this one is not used.
        keys.insert("argv".to_owned(), Value::from(vec!["true"]));
        let spec = JobSpec::read(keys)?;
        Ok(Self {
            queue: named("queue").then_some(spec.queue),
            priority: named("priority").then_some(spec.priority),
            name: (named("name") || cleared("name")).then_some(spec.name),
            labels: (named("labels") || cleared("labels")).then_some(spec.labels),
            run_at: (named("run_at") || cleared("run_at")).then_some(spec.run_at),
            policy: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<JobChange, NewJobRefusal> {
        JobChange::read(value.as_object().expect("an object"))
    }

    #[test]
    fn what_is_not_named_stays_and_null_clears() {
        assert_eq!(read(json!({"job": 1})), Ok(JobChange::default()));
        assert_eq!(
            read(json!({"queue": null, "priority": null})),
            Ok(JobChange::default())
        );
        let cleared = read(json!({"name": null, "labels": null})).expect("valid");
        assert_eq!(
            (cleared.name, cleared.labels),
            (Some(None), Some(BTreeMap::new()))
        );
        let all = read(json!({"queue": "q", "priority": -1, "name": "n", "labels": {"a": "b"}}));
        let expected = JobChange {
            queue: Some("q".into()),
            priority: Some(-1),
            name: Some(Some("n".into())),
            labels: Some([("a".into(), "b".into())].into()),
            run_at: None,
            policy: None,
        };
        assert_eq!(all, Ok(expected));
        let run_at = |value| read(json!({"run_at": value})).map(|change| change.run_at);
        assert_eq!(run_at(json!(null)), Ok(Some(None)));
        let moment = run_at(json!("1970-01-01T01:00:00.000001+01:00"));
        assert_eq!(moment, Ok(Some(Some(Micros(1)))));
    }

    #[test]
    fn wrong_changes_are_refused() {
        for wrong in [
            json!({"queue": ""}),
            json!({"queue": 1}),
            json!({"priority": 1.5}),
            json!({"priority": 1u64 << 40}),
            json!({"name": ""}),
            json!({"name": "x".repeat(1025)}),
            json!({"labels": ["a"]}),
            json!({"labels": {"a": 1}}),
            json!({"run_at": 1}),
            json!({"run_at": "tomorrow"}),
            json!({"run_at": "2026-02-30T00:00:00Z"}),
        ] {
            assert!(
                matches!(read(wrong.clone()), Err(NewJobRefusal::Invalid { .. })),
                "{wrong}"
            );
        }
    }
}
