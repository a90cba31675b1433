//! What a job waits for before it may start: other jobs, a time, and its exclusive key's other jobs.
//!
//! Which state that means is decided in `state`; the store keeps the order.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{JobId, JobNumber, JobRef, JobState, Reason, read, words::words};

/// The most jobs that one job may wait for.
pub const DEPENDENCIES_MAX: usize = 1000;

/// How another job must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum DependencyCondition {
    /// It has succeeded; otherwise the job that waits for it fails with `dependency`.
    #[default]
    Success,
    /// It is final, however it ended.
    Finish,
}

words!(DependencyCondition: Success = "success", Finish = "finish");

impl DependencyCondition {
    /// Whether a final state fulfils it.
    pub fn is_met_by(self, state: JobState) -> bool {
        match self {
            Self::Success => state == JobState::Succeeded,
            Self::Finish => state.is_final(),
        }
    }
}

/// The job that another one waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DependencyTarget {
    /// By its id: what is stored.
    Id(JobId),
    /// By its number; replaced by the id at the submission.
    Number(JobNumber),
    /// An earlier entry of the same batch, from 0; replaced by the id at the submission.
    Entry(usize),
}

impl Serialize for DependencyTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(id) => id.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
            Self::Entry(index) => serializer.collect_str(&format_args!("#{index}")),
        }
    }
}

impl<'de> Deserialize<'de> for DependencyTarget {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        read::checked(value, |value| {
            target(&value).ok_or_else(|| {
            "must be a job's number or id, or within a batch \"#\" and the index of an earlier entry"
                .to_owned()
        })
        })
    }
}

fn target(value: &Value) -> Option<DependencyTarget> {
    if let Some(number) = value.as_i64() {
        return (number > 0).then_some(DependencyTarget::Number(number));
    }
    let text = value.as_str()?;
    if let Some(index) = text.strip_prefix('#') {
        let is_index = index.bytes().all(|byte| byte.is_ascii_digit());
        return is_index.then(|| index.parse().ok().map(DependencyTarget::Entry))?;
    }
    match JobRef::parse(text)? {
        JobRef::Number(number) => (number > 0).then_some(DependencyTarget::Number(number)),
        JobRef::Id(id) => Some(DependencyTarget::Id(id)),
    }
}

/// A job to wait for, and how it must end: an entry of `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The job.
    pub job: DependencyTarget,
    /// How it must have ended.
    #[serde(default)]
    pub on: DependencyCondition,
}

/// Reads `after`: up to [`DEPENDENCIES_MAX`] entries, each with its known keys.
pub(super) fn after<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Dependency>, D::Error> {
    read::checked(value, |value| {
        let wrong = "must be a list of {\"job\", \"on\": \"success\" or \"finish\"}";
        let Value::Array(entries) = value else {
            return Err(wrong.to_owned());
        };
        if entries.len() > DEPENDENCIES_MAX {
            return Err(format!("a job waits for at most {DEPENDENCIES_MAX} others"));
        }
        entries.into_iter().map(entry).collect()
    })
}

fn entry(mut entry: Value) -> Result<Dependency, String> {
    let wrong = "an entry must be {\"job\", \"on\": \"success\" or \"finish\"}";
    let object = entry.as_object_mut().ok_or(wrong)?;
    object.retain(|_, value| !value.is_null());
    if !object.contains_key("job") || object.keys().any(|key| key != "job" && key != "on") {
        return Err(wrong.to_owned());
    }
    serde_json::from_value(entry).map_err(|error| error.to_string())
}

/// The dependency that made a job fail, as it was then: the job may be deleted later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedDependency {
    /// The id of the job that did not end as required.
    pub job: JobId,
    /// Its number.
    pub number: JobNumber,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// How it ended.
    pub state: JobState,
    /// Why it failed, if it did.
    pub reason: Option<Reason>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::{JobSpec, NewJobRefusal};

    fn read(value: &Value) -> Result<Vec<Dependency>, NewJobRefusal> {
        let job = json!({"argv": ["true"], "after": value});
        JobSpec::read(job.as_object().expect("an object").clone()).map(|job| job.after)
    }

    #[test]
    fn jobs_are_named_by_number_by_id_and_within_a_batch_by_index() {
        let id = JobId(uuid::Uuid::now_v7());
        let read = read(&json!([
            {"job": 7}, {"job": "8", "on": "finish"}, {"job": id, "on": null}, {"job": "#0"},
        ]));
        let expected = [
            (DependencyTarget::Number(7), DependencyCondition::Success),
            (DependencyTarget::Number(8), DependencyCondition::Finish),
            (DependencyTarget::Id(id), DependencyCondition::Success),
            (DependencyTarget::Entry(0), DependencyCondition::Success),
        ];
        let expected = expected.map(|(job, on)| Dependency { job, on });
        assert_eq!(read.expect("valid"), expected);
    }

    #[test]
    fn anything_else_is_refused() {
        let many = vec![json!({"job": 1}); DEPENDENCIES_MAX + 1];
        for wrong in [
            json!("7"),
            json!([7]),
            json!([{}]),
            json!([{"on": "success"}]),
            json!([{"job": 0}]),
            json!([{"job": -1}]),
            json!([{"job": 1.5}]),
            json!([{"job": ""}]),
            json!([{"job": "#"}]),
            json!([{"job": "#-1"}]),
            json!([{"job": "nightly"}]),
            json!([{"job": 1, "on": "failure"}]),
            json!([{"job": 1, "when": "success"}]),
            json!(many),
        ] {
            let refused = read(&wrong).expect_err("refused");
            assert_eq!(refused.key(), "after", "{wrong}");
        }
    }

    #[test]
    fn conditions_and_states() {
        for state in JobState::ALL {
            assert_eq!(
                DependencyCondition::Finish.is_met_by(state),
                state.is_final()
            );
            let succeeded = state == JobState::Succeeded;
            assert_eq!(DependencyCondition::Success.is_met_by(state), succeeded);
        }
    }
}
