//! The layers of settings, and how one value is picked from them: option before environment before file
//! before default.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{FILE_NAME, SettingValue, TABLE};
use crate::data_dir::{DataDirError, OwnDir};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No layer has a value.
    Default,
    /// This TOML file.
    File(PathBuf),
    /// The variable of this name.
    Environment(String),
    /// This option, with its dashes.
    Option(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Option(name) => write!(f, "option {name}"),
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
    /// The data directory, or the file in it, belongs to another user or is open to one.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The file is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The message of the parser.
        message: String,
    },
    /// The file has a key that is no setting.
    #[error("{}: unknown key {key:?}{hint}; known keys are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The unknown key.
        key: String,
        /// ` (did you mean …?)`, or nothing.
        hint: String,
        /// All settings, by name.
        known: String,
    },
    /// A value is wrong.
    #[error("{name} {message} (from: {origin})")]
    Value {
        /// The setting.
        name: String,
        /// What is wrong or what would be right; it follows the name.
        message: String,
        /// The layer that has the value.
        origin: String,
    },
}

impl ConfigError {
    /// A value that does not fit the values of other settings.
    pub(super) fn value(name: &str, message: &str) -> Self {
        Self::Value {
            name: name.to_owned(),
            message: message.to_owned(),
            origin: "several".to_owned(),
        }
    }
}

/// All layers above the defaults.
#[derive(Debug, Default)]
pub struct Layers {
    options: BTreeMap<String, OsString>,
    environment: BTreeMap<String, OsString>,
    file: Option<(PathBuf, toml::Table)>,
}

impl Layers {
    /// `options` by setting name, `environment` by variable; no file.
    pub fn new(
        options: BTreeMap<String, OsString>,
        environment: BTreeMap<String, OsString>,
    ) -> Self {
        Self {
            options,
            environment,
            file: None,
        }
    }

    /// Reads this file as the file layer.
    pub fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        self.set_file(path, &text)
    }

    fn set_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = parse(path, text)?;
        self.file = Some((path.to_owned(), table));
        Ok(())
    }

    /// Reads `config.toml` of the data directory as the file layer, if there is one.
    pub fn read_file_of(&mut self, default: impl Fn() -> PathBuf) -> Result<(), ConfigError> {
        let (dir, _) = self.pick::<PathBuf>("data_dir", default, &())?;
        let path = dir.join(FILE_NAME);
        let Some(directory) = OwnDir::open(&dir)? else {
            return Ok(());
        };
        let Some(mut file) = directory.read_given(FILE_NAME)? else {
            return Ok(());
        };
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|source| ConfigError::Read {
                path: path.clone(),
                source,
            })?;
        self.set_file(&path, &text)?;
        self.refuse_own_directory(&path)
    }

    /// A file inside the data directory cannot say where the data directory is.
    fn refuse_own_directory(&self, path: &Path) -> Result<(), ConfigError> {
        let named = self
            .file
            .as_ref()
            .is_some_and(|(_, table)| table.contains_key("data_dir"));
        if !named {
            return Ok(());
        }
        Err(ConfigError::Value {
            name: "data_dir".to_owned(),
            message: "is not allowed in the data directory's own file; use --data-dir or --config"
                .to_owned(),
            origin: Origin::File(path.to_owned()).to_string(),
        })
    }

    /// The value of a setting and where it comes from.
    pub fn pick<T: SettingValue>(
        &self,
        name: &str,
        default: impl FnOnce() -> T,
        bound: &T::Bound,
    ) -> Result<(T, Origin), ConfigError> {
        let (value, origin) = if let Some(text) = self.options.get(name) {
            let origin = Origin::Option(format!("--{}", name.replace('_', "-")));
            (T::from_os(text, bound), origin)
        } else if let Some((variable, text)) = self.variable(name) {
            (T::from_os(text, bound), Origin::Environment(variable))
        } else if let Some((path, value)) = self.in_file(name) {
            (T::from_toml(value, bound), Origin::File(path.clone()))
        } else {
            (Ok(default()), Origin::Default)
        };
        match value {
            Ok(value) => Ok((value, origin)),
            Err(message) => Err(ConfigError::Value {
                name: name.to_owned(),
                message,
                origin: origin.to_string(),
            }),
        }
    }

    /// The variable of a setting, if it is set and not empty: an empty one counts as unset.
    fn variable(&self, name: &str) -> Option<(String, &OsString)> {
        let variable = format!("{}{}", super::ENV_PREFIX, name.to_ascii_uppercase());
        let text = self.environment.get(&variable)?;
        (!text.is_empty()).then_some((variable, text))
    }

    fn in_file(&self, name: &str) -> Option<(&PathBuf, &toml::Value)> {
        let (path, table) = self.file.as_ref()?;
        Some((path, table.get(name)?))
    }
}

fn parse(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let message = error.to_string();
        ConfigError::Syntax {
            path: path.to_owned(),
            message: message.trim_end().to_owned(),
        }
    })?;
    match table
        .keys()
        .find(|key| TABLE.iter().all(|entry| entry.name != key.as_str()))
    {
        None => Ok(table),
        Some(key) => Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            key: key.clone(),
            hint: nearest(key).map_or_else(String::new, |name| format!(" (did you mean {name}?)")),
            known: TABLE
                .iter()
                .map(|entry| entry.name)
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// The setting whose name is nearest, if one is near enough.
fn nearest(key: &str) -> Option<&'static str> {
    let scored = TABLE
        .iter()
        .map(|entry| (distance(key, entry.name), entry.name));
    let (score, name) = scored.min()?;
    (score <= key.len().max(3) / 3).then_some(name)
}

/// The least number of insertions, deletions and replacements of characters (Levenshtein distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
