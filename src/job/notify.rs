//! Notices that a job asks for, the key `notify`: which states are told to whom, and the secret that
//! signs them.
//!
//! The values are read and checked here. The store writes a notice with the state change that it
//! tells of; `notices` delivers it.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser::SerializeMap};
use serde_json::{Value, json};

use super::{
    command::argv_of,
    read::{checked, string},
    state::JobState,
    words::expected,
};

/// The longest URL, bytes.
pub const URL_BYTES_MAX: usize = 2048;
/// The longest command, the lengths of its words together, bytes.
pub const ARGV_BYTES_MAX: usize = 16 << 10;
/// What a secret begins with, as Standard Webhooks writes it.
const SECRET_PREFIX: &str = "whsec_";
/// How many bytes a secret may decode to, as Standard Webhooks recommends.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// One entry of `notify`: on these states, this receiver is notified.
///
/// Serialised it is what users see: of the secret only whether there is one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "EntryKeys")]
pub struct NotifyEntry {
    /// The states; never empty.
    pub on: StateSet,
    /// Who is notified.
    pub target: NotifyTarget,
    /// What its requests are signed with.
    pub secret: NotifySecret,
}

impl NotifyEntry {
    /// The most entries of a job.
    pub const COUNT_MAX: usize = 8;
    /// The keys of an entry.
    pub const KEYS: [&str; 4] = ["on", "argv", "url", "secret"];

    /// The entry as a user writes it, with its secret: for the database and for fingerprints.
    pub fn with_secret(&self) -> Value {
        let mut entry = json!({ "on": self.on });
        match &self.target {
            NotifyTarget::Url(url) => entry["url"] = json!(url),
            NotifyTarget::Argv(argv) => entry["argv"] = json!(argv),
        }
        if let NotifySecret::Known(secret) = &self.secret {
            entry["secret"] = json!(secret.text());
        }
        entry
    }

    /// The entry for every reader: it only tells whether there is a secret.
    pub fn without_secret(self) -> Self {
        let secret = match self.secret {
            NotifySecret::None => NotifySecret::None,
            NotifySecret::Hidden | NotifySecret::Known(_) => NotifySecret::Hidden,
        };
        Self { secret, ..self }
    }

    /// About how many bytes of memory its texts take.
    pub fn text_bytes(&self) -> usize {
        let word = |text: &String| size_of::<String>() + text.len();
        match &self.target {
            NotifyTarget::Url(url) => word(url),
            NotifyTarget::Argv(argv) => argv.iter().map(word).sum(),
        }
    }

    /// The states that any of these entries names.
    pub fn states(entries: &[Self]) -> StateSet {
        let bits = entries.iter().fold(0, |bits, entry| bits | entry.on.0);
        StateSet(bits)
    }
}

impl Serialize for NotifyEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (argv, url) = match &self.target {
            NotifyTarget::Argv(argv) => (Some(argv), None),
            NotifyTarget::Url(url) => (None, Some(url)),
        };
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("on", &self.on)?;
        map.serialize_entry("argv", &argv)?;
        map.serialize_entry("url", &url)?;
        map.serialize_entry("has_secret", &(self.secret != NotifySecret::None))?;
        map.end()
    }
}

/// An entry as a user writes it.
#[derive(Deserialize)]
struct EntryKeys {
    on: Option<StateSet>,
    #[serde(default, deserialize_with = "argv")]
    argv: Option<Vec<String>>,
    #[serde(default, deserialize_with = "url")]
    url: Option<String>,
    #[serde(default)]
    secret: Option<WebhookSecret>,
}

impl TryFrom<EntryKeys> for NotifyEntry {
    type Error = String;

    fn try_from(keys: EntryKeys) -> Result<Self, String> {
        let on = keys
            .on
            .ok_or("on is missing; name at least one state, such as [\"failed\"]")?;
        let target = match (keys.argv, keys.url) {
            (Some(_), Some(_)) => return Err("give argv or url, not both".to_owned()),
            (None, None) => {
                return Err("give argv (a list of strings) or url (http or https)".to_owned());
            }
            (Some(_), None) if keys.secret.is_some() => {
                return Err("secret signs requests: give it with url, not with argv".to_owned());
            }
            (Some(argv), None) => NotifyTarget::Argv(argv),
            (None, Some(url)) => NotifyTarget::Url(url),
        };
        let secret = keys.secret.map_or(NotifySecret::None, NotifySecret::Known);
        Ok(Self { on, target, secret })
    }
}

