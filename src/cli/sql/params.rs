//! Values for `?` and `:name` in a query: how words of the command line become JSON.
//!
//! A word that is a JSON scalar, or a BLOB as `{"base64": "…"}`, is that; everything else is a
//! text. The server checks whether the values fit the query.

use std::{convert::Infallible, str::FromStr};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

/// A value by position.
#[derive(Debug, Clone, PartialEq)]
pub struct Param(Value);

/// A value by name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedParam(String, Value);

impl FromStr for Param {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(value(text)))
    }
}

impl FromStr for NamedParam {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, text) = text.split_once('=').context("write NAME=VALUE")?;
        // The prefix of the name in the query is allowed here, too.
        let name = name.strip_prefix([':', '@', '$']).unwrap_or(name);
        if name.is_empty() {
            bail!("write NAME=VALUE");
        }
        Ok(Self(name.to_owned(), value(text)))
    }
}

/// The `params` of `history.query`; `None` if there are none.
pub fn of(by_position: &[Param], by_name: &[NamedParam]) -> anyhow::Result<Option<Value>> {
    if !by_position.is_empty() {
        let values = by_position.iter().map(|param| param.0.clone());
        return Ok(Some(Value::Array(values.collect())));
    }
    if by_name.is_empty() {
        return Ok(None);
    }
    let mut values = Map::new();
    for NamedParam(name, value) in by_name {
        if values.insert(name.clone(), value.clone()).is_some() {
            bail!("--named {name} is given twice");
        }
    }
    Ok(Some(Value::Object(values)))
}

/// A JSON scalar or a BLOB, else a text. SQLite has no booleans: true and false are 1 and 0.
fn value(text: &str) -> Value {
    // JSON allows blanks around a value; here they make it a text.
    if text.trim() != text {
        return json!(text);
    }
    match serde_json::from_str(text) {
        Ok(Value::Bool(truth)) => json!(i64::from(truth)),
        Ok(value @ (Value::Null | Value::Number(_) | Value::String(_))) => value,
        Ok(blob @ Value::Object(_)) if is_blob(&blob) => blob,
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => json!(text),
    }
}

fn is_blob(value: &Value) -> bool {
    let keys = value.as_object().map_or(0, Map::len);
    keys == 1 && value["base64"].is_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_scalars_are_what_they_say_and_all_else_is_text() {
        for (text, expected) in [
            ("137", json!(137)),
            ("-1", json!(-1)),
            ("9223372036854775807", json!(i64::MAX)),
            ("0.5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("null", Value::Null),
            ("true", json!(1)),
            ("false", json!(0)),
            ("\"137\"", json!("137")),
            ("\"a\\tb\"", json!("a\tb")),
            ("", json!("")),
            ("007", json!("007")),
            (" 5", json!(" 5")),
            ("NULL", json!("NULL")),
            ("2026-11-22", json!("2026-11-22")),
            ("a b", json!("a b")),
            ("\"open", json!("\"open")),
            ("[1]", json!("[1]")),
            ("{\"base64\":\"AA==\"}", json!({"base64": "AA=="})),
            ("{\"base64\":1}", json!("{\"base64\":1}")),
            ("{\"a\":1}", json!("{\"a\":1}")),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn names_are_told_with_and_without_their_prefix() {
        let named = ["a=1", ":b=x=y", "@c=", "$d=null"].map(|text| text.parse().expect("valid"));
        let params = of(&[], &named).expect("valid");
        assert_eq!(
            params,
            Some(json!({"a": 1, "b": "x=y", "c": "", "d": null}))
        );
        for wrong in ["a", "=1", ":=1"] {
            assert!(wrong.parse::<NamedParam>().is_err(), "{wrong}");
        }
        let twice = ["a=1", ":a=2"].map(|text| text.parse().expect("valid"));
        assert!(of(&[], &twice).is_err());
    }
}
