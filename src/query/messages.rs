//! The messages between the server and a query process: the question and the reply. `process` and
//! `main` send them as JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use rusqlite::types::Value as SqlValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

/// One statement to run, and its limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// The text of one statement.
    pub sql: String,
    /// Values of its parameters.
    pub params: QueryParams,
    /// Most rows in the reply.
    pub rows_max: u64,
    /// Longest JSON of the rows, bytes.
    pub bytes_max: u64,
    /// Time and memory that the process may use.
    pub bounds: QueryLimits,
}

/// Time and memory that a query process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryLimits {
    /// Limit of wall-clock time and also of CPU time, seconds.
    pub timeout_s: u64,
    /// Limit of private memory, bytes.
    pub memory_bytes: u64,
}

/// Values of a statement's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryParams {
    /// `?1`, `?2`, …
    Listed(Vec<Value>),
    /// `:name`, `@name`, `$name`.
    Named(Map<String, Value>),
}

/// A JSON value that cannot be a parameter: SQL has null, numbers, text and BLOBs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be null, true, false, a number, a string or {{\"base64\": …}}")]
pub struct ParamError;

/// A JSON value as an SQL value: true and false become 1 and 0, `{"base64": …}` becomes a BLOB.
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

/// The rows that a statement returned.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rows {
    /// The names of the columns, as the statement gives them.
    pub columns: Vec<String>,
    /// A JSON array of rows, each an array: null, numbers, text, and BLOBs as `{"base64": …}`.
    pub rows: Box<RawValue>,
    /// The statement has more rows than fit into the limits.
    pub truncated: bool,
}

/// Why there are no rows. Messages say what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryRefusal {
    /// SQLite cannot compile or run the statement, or the parameters do not fit it.
    Invalid(String),
    /// The statement does what no query may do.
    Forbidden {
        /// The name of the rule that forbids it.
        rule: String,
        /// What was refused, and what is allowed.
        message: String,
    },
    /// The query needs more than a limit allows.
    Limit {
        /// The name of the setting or constant.
        limit: String,
        /// The limit, and what to do.
        message: String,
    },
    /// The query cannot run now; the client may try again.
    Unavailable(String),
    /// The server or the query process failed.
    Internal(String),
}

/// Longest message of a refusal, bytes. SQLite's own repeat names from the statement.
const MESSAGE_BYTES_MAX: usize = 2000;

impl QueryRefusal {
    /// The same with a message of up to [`MESSAGE_BYTES_MAX`] bytes: its middle is left out.
    pub(super) fn shortened(mut self) -> Self {
        let (Self::Invalid(message)
        | Self::Forbidden { message, .. }
        | Self::Limit { message, .. }
        | Self::Unavailable(message)
        | Self::Internal(message)) = &mut self;
        if message.len() > MESSAGE_BYTES_MAX {
            let half = MESSAGE_BYTES_MAX / 2 - " … ".len();
            let head = &message[..message.floor_char_boundary(half)];
            let tail = &message[message.ceil_char_boundary(message.len() - half)..];
            *message = format!("{head} … {tail}");
        }
        self
    }

    /// A limit with this name is reached.
    pub(super) fn limit(limit: &str, message: impl Into<String>) -> Self {
        Self::Limit {
            limit: limit.to_owned(),
            message: message.into(),
        }
    }
}

/// The result of a query.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum QueryReply {
    /// The statement ran.
    Rows(Rows),
    /// The statement was refused, or failed.
    Refused(QueryRefusal),
}

/// What a query process writes to stdout.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReplyMessage {
    /// The result.
    pub reply: QueryReply,
    /// Confinements that this kernel does not have or refused, a few words each.
    pub missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_message_keeps_both_of_its_ends() {
        let of = |message: &str| match QueryRefusal::Invalid(message.to_owned()).shortened() {
            QueryRefusal::Invalid(message) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            of("no such column: x (at byte 7)"),
            "no such column: x (at byte 7)"
        );
        for name in ["x", "é", "xé", "𝄞"] {
            let long = of(&format!(
                "no such column: {} (at byte 7)",
                name.repeat(60_000)
            ));
            assert!(long.starts_with("no such column: x") || long.starts_with("no such column: "));
            assert!(
                long.ends_with(" (at byte 7)") && long.len() <= MESSAGE_BYTES_MAX,
                "{}",
                long.len()
            );
        }
    }

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
