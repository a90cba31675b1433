//! What the kernel shall bound for a job's processes. Read from JSON and refused where it is wrong;
//! how a process is bound is not known here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse::NewJobRefusal;

/// Bounds of each process of a job, as setrlimit(2) has them, and its nice. What is `None` is as the
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
    /// Processes and threads of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<ResourceBound>,
    /// Open files, one more than the highest descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<ResourceBound>,
    /// Length of a file that is written, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<ResourceBound>,
    /// Length of a core dump, bytes; from 2^63-1 on as long as it gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<ResourceBound>,
    /// From -20 (first) to 19 (last).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
}

/// One bound: a number that is both, or the two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ResourceBound {
    /// What holds, and cannot be raised.
    Both(u64),
    /// As a shell has it that its processes may raise.
    Each {
        /// What holds.
        soft: u64,
        /// Up to where a process may raise it; `None`: as far as the server's own processes may.
        hard: Option<u64>,
    },
}

impl ResourceBound {
    /// What holds; and up to where it may be raised, if that is bound.
    pub fn soft_and_hard(self) -> (u64, Option<u64>) {
        match self {
            Self::Both(bound) => (bound, Some(bound)),
            Self::Each { soft, hard } => (soft, hard),
        }
    }

    /// The shortest way to say it.
    pub fn new(soft: u64, hard: Option<u64>) -> Self {
        match hard == Some(soft) {
            true => Self::Both(soft),
            false => Self::Each { soft, hard },
        }
    }

    fn read(key: &str, value: &Value) -> Result<Self, NewJobRefusal> {
        let wrong = || {
            let message = "must be a number from 0 to 2^63-1, or {\"soft\", \"hard\"} of such numbers \
                           (\"hard\": null is none)";
            NewJobRefusal::invalid(&format!("limits.{key}"), message)
        };
        let number = |value: &Value| {
            let number = value.as_u64().filter(|n| i64::try_from(*n).is_ok());
            number.ok_or_else(wrong)
        };
        let Some(object) = value.as_object() else {
            return number(value).map(Self::Both);
        };
        if object.keys().any(|key| key != "soft" && key != "hard") {
            return Err(wrong());
        }
        let soft = number(object.get("soft").ok_or_else(wrong)?)?;
        let hard = object.get("hard").filter(|hard| !hard.is_null());
        let hard = hard.map(number).transpose()?;
        match hard.is_none_or(|hard| soft <= hard) {
            true => Ok(Self::new(soft, hard)),
            false => Err(wrong()),
        }
    }
}

impl Limits {
    /// Reads the value of `limits`.
    pub fn read(value: &Value) -> Result<Self, NewJobRefusal> {
        let object = value
            .as_object()
            .ok_or_else(|| NewJobRefusal::invalid("limits", "must be an object"))?;
        let mut limits = Self::default();
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let place = match key.as_str() {
                "memory_bytes" => &mut limits.memory_bytes,
                "cpu_s" => &mut limits.cpu_s,
                "processes" => &mut limits.processes,
                "open_files" => &mut limits.open_files,
                "file_bytes" => &mut limits.file_bytes,
                "core_bytes" => &mut limits.core_bytes,
                "nice" => {
                    limits.nice = Some(nice(value)?);
                    continue;
                }
                _ => {
                    return Err(NewJobRefusal::invalid(
                        &format!("limits.{key}"),
                        "unknown key; known keys are memory_bytes, cpu_s, processes, open_files, \
                         file_bytes, core_bytes, nice",
                    ));
                }
            };
            *place = Some(ResourceBound::read(key, value)?);
        }
        Ok(limits)
    }

    /// Whether nothing is bound.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

fn nice(value: &Value) -> Result<i32, NewJobRefusal> {
    let nice = value.as_i64().filter(|nice| (-20..=19).contains(nice));
    nice.map(|nice| nice as i32)
        .ok_or_else(|| NewJobRefusal::invalid("limits.nice", "must be a number from -20 to 19"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_read_and_written_as_they_came() {
        let value = json!({"memory_bytes": 1 << 30, "open_files": {"soft": 64, "hard": 1024},
            "file_bytes": {"soft": 7, "hard": null}, "core_bytes": 0, "nice": -3});
        let limits = Limits::read(&value).expect("limits");
        assert_eq!(serde_json::to_value(limits).expect("JSON"), value);
        let again: Limits = serde_json::from_value(value).expect("limits");
        assert_eq!(again, limits);
        let both = Limits::read(&json!({"cpu_s": {"soft": 3, "hard": 3}, "processes": null}));
        assert_eq!(both.expect("limits").cpu_s, Some(ResourceBound::Both(3)));
        assert!(Limits::read(&json!({})).expect("limits").is_none());
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
            assert!(Limits::read(&wrong).is_err(), "{wrong}");
        }
    }
}
