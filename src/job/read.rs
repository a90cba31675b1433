//! Reads the values of a job's keys: what each may be, and the message for a wrong one.
//!
//! A message names no key (the caller, which reads the whole object, adds it) and repeats no value
//! (it may be a secret, or a megabyte).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use super::{
    secret::EnvValue,
    time::{Micros, Seconds},
};

/// The longest `name`, queue name and idempotency key, bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// The most labels of a job.
pub const LABELS_MAX: usize = 64;
/// The longest key or value of a label, bytes.
pub const LABEL_BYTES_MAX: usize = 4096;

/// The value as `check` converts it, or its message as the error.
pub(super) fn checked<'de, D: Deserializer<'de>, T>(
    value: D,
    check: impl FnOnce(Value) -> Result<T, String>,
) -> Result<T, D::Error> {
    check(Value::deserialize(value)?).map_err(D::Error::custom)
}

/// The same for a key that may be left out or null.
fn optional<'de, D: Deserializer<'de>, T>(
    value: D,
    check: impl FnOnce(Value) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    checked(value, |value| match value {
        Value::Null => Ok(None),
        value => check(value).map(Some),
    })
}

/// Any text.
pub(super) fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    optional(value, string)
}

/// A text of 1 to [`NAME_BYTES_MAX`] bytes.
pub(super) fn name<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    checked(value, short)
}

/// The same for a key that may be left out.
pub(super) fn name_or_none<'de, D>(value: D) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
{
    optional(value, short)
}

/// True or false.
pub(super) fn flag<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    checked(value, |value| {
        value.as_bool().ok_or("must be true or false".to_owned())
    })
}

/// Refuses a path that does not begin with `/` or contains NUL. It is a check of what users send: the
/// home of the server's user, which stands in for a missing directory, may be anything.
pub(super) fn check_directory(path: &str) -> Result<(), String> {
    refuse_nul(path)?;
    match path.starts_with('/') {
        true => Ok(()),
        false => Err("must be an absolute path".to_owned()),
    }
}

/// Variables as execve(2) takes them.
pub(super) fn environment<'de, D>(value: D) -> Result<BTreeMap<String, EnvValue>, D::Error>
where
    D: Deserializer<'de>,
{
    checked(value, |value| {
        let map = env_map(value)?;
        for (name, value) in &map {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err("a variable's name must not be empty nor contain '=' or NUL".to_owned());
            }
            refuse_nul(value.text().unwrap_or_default())?;
        }
        Ok(map)
    })
}

/// Up to [`LABELS_MAX`] labels.
pub(super) fn labels<'de, D>(value: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    checked(value, |value| {
        let map = string_map(value)?;
        let long = |text: &String| text.len() > LABEL_BYTES_MAX;
        match map.len() > LABELS_MAX || map.iter().any(|(k, v)| k.is_empty() || long(k) || long(v))
        {
            false => Ok(map),
            true => Err(format!(
                "at most {LABELS_MAX} labels, keys of 1 to {LABEL_BYTES_MAX} bytes, \
                 values of at most {LABEL_BYTES_MAX}"
            )),
        }
    })
}

/// An integer of 32 bits.
pub(super) fn priority<'de, D: Deserializer<'de>>(value: D) -> Result<i64, D::Error> {
    checked(value, |value| {
        let number = value.as_i64().filter(|n| i32::try_from(*n).is_ok());
        number.ok_or("must be an integer of 32 bits".to_owned())
    })
}

/// An integer from 1 to 2^63-1.
pub(super) fn count<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    optional(value, |value| {
        let number = value
            .as_u64()
            .filter(|n| *n > 0 && i64::try_from(*n).is_ok());
        number.ok_or("must be an integer above 0".to_owned())
    })
}

/// A length of time above 0.
pub(super) fn positive<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Seconds>, D::Error> {
    optional(value, |value| match Seconds::try_from(value)? {
        Seconds(0.0) => Err("must be above 0; leave it out for none".to_owned()),
        seconds => Ok(seconds),
    })
}

/// A moment in RFC 3339.
pub(super) fn moment<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Micros>, D::Error> {
    optional(value, |value| {
        let moment = value.as_str().and_then(Micros::from_rfc3339);
        moment.ok_or("must be a time as 2026-12-01T02:00:00+01:00 (RFC 3339)".to_owned())
    })
}

/// A length of time, also none.
pub(super) fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Seconds>, D::Error> {
    optional(value, Seconds::try_from)
}

/// A nice(2) value.
pub(super) fn nice<'de, D: Deserializer<'de>>(value: D) -> Result<Option<i32>, D::Error> {
    optional(value, |value| {
        let nice = value.as_i64().filter(|nice| (-20..=19).contains(nice));
        nice.map(|nice| nice as i32)
            .ok_or("must be a number from -20 to 19".to_owned())
    })
}

pub(super) fn string(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err("must be a string".to_owned()),
    }
}

pub(super) fn without_nul(text: String) -> Result<String, String> {
    refuse_nul(&text).map(|()| text)
}

fn refuse_nul(text: &str) -> Result<(), String> {
    match text.contains('\0') {
        false => Ok(()),
        true => Err("must not contain a NUL byte".to_owned()),
    }
}

fn short(value: Value) -> Result<String, String> {
    let text = string(value)?;
    match text.is_empty() || text.len() > NAME_BYTES_MAX {
        false => Ok(text),
        true => Err(format!("must have 1 to {NAME_BYTES_MAX} bytes")),
    }
}

fn env_map(value: Value) -> Result<BTreeMap<String, EnvValue>, String> {
    let Value::Object(map) = value else {
        return Err("must be an object whose values are strings or {\"secret\": NAME}".to_owned());
    };
    let entries = map.into_iter();
    let entries = entries.map(|(name, value)| Ok((name, EnvValue::read(value)?)));
    entries.collect()
}

fn string_map(value: Value) -> Result<BTreeMap<String, String>, String> {
    let wrong = || "must be an object whose values are strings".to_owned();
    let Value::Object(map) = value else {
        return Err(wrong());
    };
    let entries = map.into_iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        _ => Err(wrong()),
    });
    entries.collect()
}