/// Reads up to [`NotifyEntry::COUNT_MAX`] entries.
pub(super) fn entries<'de, D>(value: D) -> Result<Vec<NotifyEntry>, D::Error>
where
    D: Deserializer<'de>,
{
    let entries = Vec::<NotifyEntry>::deserialize(value)?;
    let max = NotifyEntry::COUNT_MAX;
    match entries.len() <= max {
        true => Ok(entries),
        false => Err(D::Error::custom(format!("at most {max} entries"))),
    }
}

/// Who is notified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NotifyTarget {
    /// A POST request to this address, `http` or `https`.
    Url(String),
    /// This command, run by the server. Never empty, no NUL.
    Argv(Vec<String>),
}

impl NotifyTarget {
    /// What notices to the same receiver have in common: the host of a URL with its port, the
    /// program of a command.
    pub fn destination(&self) -> String {
        match self {
            Self::Url(url) => match url.parse::<hyper::Uri>() {
                Ok(uri) => uri
                    .authority()
                    .map_or_else(String::new, ToString::to_string),
                Err(_) => url.clone(),
            },
            Self::Argv(argv) => argv.first().cloned().unwrap_or_default(),
        }
    }
}

/// Whether requests are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifySecret {
    /// They are not.
    None,
    /// They are, with a secret that the reader of this value did not ask for.
    Hidden,
    /// They are, with this secret.
    Known(WebhookSecret),
}

/// A secret of Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret {
    text: String,
    key: Vec<u8>,
}

impl WebhookSecret {
    /// Reads a secret.
    ///
    /// # Errors
    ///
    /// What a secret must look like, without the wrong one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = text.strip_prefix(SECRET_PREFIX);
        let key = key.and_then(|base64| STANDARD.decode(base64).ok());
        let key = key.filter(|key| SECRET_BYTES.contains(&key.len()));
        let key = key.ok_or_else(|| {
            let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            format!("must be {SECRET_PREFIX} and base64 of {min} to {max} bytes")
        })?;
        Ok(Self {
            text: text.to_owned(),
            key,
        })
    }

    /// The secret as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key of signatures.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Without the secret: values are written into logs this way.
impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

impl<'de> Deserialize<'de> for WebhookSecret {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        checked(value, |value| Self::parse(&string(value)?))
    }
}

/// A set of states. Serialised as a list of their names, in the order of a job's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateSet(u8);

impl StateSet {
    /// Whether this state is one of them.
    pub fn contains(self, state: JobState) -> bool {
        self.0 & bit(state) != 0
    }

    /// The states, in the order of a job's life.
    pub fn iter(self) -> impl Iterator<Item = JobState> {
        let states = JobState::ALL.into_iter();
        states.filter(move |state| self.contains(*state))
    }
}

impl FromIterator<JobState> for StateSet {
    fn from_iter<I: IntoIterator<Item = JobState>>(states: I) -> Self {
        Self(states.into_iter().fold(0, |bits, state| bits | bit(state)))
    }
}

fn bit(state: JobState) -> u8 {
    const { assert!(JobState::ALL.len() <= 8) }
    1 << state as u8
}

impl Serialize for StateSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for StateSet {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        let names = JobState::ALL.map(JobState::name);
        let wrong = || {
            format!(
                "must be a list of at least one state; a state {}",
                expected(&names)
            )
        };
        checked(value, |value| {
            let list = value.as_array().filter(|list| !list.is_empty());
            let states = list.ok_or_else(wrong)?.iter();
            let states = states.map(|name| name.as_str().and_then(JobState::from_name));
            states.collect::<Option<Self>>().ok_or_else(wrong)
        })
    }
}

fn argv<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Vec<String>>, D::Error> {
    checked(value, |value| {
        if value.is_null() {
            return Ok(None);
        }
        let argv = argv_of(value)?;
        match argv.iter().map(String::len).sum::<usize>() <= ARGV_BYTES_MAX {
            true => Ok(Some(argv)),
            false => Err(format!("at most {ARGV_BYTES_MAX} bytes")),
        }
    })
}

fn url<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    checked(value, |value| match value {
        Value::Null => Ok(None),
        value => {
            let text = string(value)?;
            check_url(&text).map(|()| Some(text))
        }
    })
}

