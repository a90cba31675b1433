//! Converts values into columns and back.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

/// SHA-256 of no bytes: the digest of an empty output.
pub(super) const EMPTY_SHA256: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The error for a value in the database, or on its way there, that this program cannot have
/// written.
pub(super) fn malformed(what: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(what.to_string().into())
}

/// JSON for a column or for `json_each`.
pub(super) fn json(value: &impl serde::Serialize) -> sqlx::Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// The value of a JSON column.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    serde_json::from_str(text).map_err(malformed)
}

/// The same, with numbers as `str::parse` reads them: `serde_json` may read a number with a
/// fraction as its neighbour, and a stored length of time must be shown as it was submitted.
pub(super) fn from_json_exactly<T: serde::de::DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    let value = exact(text).map_err(malformed)?;
    serde_json::from_value(value).map_err(malformed)
}

fn exact(text: &str) -> serde_json::Result<Value> {
    match text.as_bytes().first() {
        Some(b'{') => {
            let raw: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            let entries = raw.into_iter();
            let entries = entries.map(|(key, value)| Ok((key, exact(value.get())?)));
            entries
                .collect::<serde_json::Result<_>>()
                .map(Value::Object)
        }
        Some(b'-' | b'0'..=b'9') if text.contains(['.', 'e', 'E']) => {
            Ok(text.parse::<f64>().map_or(Value::Null, Value::from))
        }
        _ => serde_json::from_str(text),
    }
}

/// The value of a JSON column that may be NULL.
pub(super) fn from_json_opt<T: serde::de::DeserializeOwned>(
    text: Option<&str>,
) -> sqlx::Result<Option<T>> {
    text.map(from_json).transpose()
}

/// An integer column's value. Sizes and offsets end at 2^63-1, in SQLite as in the protocol.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Bytes as hex, to pass them through JSON; SQL's `unhex` decodes them.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
