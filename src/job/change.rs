//! What may still be changed about a job that has not started.
//!
//! Whether it has is the store's business.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::parse::{self, NewJobRefusal};

/// What shall change; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobChange {
    /// The queue it waits in from now on.
    pub queue: Option<String>,
    /// Higher first.
    pub priority: Option<i64>,
    /// The name, or none.
    pub name: Option<Option<String>>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Keys of a change.
pub const KEYS: [&str; 4] = ["queue", "priority", "name", "labels"];

impl JobChange {
    /// Reads a change. Null takes a name or all labels away; elsewhere it changes nothing. Other
    /// keys are passed over.
    pub fn read(object: &Map<String, Value>) -> Result<Self, NewJobRefusal> {
        if object.contains_key("run_at") {
            return Err(NewJobRefusal::unsupported("run_at"));
        }
        let value = |key: &str| object.get(key).filter(|value| !value.is_null());
        let cleared = |key: &str| object.get(key).is_some_and(Value::is_null);
        let name = value("name").map(|name| parse::short("name", name));
        let labels = value("labels").map(parse::labels);
        Ok(Self {
            queue: value("queue")
                .map(|name| parse::short("queue", name))
                .transpose()?,
            priority: value("priority").map(parse::priority).transpose()?,
            name: match name.transpose()? {
                None if cleared("name") => Some(None),
                name => name.map(Some),
            },
            labels: match labels.transpose()? {
                None if cleared("labels") => Some(BTreeMap::new()),
                labels => labels,
            },
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
        };
        assert_eq!(all, Ok(expected));
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
        ] {
            assert!(
                matches!(read(wrong.clone()), Err(NewJobRefusal::Invalid { .. })),
                "{wrong}"
            );
        }
        assert_eq!(
            read(json!({"run_at": null})),
            Err(NewJobRefusal::unsupported("run_at"))
        );
    }
}
