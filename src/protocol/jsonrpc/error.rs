//! Errors over JSON-RPC: kind, message and data.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Value};

use super::super::ErrorKind;
use crate::{
    access::AccessDenied,
    executor::{BatchError, Error},
    job,
};

/// Longest key that an error repeats, characters: a client may send one as long as a message.
const KEY_CHARS_MAX: usize = 200;

/// Why a request is refused, as the reply shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Determines the error code and `data.kind`.
    pub kind: ErrorKind,
    /// What is wrong, and what to do.
    pub message: String,
    data: Map<String, Value>,
}

impl Refusal {
    /// A refusal whose data has only the kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            data: Map::new(),
        }
    }

    /// The same with one more entry in `data`.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    /// The rule that refused it, where the data name one.
    pub fn rule(&self) -> Option<&str> {
        self.data.get("rule").and_then(Value::as_str)
    }

    /// The limit that is reached, where the data name one.
    pub fn limit_name(&self) -> Option<&str> {
        self.data.get("limit").and_then(Value::as_str)
    }

    /// The parameter `key` is wrong.
    pub fn params(key: &str, message: &str) -> Self {
        Self::about(ErrorKind::InvalidParams, key, message)
    }

    fn about(kind: ErrorKind, key: &str, message: &str) -> Self {
        let key = match key.char_indices().nth(KEY_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &key[..end]),
            None => key.to_owned(),
        };
        Self::new(kind, format!("{key}: {message}")).with("key", key)
    }

    /// The bound named `limit` is reached.
    pub fn limit(limit: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message).with("limit", limit)
    }

    /// The same for one entry of the list under `key`.
    pub fn at(mut self, key: &str, index: usize) -> Self {
        self.message = format!("{key}[{index}]: {}", self.message);
        self.with("index", index)
    }

    /// The protocol has `key`, but this version does not support it yet.
    pub fn unsupported(key: &str) -> Self {
        Self::about(
            ErrorKind::Unsupported,
            key,
            "this version does not support it yet",
        )
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let refusal = Self::new(ErrorKind::of(&error), error.to_string());
        match error {
            Error::Invalid {
                output_bytes: Some(end),
                ..
            } => refusal.with("key", "from").with("output_bytes", end),
            Error::About { key, .. } => refusal.with("key", key),
            Error::Limit { limit, .. } => refusal.with("limit", &*limit),
            Error::Forbidden { rule, .. } => refusal.with("rule", rule),
            Error::Policy { rule, digest, .. } => refusal.with("rule", rule).with("policy", digest),
            _ => refusal,
        }
    }
}

impl From<AccessDenied> for Refusal {
    fn from(denied: AccessDenied) -> Self {
        let scope = match &denied {
            AccessDenied::Scope { scope, .. } => Some(scope.name()),
            AccessDenied::Rate(_) => None,
        };
        let refusal = Self::from(Error::from(denied));
        match scope {
            Some(scope) => refusal.with("scope", scope),
            None => refusal,
        }
    }
}

impl From<BatchError> for Refusal {
    fn from(BatchError { index, error }: BatchError) -> Self {
        match index {
            Some(index) => Self::from(error).at("jobs", index),
            None => error.into(),
        }
    }
}

impl From<job::NewJobRefusal> for Refusal {
    fn from(refusal: job::NewJobRefusal) -> Self {
        let (kind, key, message) = match refusal {
            job::NewJobRefusal::Invalid { key, message } => {
                (ErrorKind::InvalidParams, key, message)
            }
            job::NewJobRefusal::Unsupported { key, message } => {
                (ErrorKind::Unsupported, key, message)
            }
        };
        Self::about(kind, &key, &message)
    }
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut data = self.data.clone();
        data.insert("kind".to_owned(), self.kind.name().into());
        let mut error = serializer.serialize_struct("error", 3)?;
        error.serialize_field("code", &self.kind.code())?;
        error.serialize_field("message", &self.message)?;
        error.serialize_field("data", &data)?;
        error.end()
    }
}
