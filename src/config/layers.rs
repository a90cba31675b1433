//! The layers of settings and how one value is picked from them: option before environment before
//! file before default.
//!
//! Which settings exist is the table's business, how a value is read its type's.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{FILE_NAME, SettingValue, TABLE};
use crate::data_dir::{DataDirError, OwnDir};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said otherwise.
    Default,
    /// This TOML file.
    File(PathBuf),
    /// This variable.
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
        /// Why.
        source: io::Error,
    },
    /// The data directory, or the file in it, is not ours alone.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The file is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// The file has a key that nobody knows.
    #[error("{}: unknown key {key:?}{hint}; known keys are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// `, did you mean …?`, or nothing.
        hint: String,
        /// All keys.
        known: String,
    },
    /// A value is wrong.
    #[error("{name} {message} (from: {origin})")]
    Value {
        /// The setting.
        name: String,
        /// What would be right.
        message: String,
        /// Where it stands.
        origin: String,
    },
}

impl ConfigError {
    /// A value that is wrong beside others.
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
    options: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    file: Option<(PathBuf, toml::Table)>,
}

impl Layers {
    /// Options by setting name, variables by their own name; no file.
    pub fn new(options: BTreeMap<String, String>, environment: BTreeMap<String, String>) -> Self {
        Self {
            options,
            environment,
            file: None,
        }
    }

    /// Takes this file as the file layer.
    pub fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        self.take(path, &text)
    }

    fn take(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = parse(path, text)?;
        self.file = Some((path.to_owned(), table));
        Ok(())
    }

    /// Takes `config.toml` of the data directory as the file layer, if there is one.
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
        self.take(&path, &text)?;
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
            message: "cannot stand in the data directory's own file; use --data-dir or --config"
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
            (T::from_text(text, bound), origin)
        } else if let Some((variable, text)) = self.variable(name) {
            (T::from_text(text, bound), Origin::Environment(variable))
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

    /// A variable that is set and not empty: an empty one is as good as none.
    fn variable(&self, name: &str) -> Option<(String, &String)> {
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

/// The setting whose name is nearest, if one is near.
fn nearest(key: &str) -> Option<&'static str> {
    let scored = TABLE
        .iter()
        .map(|entry| (distance(key, entry.name), entry.name));
    let (score, name) = scored.min()?;
    (score <= key.len().max(3) / 3).then_some(name)
}

/// How many characters must be put in, taken out or replaced (Levenshtein).
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
