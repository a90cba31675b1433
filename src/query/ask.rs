//! The words between the server and a query process: what is asked, and what is answered.
//!
//! How they travel, and what they mean for a client, is not known here.

use base64::{Engine, engine::general_purpose::STANDARD};
use rusqlite::types::Value as SqlValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

/// A question.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// One statement.
    pub sql: String,
    /// Values of its parameters.
    pub params: QueryParams,
    /// The most rows of the answer.
    pub rows_max: u64,
    /// The most bytes of the rows as JSON.
    pub bytes_max: u64,
    /// What the process may use.
    pub bounds: QueryLimits,
}

/// What a query process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryLimits {
    /// Time, by the clock and of the processor, seconds.
    pub timeout_s: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

/// Values of parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryParams {
    /// `?1`, `?2`, …
    Listed(Vec<Value>),
    /// `:name`, `@name`, `$name`.
    Named(Map<String, Value>),
}

/// Why a value is none for a parameter: SQL has null, numbers, text and BLOBs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be null, true, false, a number, a string or {{\"base64\": …}}")]
pub struct ParamError;

/// A value as SQL has it: true and false are 1 and 0.
pub fn to_sql(value: &Value) -> Result<SqlValue, ParamError> {
    match value {
        Value::Null => Ok(SqlValue::Null),
        Value::Bool(flag) => Ok(SqlValue::Integer(i64::from(*flag))),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Ok(SqlValue::Integer(integer)),
            None => number.as_f64().map(SqlValue::Real).ok_or(ParamError),
        },
        Value::String(text) => Ok(SqlValue::Text(text.clone())),
        Value::Object(map) if map.len() == 1 => {
            let bytes = map.get("base64").and_then(Value::as_str);
            let bytes = bytes.and_then(|text| STANDARD.decode(text).ok());
            bytes.map(SqlValue::Blob).ok_or(ParamError)
        }
        Value::Array(_) | Value::Object(_) => Err(ParamError),
    }
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rows {
    /// The names of the columns, as the statement gives them.
    pub columns: Vec<String>,
    /// A JSON array of rows, each an array: null, numbers, text, and BLOBs as `{"base64": …}`.
    pub rows: Box<RawValue>,
    /// There is more.
    pub truncated: bool,
}

/// Why there is no answer. Messages say what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryRefusal {
    /// SQLite does not understand it, or the parameters do not fit.
    Invalid(String),
    /// It wants what no query may.
    Forbidden {
        /// Which rule forbids it.
        rule: String,
        /// What was wanted, and what is allowed.
        message: String,
    },
    /// It needs more than it may have.
    Limit {
        /// The setting, or constant.
        limit: String,
        /// How much that is.
        message: String,
    },
    /// Not now.
    Unavailable(String),
    /// Our own failure.
    Internal(String),
}

impl QueryRefusal {
    /// A bound is reached.
    pub(super) fn limit(limit: &str, message: impl Into<String>) -> Self {
        Self::Limit {
            limit: limit.to_owned(),
            message: message.into(),
        }
    }
}

/// What a query process writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum QueryReply {
    /// It worked.
    Rows(Rows),
    /// It did not.
    Refused(QueryRefusal),
}

/// A reply, with what the kernel did not fence in.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    /// What came of the question.
    pub reply: QueryReply,
    /// Why the process was less confined than it could be, a sentence each.
    pub missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_what_sql_has() {
        for (json, expected) in [
            (json!(null), SqlValue::Null),
            (json!(true), SqlValue::Integer(1)),
            (json!(-5), SqlValue::Integer(-5)),
            (json!(1.5), SqlValue::Real(1.5)),
            (json!(u64::MAX), SqlValue::Real(u64::MAX as f64)),
            (json!("x"), SqlValue::Text("x".into())),
            (json!({"base64": "AP8="}), SqlValue::Blob(vec![0, 255])),
        ] {
            assert_eq!(to_sql(&json), Ok(expected), "{json}");
        }
        for wrong in [
            json!([]),
            json!({}),
            json!({"base64": "*"}),
            json!({"base64": 1}),
        ] {
            assert_eq!(to_sql(&wrong), Err(ParamError), "{wrong}");
        }
    }
}
