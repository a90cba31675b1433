//! How the jobs of a flow are named: their labels, names, idempotency keys, and the variables by which a
//! command knows its place.

use serde_json::{Map, Value, json};

/// Label: the flow's id.
pub const FLOW: &str = "flow";
/// Label: the step, or `STEP/check`, `STEP/review`, `STEP/fix-N`.
pub const STEP: &str = "flow-step";
/// Label: how often this step of this flow was submitted, from 1.
pub const ROUND: &str = "flow-round";
/// Label of the first job of each flow: by it, flows are listed.
pub const HEAD: &str = "flow-head";
/// The value of [`HEAD`].
pub const IS_HEAD: &str = "true";
/// Beginning of the labels that are ours.
pub const PREFIX: &str = "flow";
/// Beginning of the variables that hold the flow's variables.
pub const VARIABLE_PREFIX: &str = "FLOW_VAR_";

/// The queue of the jobs that decide about steps. It has room for all of them: one that waited for its
/// turn behind the jobs that it waits for would wait for ever.
pub const GATE_QUEUE: &str = "flow";

/// Which of a step's jobs one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepPart {
    /// The step itself.
    Own,
    /// What checks it.
    Check,
    /// What goes on with the reviewer's tasks.
    Review,
    /// The task with this number, from 1.
    Fix(u32),
}

impl StepPart {
    /// The label of this part of a step.
    pub fn of(self, step: &str) -> String {
        match self {
            Self::Own => step.to_owned(),
            Self::Check => format!("{step}/check"),
            Self::Review => format!("{step}/review"),
            Self::Fix(number) => format!("{step}/fix-{number}"),
        }
    }

    /// The step and the part of a label.
    pub fn read(label: &str) -> Option<(&str, Self)> {
        let Some((step, part)) = label.split_once('/') else {
            return Some((label, Self::Own));
        };
        let part = match part {
            "check" => Self::Check,
            "review" => Self::Review,
            other => Self::Fix(other.strip_prefix("fix-")?.parse().ok()?),
        };
        Some((step, part))
    }
}

/// Makes a NewJob this part of a step of a flow.
pub fn identify(job: &mut Map<String, Value>, flow: &str, step: &str, part: StepPart, round: u32) {
    let label = part.of(step);
    let labels = json!({FLOW: flow, STEP: label, ROUND: round.to_string()});
    merge(job, "labels", labels);
    merge(
        job,
        "env",
        json!({"FLOW_ID": flow, "FLOW_STEP": label, "FLOW_ROUND": round.to_string()}),
    );
    let name = match round {
        1 => format!("{flow}/{label}"),
        _ => format!("{flow}/{label}.{round}"),
    };
    job.insert("name".to_owned(), json!(name));
    let key = format!("flow/{flow}/{label}/{round}");
    job.insert("idempotency_key".to_owned(), json!(key));
}

/// Puts entries into an object of a NewJob.
pub fn merge(job: &mut Map<String, Value>, key: &str, entries: Value) {
    let object = job.entry(key).or_insert(Value::Null);
    if object.is_null() {
        *object = json!({});
    }
    if let (Value::Object(object), Value::Object(entries)) = (object, entries) {
        object.extend(entries);
    }
}

/// Whether flows and steps may be called so: their names are parts of job names and of labels.
pub fn is_plain_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_are_written() {
        for part in [
            StepPart::Own,
            StepPart::Check,
            StepPart::Review,
            StepPart::Fix(12),
        ] {
            let label = part.of("build");
            assert_eq!(StepPart::read(&label), Some(("build", part)));
        }
        assert_eq!(StepPart::read("build/other"), None);
    }

    #[test]
    fn a_job_says_what_it_is() {
        let mut job = json!({"labels": {"flow-head": "true", "mine": "x"}, "env": null});
        let job = job.as_object_mut().expect("an object");
        identify(job, "release-1a", "build", StepPart::Check, 2);
        let expected = json!({"name": "release-1a/build/check.2",
            "idempotency_key": "flow/release-1a/build/check/2",
            "labels": {"flow-head": "true", "mine": "x", "flow": "release-1a",
                "flow-step": "build/check", "flow-round": "2"},
            "env": {"FLOW_ID": "release-1a", "FLOW_STEP": "build/check", "FLOW_ROUND": "2"}});
        assert_eq!(Value::Object(job.clone()), expected);
    }
}
