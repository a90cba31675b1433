//! What the output of an attempt must show for it to count as a success: `expect`. The output is read, and
//! patterns are compiled, in `output`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::read;

/// The most expectations of a job.
pub const EXPECTATIONS_MAX: usize = 64;
/// The longest text that can be expected, bytes.
pub const EXPECTED_BYTES_MAX: usize = 64 << 10;
/// Digits of a SHA-256 in hex.
const SHA256_DIGITS: usize = 64;

/// Something that the output of an attempt must show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// It contains this text.
    Contains(String),
    /// A part of it matches this regular expression.
    Regex(String),
    /// All of it has this SHA-256, in lower-case hex.
    Sha256(String),
}

/// What an output did not show, or was not found to show in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmetExpectation {
    /// What was expected.
    #[serde(flatten)]
    pub expectation: Expectation,
    /// The search was given up after so many seconds; `None`: it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave_up_after_s: Option<u64>,
}

/// Reads `expect`. Whether a pattern compiles is checked at the submission.
pub(super) fn list<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Expectation>, D::Error> {
    read::checked(value, |value| match value {
        Value::Array(entries) if entries.len() <= EXPECTATIONS_MAX => {
            entries.into_iter().map(expectation).collect()
        }
        _ => Err(format!(
            "must be a list of up to {EXPECTATIONS_MAX} of {{\"contains\"}}, {{\"regex\"}}, {{\"sha256\"}}"
        )),
    })
}

fn expectation(mut entry: Value) -> Result<Expectation, String> {
    let wrong =
        "an entry has exactly one of \"contains\", \"regex\", \"sha256\", which is a string";
    let kinds = entry.as_object_mut().ok_or(wrong)?;
    kinds.retain(|_, value| !value.is_null());
    match serde_json::from_value(entry).map_err(|_| wrong)? {
        Expectation::Contains(text) | Expectation::Regex(text)
            if text.is_empty() || text.len() > EXPECTED_BYTES_MAX =>
        {
            Err(format!("a text has 1 to {EXPECTED_BYTES_MAX} bytes"))
        }
        Expectation::Sha256(hex) => {
            let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            match hex.len() == SHA256_DIGITS && is_hex {
                true => Ok(Expectation::Sha256(hex.to_ascii_lowercase())),
                false => Err("\"sha256\" must be 64 hexadecimal digits".to_owned()),
            }
        }
        fine => Ok(fine),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::{JobSpec, NewJobRefusal};

    fn read(value: &Value) -> Result<Vec<Expectation>, NewJobRefusal> {
        let job = json!({"argv": ["true"], "expect": value});
        JobSpec::read(job.as_object().expect("an object").clone()).map(|job| job.expect)
    }

    #[test]
    fn expectations_are_read_and_written_as_they_came() {
        let value = json!([{"contains": "ä"}, {"regex": "x+"}, {"sha256": "a".repeat(64)}]);
        let read = read(&value).expect("valid");
        assert_eq!(read[0], Expectation::Contains("ä".into()));
        assert_eq!(serde_json::to_value(&read).expect("JSON"), value);
    }

    #[test]
    fn null_is_as_good_as_left_out() {
        let value = json!([{"contains": null, "regex": "x", "sha256": null}]);
        assert_eq!(read(&value), Ok(vec![Expectation::Regex("x".into())]));
    }

    #[test]
    fn what_is_unmet_is_written_as_what_was_expected() {
        for unmet in [
            json!({"regex": "x+"}),
            json!({"regex": "x+", "gave_up_after_s": 60}),
        ] {
            let read: UnmetExpectation = serde_json::from_value(unmet.clone()).expect("read");
            assert_eq!(read.expectation, Expectation::Regex("x+".into()));
            assert_eq!(serde_json::to_value(&read).expect("JSON"), unmet);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let many = vec![json!({"contains": "x"}); EXPECTATIONS_MAX + 1];
        for wrong in [
            json!("x"),
            json!(["x"]),
            json!([{}]),
            json!([{"contains": ""}]),
            json!([{"contains": 1}]),
            json!([{"contains": "x", "regex": "x"}]),
            json!([{"includes": "x"}]),
            json!([{"contains": "x".repeat(EXPECTED_BYTES_MAX + 1)}]),
            json!([{"sha256": "abc"}]),
            json!(many),
        ] {
            let refused = read(&wrong).expect_err("refused");
            assert_eq!(refused.key(), "expect", "{wrong}");
        }
    }
}
