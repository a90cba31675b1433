//! The types that a setting may have: how each is read from text and from TOML, and how it is shown. The
//! table of settings is in `config`.

use std::{
    ffi::OsStr,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use serde_json::json;

/// A value that a setting may have.
pub trait SettingValue: Sized {
    /// What bounds the value: a range for numbers, else `()`.
    type Bound;
    /// Whether its option may be given without a value.
    const FLAG: bool = false;
    /// Reads a variable or an option. The error message follows the setting's name.
    fn from_text(text: &str, bound: &Self::Bound) -> Result<Self, String>;
    /// The same for one that need not be UTF-8. Only paths of files may be something else.
    fn from_os(value: &OsStr, bound: &Self::Bound) -> Result<Self, String> {
        match value.to_str() {
            Some(text) => Self::from_text(text, bound),
            None => Err("must be valid UTF-8".to_owned()),
        }
    }
    /// Reads a value of the file; by default only strings, as text.
    fn from_toml(value: &toml::Value, bound: &Self::Bound) -> Result<Self, String> {
        match value.as_str() {
            Some(text) => Self::from_text(text, bound),
            None => Err("must be a string".to_owned()),
        }
    }
    /// The value for display and JSON.
    fn show(&self) -> serde_json::Value;
    /// The number that `server.info` shows, if the setting bounds something; null for no bound.
    fn bound(&self) -> Option<serde_json::Value> {
        None
    }
}

fn in_range(number: u64, bound: &RangeInclusive<u64>) -> Result<u64, String> {
    if bound.contains(&number) {
        return Ok(number);
    }
    Err(format!(
        "must be between {} and {}",
        bound.start(),
        bound.end()
    ))
}

impl SettingValue for u64 {
    type Bound = RangeInclusive<u64>;

    fn from_text(text: &str, bound: &Self::Bound) -> Result<Self, String> {
        let number = text
            .parse()
            .map_err(|_| "must be a whole number".to_owned())?;
        in_range(number, bound)
    }

    fn from_toml(value: &toml::Value, bound: &Self::Bound) -> Result<Self, String> {
        let number = value.as_integer().and_then(|n| Self::try_from(n).ok());
        in_range(number.ok_or("must be a whole number")?, bound)
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn bound(&self) -> Option<serde_json::Value> {
        Some(json!(self))
    }
}

impl SettingValue for Option<u64> {
    type Bound = RangeInclusive<u64>;

    fn from_text(text: &str, bound: &Self::Bound) -> Result<Self, String> {
        if text == "none" {
            return Ok(None);
        }
        u64::from_text(text, bound)
            .map(Some)
            .map_err(|error| format!("{error}, or \"none\""))
    }

    fn from_toml(value: &toml::Value, bound: &Self::Bound) -> Result<Self, String> {
        if value.as_str() == Some("none") {
            return Ok(None);
        }
        u64::from_toml(value, bound)
            .map(Some)
            .map_err(|error| format!("{error}, or \"none\""))
    }

    fn show(&self) -> serde_json::Value {
        self.map_or(json!("none"), |number| json!(number))
    }

    fn bound(&self) -> Option<serde_json::Value> {
        Some(json!(self))
    }
}

impl SettingValue for bool {
    type Bound = ();
    const FLAG: bool = true;

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        match text {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        }
    }

    fn from_toml(value: &toml::Value, (): &()) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| "must be true or false".to_owned())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }
}

impl SettingValue for String {
    type Bound = ();

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }
}

impl SettingValue for Vec<String> {
    type Bound = ();

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        Ok(parts.map(str::to_owned).collect())
    }

    fn from_toml(value: &toml::Value, (): &()) -> Result<Self, String> {
        let wrong = || "must be a list of strings".to_owned();
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect()
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }
}

impl SettingValue for PathBuf {
    type Bound = ();

    // Of the data directory, whose path SQLite takes as UTF-8.
    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        Ok(Self::from(text))
    }

    fn show(&self) -> serde_json::Value {
        json!(self.display().to_string())
    }
}

impl SettingValue for Option<PathBuf> {
    type Bound = ();

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        Self::from_os(text.as_ref(), &())
    }

    fn from_os(value: &OsStr, (): &()) -> Result<Self, String> {
        if value == "none" {
            return Ok(None);
        }
        match value.is_empty() {
            true => Err("must not be empty".to_owned()),
            false => Ok(Some(value.into())),
        }
    }

    fn show(&self) -> serde_json::Value {
        self.as_ref().map_or(json!("none"), SettingValue::show)
    }
}

/// The TCP address on which the server listens, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// No TCP: the server listens only on the Unix socket.
    None,
    /// This address.
    Address(SocketAddr),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Address(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8003))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl SettingValue for Listen {
    type Bound = ();

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        numeric.parse().map(Self::Address).map_err(|_| {
            "must be ADDRESS:PORT such as 127.0.0.1:8003 or [::1]:8003, or none".to_owned()
        })
    }

    fn show(&self) -> serde_json::Value {
        json!(self.to_string())
    }
}

/// Where the checkpoints of the audit trail go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointSink {
    /// None are made.
    None,
    /// They are appended to this file.
    File(PathBuf),
    /// They go to the journal of systemd.
    Journald,
    /// This command gets each on its stdin.
    Command(Vec<String>),
}

impl fmt::Display for CheckpointSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::File(path) => path.display().fmt(f),
            Self::Journald => f.write_str("journald"),
            Self::Command(argv) => write!(f, "command:{}", argv.join(" ")),
        }
    }
}

impl SettingValue for CheckpointSink {
    type Bound = ();

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        let wrong = || {
            "must be an absolute path, journald, command:PROGRAM ARGUMENTS (separated by spaces), or none"
                .to_owned()
        };
        if let Some(words) = text.strip_prefix("command:") {
            let argv: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            return match argv.is_empty() {
                true => Err(wrong()),
                false => Ok(Self::Command(argv)),
            };
        }
        match text {
            "none" => Ok(Self::None),
            "journald" => Ok(Self::Journald),
            path if path.starts_with('/') => Ok(Self::File(path.into())),
            _ => Err(wrong()),
        }
    }

    fn from_os(value: &OsStr, (): &()) -> Result<Self, String> {
        match value.to_str() {
            None if value.as_bytes().starts_with(b"/") => Ok(Self::File(value.into())),
            text => Self::from_text(text.ok_or("must be valid UTF-8")?, &()),
        }
    }

    fn show(&self) -> serde_json::Value {
        json!(self.to_string())
    }
}

/// How the processes of a job are held together: the levels of `docs/design/isolation.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationSetting {
    /// The highest level that is possible here.
    Auto,
    /// A control group for each attempt.
    A,
    /// The process tree below a shim.
    B,
}

impl SettingValue for IsolationSetting {
    type Bound = ();

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "A" | "a" => Ok(Self::A),
            "B" | "b" => Ok(Self::B),
            _ => Err("must be auto, A or B".to_owned()),
        }
    }

    fn show(&self) -> serde_json::Value {
        json!(match self {
            Self::Auto => "auto",
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text for human readers.
    Text,
    /// One JSON object per line.
    Json,
}

impl SettingValue for LogFormat {
    type Bound = ();

    fn from_text(text: &str, (): &()) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be auto, text or json".to_owned()),
        }
    }

    fn show(&self) -> serde_json::Value {
        json!(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}
