//! The parameters of a method: read by key, with their type and bounds; unknown keys are refused.

use std::time::Duration;

use serde_json::{Map, Value};

use super::error::Refusal;
use crate::job::{JobRef, Offset, Seconds, Stream};

/// Largest offset and byte count, 2^63-1.
pub const OFFSET_MAX: u64 = i64::MAX as u64;

/// The parameters of one request.
#[derive(Debug)]
pub struct Params<'a> {
    map: &'a Map<String, Value>,
    /// Prefix of keys in messages: empty, or `tail.`.
    prefix: &'static str,
}

impl<'a> Params<'a> {
    /// The parameters of a method with these keys; any other key is refused.
    pub fn new(map: &'a Map<String, Value>, known: &[&str]) -> Result<Self, Refusal> {
        Self::nested(map, "", known)
    }

    /// The same for an object inside the parameters.
    pub fn nested(
        map: &'a Map<String, Value>,
        prefix: &'static str,
        known: &[&str],
    ) -> Result<Self, Refusal> {
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(Self { map, prefix }),
            Some(key) if known.is_empty() => {
                Err(Refusal::params(key, "unknown key; there are no parameters"))
            }
            Some(key) => {
                let message = format!("unknown key; known keys are {}", known.join(", "));
                Err(Refusal::params(&format!("{prefix}{key}"), &message))
            }
        }
    }

    /// The value of a key, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there with the value null, which switches something off.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// The refusal of a key's value; `message` says what would be right.
    pub fn wrong(&self, key: &str, message: &str) -> Refusal {
        Refusal::params(&format!("{}{key}", self.prefix), message)
    }

    /// The key `job`, which is required.
    pub fn job(&self) -> Result<JobRef, Refusal> {
        let value = self
            .get("job")
            .ok_or_else(|| self.wrong("job", "missing"))?;
        job_ref(value).ok_or_else(|| self.wrong("job", NOT_A_JOB))
    }

    /// A whole number within bounds.
    pub fn number(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        number
            .map(Some)
            .ok_or_else(|| self.wrong(key, &format!("must be a whole number from {min} to {max}")))
    }

    /// An offset, 0 to 2^63-1 bytes.
    pub fn offset(&self, key: &str) -> Result<Option<Offset>, Refusal> {
        self.number(key, 0, OFFSET_MAX)
    }

    /// A length of time in seconds, 0 to ten years.
    pub fn seconds(&self, key: &str) -> Result<Option<Duration>, Refusal> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|s| (0.0..=Seconds::MAX).contains(s));
        seconds
            .map(|seconds| Some(Duration::from_secs_f64(seconds)))
            .ok_or_else(|| self.wrong(key, "must be a number of seconds from 0 to ten years"))
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.wrong(key, "must be a string"))
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Refusal> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.wrong(key, "must be true or false"))
    }

    /// One of these words, as what it stands for.
    pub fn one_of<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let text = value.as_str();
        let found = words.iter().find(|(word, _)| Some(*word) == text);
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.wrong(key, &format!("must be one of {}", all.join(", ")))
        })
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, Refusal> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let list = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        list.map(Some)
            .ok_or_else(|| self.wrong(key, "must be a list of strings"))
    }

    /// The key `streams`: one to three streams.
    pub fn streams(&self) -> Result<Option<Vec<Stream>>, Refusal> {
        let Some(names) = self.texts("streams")? else {
            return Ok(None);
        };
        let all = [Stream::Stdout, Stream::Stderr, Stream::Pty];
        let streams: Option<Vec<Stream>> = names
            .iter()
            .map(|name| all.into_iter().find(|stream| stream.name() == *name))
            .collect();
        streams
            .filter(|streams| (1..=all.len()).contains(&streams.len()))
            .map(Some)
            .ok_or_else(|| {
                self.wrong(
                    "streams",
                    "must be a list of \"stdout\", \"stderr\", \"pty\"",
                )
            })
    }
}

/// What a value must be to identify a job.
pub const NOT_A_JOB: &str = "must be a job's number (an integer or a string of digits) or its UUID";

/// The job that a JSON value identifies.
pub fn job_ref(value: &Value) -> Option<JobRef> {
    match value {
        Value::Number(number) => number.as_i64().filter(|n| *n >= 0).map(JobRef::Number),
        Value::String(text) => JobRef::parse(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T>(value: Value, read: impl Fn(&Params) -> Result<T, Refusal>) -> Option<T> {
        let map = json!({ "key": value });
        let map = map.as_object().expect("an object");
        let params = Params::new(map, &["key"]).expect("known");
        read(&params).ok()
    }

    #[test]
    fn jobs_are_named_by_number_or_uuid() {
        assert_eq!(job_ref(&json!(7)), Some(JobRef::Number(7)));
        assert_eq!(job_ref(&json!("7")), Some(JobRef::Number(7)));
        let id = uuid::Uuid::now_v7();
        assert_eq!(
            job_ref(&json!(id.to_string())),
            JobRef::parse(&id.to_string())
        );
        let beyond = json!(u64::MAX);
        for bad in [
            json!(-1),
            json!(7.0),
            json!("x"),
            json!(""),
            json!(null),
            json!([7]),
            beyond,
        ] {
            assert_eq!(job_ref(&bad), None, "{bad}");
        }
    }

    #[test]
    fn offsets_end_at_two_to_the_sixty_third() {
        let offset = |value| read(value, |params| params.offset("key"));
        assert_eq!(offset(json!(OFFSET_MAX)), Some(Some(OFFSET_MAX)));
        assert_eq!(offset(json!(null)), Some(None));
        for bad in [
            json!(OFFSET_MAX + 1),
            json!(-1),
            json!(1.0),
            json!("1"),
            json!(true),
        ] {
            assert_eq!(offset(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn lengths_of_time_are_bounded() {
        let seconds = |value| read(value, |params| params.seconds("key"));
        assert_eq!(seconds(json!(1.5)), Some(Some(Duration::from_millis(1500))));
        assert_eq!(seconds(json!(0)), Some(Some(Duration::ZERO)));
        for bad in [json!(-1), json!(1e18), json!("5"), json!([])] {
            assert_eq!(seconds(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn words_and_lists_are_checked() {
        let word = |value| read(value, |params| params.one_of("key", &[("a", 1), ("b", 2)]));
        assert_eq!(word(json!("b")), Some(Some(2)));
        assert_eq!((word(json!("c")), word(json!(1))), (None, None));
        let texts = |value| {
            read(value, |params| {
                params.texts("key").map(|t| t.map(|t| t.len()))
            })
        };
        assert_eq!(texts(json!(["a", "b"])), Some(Some(2)));
        assert_eq!((texts(json!("a")), texts(json!([1]))), (None, None));
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let map = json!({"job": 1, "colour": 2});
        let refusal =
            Params::new(map.as_object().expect("an object"), &["job"]).expect_err("refused");
        assert!(refusal.message.contains("colour") && refusal.message.contains("job"));
    }
}
