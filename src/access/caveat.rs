//! Caveats: what is taken away from a token, each a short JSON text.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Rate, Scope, Scopes};
use crate::job::{Micros, Queue};

/// Something that is taken away from a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caveat {
    /// Only jobs that the token has submitted.
    Own,
    /// Only these scopes.
    Scopes(Scopes),
    /// Only these queues.
    Queues(BTreeSet<String>),
    /// Only jobs with this label.
    Label(String, String),
    /// Only before this moment.
    Expires(Micros),
    /// Only so many new jobs in a time.
    Rate(Rate),
}

/// Why a text is no caveat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaveatRefusal {
    /// It is longer than [`Caveat::TEXT_BYTES_MAX`].
    #[error("a restriction of a token may have at most {max} bytes", max = Caveat::TEXT_BYTES_MAX)]
    TooLong,
    /// It is none that this version knows, or has a value that makes no sense.
    #[error("this version does not know a restriction of the token: {0}")]
    Unknown(String),
}

/// The JSON of a caveat.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CaveatJson {
    Own,
    Scopes(Vec<String>),
    Queues(BTreeSet<String>),
    Label(String, String),
    Expires(String),
    Rate(Rate),
}

impl Caveat {
    /// Longest text, bytes.
    pub const TEXT_BYTES_MAX: usize = 1024;

    /// Its text.
    pub fn text(&self) -> String {
        let json = match self.clone() {
            Self::Own => CaveatJson::Own,
            Self::Scopes(scopes) => {
                CaveatJson::Scopes(scopes.names().into_iter().map(str::to_owned).collect())
            }
            Self::Queues(queues) => CaveatJson::Queues(queues),
            Self::Label(key, value) => CaveatJson::Label(key, value),
            Self::Expires(at) => CaveatJson::Expires(at.to_rfc3339()),
            Self::Rate(rate) => CaveatJson::Rate(rate),
        };
        // Texts and numbers always serialise.
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// It is too long, or not understood as a whole.
    pub fn read(text: &str) -> Result<Self, CaveatRefusal> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(CaveatRefusal::TooLong);
        }
        let unknown = |what: &str| CaveatRefusal::Unknown(what.to_owned());
        let json = serde_json::from_str(text).map_err(|error| unknown(&error.to_string()))?;
        Ok(match json {
            CaveatJson::Own => Self::Own,
            CaveatJson::Scopes(names) => {
                let scopes = Scopes::read(names.iter().map(String::as_str));
                Self::Scopes(scopes.map_err(|name| {
                    unknown(&format!(
                        "no scope is called {name:?}; there are {}",
                        Scope::names()
                    ))
                })?)
            }
            CaveatJson::Queues(queues) => {
                if queues.iter().any(|queue| Queue::check_name(queue).is_err()) {
                    return Err(unknown("a queue cannot have that name"));
                }
                Self::Queues(queues)
            }
            CaveatJson::Label(key, value) => Self::Label(key, value),
            CaveatJson::Expires(at) => {
                let at = Micros::from_rfc3339(&at);
                Self::Expires(at.ok_or_else(|| unknown("expires must be a time as in RFC 3339"))?)
            }
            CaveatJson::Rate(rate) if rate.is_valid() => Self::Rate(rate),
            CaveatJson::Rate(_) => return Err(unknown("a rate needs jobs and a time")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caveat_is_read_as_it_was_written() {
        for (caveat, text) in [
            (Caveat::Own, r#""own""#),
            (
                Caveat::Scopes(Scopes::of(&[Scope::Read, Scope::ReadSecrets])),
                r#"{"scopes":["read","read.secrets"]}"#,
            ),
            (
                Caveat::Queues(["a,b\"".to_owned(), "c".to_owned()].into()),
                r#"{"queues":["a,b\"","c"]}"#,
            ),
            (
                Caveat::Label("a=b".into(), "c".into()),
                r#"{"label":["a=b","c"]}"#,
            ),
            (
                Caveat::Expires(Micros(1)),
                r#"{"expires":"1970-01-01T00:00:00.000001Z"}"#,
            ),
            (
                Caveat::Rate(Rate { jobs: 1, per_s: 60 }),
                r#"{"rate":{"jobs":1,"per_s":60}}"#,
            ),
        ] {
            assert_eq!(caveat.text(), text);
            assert_eq!(Caveat::read(text), Ok(caveat));
        }
    }

    #[test]
    fn what_is_not_understood_as_a_whole_is_refused() {
        for wrong in [
            "",
            "own",
            r#"{"own":true}"#,
            r#""Own""#,
            r#"{"scopes":["read","everything"]}"#,
            r#"{"scopes":"read"}"#,
            r#"{"queues":["a"],"own":null}"#,
            r#"{"queues":[""]}"#,
            r#"{"label":["a"]}"#,
            r#"{"label":["a","b","c"]}"#,
            r#"{"expires":"tomorrow"}"#,
            r#"{"expires":5}"#,
            r#"{"rate":{"jobs":0,"per_s":1}}"#,
            r#"{"rate":{"jobs":1,"per_s":1,"burst":5}}"#,
            r#"{"rate":{"jobs":-1,"per_s":1}}"#,
            r#"{"host":"a"}"#,
            r#""own" "own""#,
        ] {
            assert!(Caveat::read(wrong).is_err(), "{wrong}");
        }
        let long = Caveat::Label("k".into(), "x".repeat(1024)).text();
        assert_eq!(Caveat::read(&long), Err(CaveatRefusal::TooLong));
    }
}