/// Refuses a URL to which no request can be sent.
///
/// # Errors
///
/// What is wrong with it; the URL is not repeated.
pub fn check_url(text: &str) -> Result<(), String> {
    let wrong =
        || "must be an absolute http or https URL, such as https://example.com/hook".to_owned();
    if text.len() > URL_BYTES_MAX {
        return Err(format!("must have at most {URL_BYTES_MAX} bytes"));
    }
    if text.contains('#') {
        return Err("must not have a fragment (#)".to_owned());
    }
    let uri: hyper::Uri = text.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong());
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        return Err(
            "must not have a user name or password; give a secret, which signs the requests"
                .to_owned(),
        );
    }
    let port = authority.as_str().strip_prefix(authority.host());
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let fits = match port {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(is_port),
        None => false,
    };
    match fits && !authority.host().is_empty() {
        true => Ok(()),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entry: Value) -> Result<NotifyEntry, String> {
        serde_json::from_value(entry).map_err(|error| error.to_string())
    }

    fn secret(bytes: usize) -> String {
        format!("whsec_{}", STANDARD.encode(vec![7; bytes]))
    }

    #[test]
    fn an_entry_is_shown_without_its_secret_and_stored_with_it() {
        let entry = json!({"on": ["failed", "queued", "failed"], "url": "https://h.example/x?y=1",
            "secret": secret(24)});
        let read = read(entry).expect("valid");
        let shown = json!({"on": ["queued", "failed"], "argv": null,
            "url": "https://h.example/x?y=1", "has_secret": true});
        assert_eq!(json!(read), shown);
        let stored = read.with_secret();
        assert_eq!(stored["secret"], secret(24));
        assert_eq!(serde_json::from_value(stored).ok(), Some(read.clone()));
        let debug = format!("{read:?}");
        assert!(
            !debug.contains(&secret(24)) && !debug.contains("[7, 7"),
            "{debug}"
        );
        let hidden = read.without_secret();
        assert_eq!(
            (json!(hidden), hidden.with_secret().get("secret")),
            (shown, None)
        );
    }

    #[test]
    fn wrong_entries_are_refused_without_their_values() {
        let url = "http://127.0.0.1:1/";
        for wrong in [
            json!({"url": url}),
            json!({"on": [], "url": url}),
            json!({"on": ["ended"], "url": url}),
            json!({"on": ["Failed"], "url": url}),
            json!({"on": "failed", "url": url}),
            json!({"on": ["failed"]}),
            json!({"on": ["failed"], "url": url, "argv": ["true"]}),
            json!({"on": ["failed"], "argv": ["true"], "secret": secret(24)}),
            json!({"on": ["failed"], "argv": []}),
            json!({"on": ["failed"], "argv": [""]}),
            json!({"on": ["failed"], "argv": ["a\u{0}"]}),
            json!({"on": ["failed"], "argv": "true"}),
            json!({"on": ["failed"], "argv": ["x".repeat(ARGV_BYTES_MAX + 1)]}),
            json!({"on": ["failed"], "url": url, "secret": secret(23)}),
            json!({"on": ["failed"], "url": url, "secret": secret(65)}),
            json!({"on": ["failed"], "url": url, "secret": "whsec_###"}),
            json!({"on": ["failed"], "url": url, "secret": "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ="}),
            json!({"on": ["failed"], "url": url, "secret": 7}),
        ] {
            let message = read(wrong.clone()).expect_err("refused");
            for value in [url, "whsec_###", "aGVsbG8", "Failed"] {
                assert!(!message.contains(value), "{message}");
            }
        }
        assert!(read(json!({"on": ["failed"], "url": url, "secret": secret(64)})).is_ok());
        assert!(read(json!({"on": ["failed"], "url": url, "secret": null, "argv": null})).is_ok());
    }

    #[test]
    fn urls_are_absolute_and_carry_no_credentials() {
        for fine in [
            "http://a",
            "https://a.b:8443/c?d=e",
            "http://[::1]:80/",
            "http://127.0.0.1:65535/x",
            "HTTP://a/",
        ] {
            assert_eq!(check_url(fine), Ok(()), "{fine}");
        }
        for wrong in [
            "",
            "/x",
            "a.b",
            "ftp://a/",
            "file:///etc/passwd",
            "http://",
            "http:///x",
            "http://a:0/",
            "http://a:65536/",
            "http://a:/",
            "http://a:b/",
            "http://user@a/",
            "http://user:pw@a/",
            "http://a/#f",
            "http://a b/",
            "http://a/\n",
            "http://ä/",
            "javascript:alert(1)",
        ] {
            assert!(check_url(wrong).is_err(), "{wrong}");
        }
        let long = format!("http://a/{}", "x".repeat(URL_BYTES_MAX));
        assert!(check_url(&long).is_err());
    }

    #[test]
    fn notices_of_one_receiver_share_a_destination() {
        let url = |text: &str| NotifyTarget::Url(text.to_owned()).destination();
        assert_eq!(url("http://a:8/x"), url("http://a:8/y?z"));
        assert_ne!(url("http://a:8/x"), url("http://a:9/x"));
        let argv = NotifyTarget::Argv(vec!["mail".to_owned(), "me".to_owned()]);
        assert_eq!(argv.destination(), "mail");
    }
}
