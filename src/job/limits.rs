//! Resource limits that the kernel enforces for a job's processes: read from JSON, and refused
//! where they are wrong. The shim sets them.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::read;

/// Limits of each process of a job, as setrlimit(2) has them, and its nice value. `None`: as the
/// server's own processes have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Address space, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<ResourceBound>,
    /// CPU time of a process, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<ResourceBound>,
    /// Processes and threads of the user, all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<ResourceBound>,
    /// Open files, one more than the highest descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<ResourceBound>,
    /// Length of a file that is written, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<ResourceBound>,
    /// Length of a core dump, bytes; from 2^63-1 on without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<ResourceBound>,
    /// The nice value, from -20 (first) to 19 (last).
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read::nice"
    )]
    pub nice: Option<i32>,
}

/// One limit: a number that is both soft and hard, or the two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ResourceBound {
    /// Soft and hard limit in one.
    Both(u64),
    /// Two limits: a process may raise the soft one up to the hard one.
    Each {
        /// The limit that is enforced.
        soft: u64,
        /// How far a process may raise it; `None`: as far as the server's own processes may.
        hard: Option<u64>,
    },
}

impl ResourceBound {
    /// The soft limit; and the hard one, if there is one.
    pub fn soft_and_hard(self) -> (u64, Option<u64>) {
        match self {
            Self::Both(bound) => (bound, Some(bound)),
            Self::Each { soft, hard } => (soft, hard),
        }
    }

    /// A limit in its shortest form.
    pub fn new(soft: u64, hard: Option<u64>) -> Self {
        match hard == Some(soft) {
            true => Self::Both(soft),
            false => Self::Each { soft, hard },
        }
    }
}

impl<'de> Deserialize<'de> for ResourceBound {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        read::checked(value, |value| {
            let wrong = "must be a number from 0 to 2^63-1, or {\"soft\", \"hard\"} of such numbers \
                         (\"hard\": null is none)";
            bound_of(&value).ok_or_else(|| wrong.to_owned())
        })
    }
}

fn bound_of(value: &Value) -> Option<ResourceBound> {
    let number = |value: &Value| value.as_u64().filter(|n| i64::try_from(*n).is_ok());
    let Some(object) = value.as_object() else {
        return number(value).map(ResourceBound::Both);
    };
    if object.keys().any(|key| key != "soft" && key != "hard") {
        return None;
    }
    let soft = number(object.get("soft")?)?;
    let hard = match object.get("hard") {
        None | Some(Value::Null) => None,
        Some(hard) => Some(number(hard).filter(|hard| soft <= *hard)?),
    };
    Some(ResourceBound::new(soft, hard))
}

impl Limits {
    /// Whether no limit is set.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::{JobSpec, NewJobRefusal};

    fn read(value: &Value) -> Result<Limits, NewJobRefusal> {
        let job = json!({"argv": ["true"], "limits": value});
        JobSpec::read(job.as_object().expect("an object").clone()).map(|job| job.limits)
    }

    #[test]
    fn limits_are_read_and_written_as_they_came() {
        let value = json!({"memory_bytes": 1 << 30, "open_files": {"soft": 64, "hard": 1024},
            "file_bytes": {"soft": 7, "hard": null}, "core_bytes": 0, "nice": -3});
        let limits = read(&value).expect("limits");
        assert_eq!(serde_json::to_value(limits).expect("JSON"), value);
        let again: Limits = serde_json::from_value(value).expect("limits");
        assert_eq!(again, limits);
        let both = read(&json!({"cpu_s": {"soft": 3, "hard": 3}, "processes": null}));
        assert_eq!(both.expect("limits").cpu_s, Some(ResourceBound::Both(3)));
        assert!(read(&json!({})).expect("limits").is_none());
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for wrong in [
            json!([]),
            json!({"cpu": 1}),
            json!({"cpu_s": -1}),
            json!({"cpu_s": 1.5}),
            json!({"cpu_s": "1"}),
            json!({"cpu_s": u64::MAX}),
            json!({"cpu_s": {}}),
            json!({"cpu_s": {"soft": 2, "hard": 1}}),
            json!({"cpu_s": {"soft": 2, "more": 3}}),
            json!({"nice": 20}),
            json!({"nice": true}),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
