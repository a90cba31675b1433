//! Secrets: the name by which a job refers to one, what a variable of a job is set to, and the value,
//! which only the attempt that uses it has.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser::SerializeMap};
use serde_json::{Map, Value};
use zeroize::Zeroize;

use super::refusal::NewJobRefusal;

/// The key of a reference: `{"secret": NAME}`.
const KEY: &str = "secret";

/// The variable that says where programs are found. It decides what runs, so it is never a secret.
const SEARCH_PATH: &str = "PATH";

/// The name of a secret: 1 to [`SecretName::BYTES_MAX`] letters, digits, `.`, `_` and `-`, not beginning with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

impl SecretName {
    /// The longest name, bytes: that of a file.
    pub const BYTES_MAX: usize = 255;

    /// Reads a name.
    ///
    /// # Errors
    ///
    /// It cannot be the name of a secret; the text says what can.
    pub fn read(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        match fits && text.bytes().all(plain) && !text.starts_with('.') {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "must be the name of a secret: 1 to {} letters, digits, '.', '_' and '-', not beginning with a dot",
                Self::BYTES_MAX
            )),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SecretName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text)
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a variable is set to. Serialises as a string, or as `{"secret": NAME}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// This text.
    Text(String),
    /// The value that this secret has when an attempt starts.
    Secret(SecretName),
}

impl EnvValue {
    /// The text; `None` for a secret.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Secret(_) => None,
        }
    }

    /// The secret; `None` for a text.
    pub fn secret(&self) -> Option<&SecretName> {
        match self {
            Self::Text(_) => None,
            Self::Secret(name) => Some(name),
        }
    }

    /// Bytes of the text or of the secret's name.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Secret(name) => name.0.len(),
        }
    }

    /// Whether it is the empty text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a value; the message does not repeat it.
    pub(super) fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Object(map) => Self::read_reference(&map).map_err(|(_, wrong)| wrong),
            _ => Err("must be a string, or {\"secret\": NAME}".to_owned()),
        }
    }

    /// Reads a reference; an error has the key inside of it.
    fn read_reference(map: &Map<String, Value>) -> Result<Self, (String, String)> {
        if let Some(other) = map.keys().find(|key| *key != KEY) {
            let message = format!("unknown key; the only one is {KEY}");
            return Err((other.clone(), message));
        }
        let name = map.get(KEY).and_then(Value::as_str);
        let name = SecretName::read(name.unwrap_or_default());
        name.map(Self::Secret)
            .map_err(|wrong| (KEY.to_owned(), wrong))
    }
}

impl From<String> for EnvValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for EnvValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Serialize for EnvValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Secret(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(KEY, name)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Refuses wrong references in a user's `env`, with the key of the reference. Other mistakes are found later.
pub(super) fn refuse_wrong_references(env: Option<&Value>) -> Result<(), NewJobRefusal> {
    for (variable, value) in env.and_then(Value::as_object).into_iter().flatten() {
        let Value::Object(reference) = value else {
            continue;
        };
        let at = |key: &str| format!("env.{variable}.{key}");
        EnvValue::read_reference(reference)
            .map_err(|(key, wrong)| NewJobRefusal::invalid(&at(&key), wrong))?;
        if variable == SEARCH_PATH {
            let message = "PATH says which program runs, so it cannot be a secret";
            return Err(NewJobRefusal::invalid(&at(KEY), message));
        }
    }
    Ok(())
}

/// The references of an environment: the variable and the secret of each.
pub fn references(
    env: &BTreeMap<String, EnvValue>,
) -> impl Iterator<Item = (&String, &SecretName)> {
    env.iter()
        .filter_map(|(variable, value)| Some((variable, value.secret()?)))
}

/// The value of a secret. `Debug` does not show it, and it is overwritten when it is dropped.
///
/// It is serialised as it is, for the one message in which the server hands it to a shim.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// This value.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The value.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// A variable of an attempt, with the value of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVariable {
    /// The variable's name.
    pub name: String,
    /// Its value.
    pub value: SecretText,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_plain_file_names() {
        let longest = "n".repeat(SecretName::BYTES_MAX);
        for name in ["gh-token", "A.b_c-9", "-", "_", "a..b", longest.as_str()] {
            assert_eq!(
                SecretName::read(name).map(String::from),
                Ok(name.to_owned())
            );
        }
        let long = "n".repeat(SecretName::BYTES_MAX + 1);
        for wrong in ["", ".", "..", ".a", "a/b", "a b", "a\n", "a\0", "é", &long] {
            assert!(SecretName::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_value_is_written_as_it_is_read() {
        for value in [json!("text"), json!(""), json!({"secret": "gh-token"})] {
            let read: EnvValue = serde_json::from_value(value.clone()).expect("valid");
            assert_eq!(serde_json::to_value(&read).expect("JSON"), value);
        }
        for wrong in [
            json!(1),
            json!(null),
            json!({}),
            json!({"secret": null}),
            json!({"secret": "a", "x": 1}),
            json!({"secret": "../a"}),
        ] {
            assert!(
                serde_json::from_value::<EnvValue>(wrong.clone()).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_wrong_reference_is_refused_with_its_key() {
        let refused = |env: Value| {
            let refused = refuse_wrong_references(Some(&env));
            refused.err().map(|refusal| refusal.key().to_owned())
        };
        for (env, key) in [
            (json!({"A": {"secret": "../x"}}), "env.A.secret"),
            (json!({"A": {"secret": 1}}), "env.A.secret"),
            (json!({"A": {}}), "env.A.secret"),
            (
                json!({"A": {"secret": "x", "default": ""}}),
                "env.A.default",
            ),
            (json!({"PATH": {"secret": "x"}}), "env.PATH.secret"),
        ] {
            assert_eq!(refused(env.clone()).as_deref(), Some(key), "{env}");
        }
        assert_eq!(refused(json!({"A": {"secret": "x"}, "B": "y"})), None);
        assert_eq!(refused(json!("wrong")), None);
        assert!(refuse_wrong_references(None).is_ok());
    }

    #[test]
    fn a_value_is_not_shown() {
        let variable = SecretVariable {
            name: "GH_TOKEN".to_owned(),
            value: SecretText::new("s3cret".to_owned()),
        };
        let shown = format!("{variable:?} {variable:#?}");
        assert!(
            shown.contains("GH_TOKEN") && !shown.contains("s3cret"),
            "{shown}"
        );
        assert_eq!(variable.value.expose(), "s3cret");
    }
}
