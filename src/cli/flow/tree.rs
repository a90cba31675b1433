//! A file's content as a tree whose values know their places: what TOML and YAML have in common.
//! `toml` and `yaml` make it.

use std::fmt;

use serde_json::{Map, Value};

/// A place in a file, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilePlace {
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for FilePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong in a file, where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct FileFault {
    pub place: FilePlace,
    pub message: String,
}

impl FileFault {
    /// A fault at a place.
    pub fn new(place: FilePlace, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { place, message }
    }
}

/// A value of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileNode {
    pub place: FilePlace,
    pub content: FileContent,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum FileContent {
    /// A string, number, boolean or null.
    Scalar(Value),
    List(Vec<FileNode>),
    Table(FileTable),
}

/// A table: its keys, each once, with their places.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FileTable(Vec<FileEntry>);

/// A key of a table and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct FileEntry {
    pub key: String,
    pub place: FilePlace,
    pub value: FileNode,
}

impl FileNode {
    /// The value as JSON.
    pub fn json(&self) -> Value {
        match &self.content {
            FileContent::Scalar(value) => value.clone(),
            FileContent::List(nodes) => nodes.iter().map(Self::json).collect(),
            FileContent::Table(table) => Value::Object(table.json()),
        }
    }

    /// The value as a table.
    pub fn table(&self, key: &str) -> Result<&FileTable, FileFault> {
        match &self.content {
            FileContent::Table(table) => Ok(table),
            _ => Err(self.expected(key, "a table")),
        }
    }

    /// The value as a list.
    pub fn list(&self, key: &str) -> Result<&[FileNode], FileFault> {
        match &self.content {
            FileContent::List(nodes) => Ok(nodes),
            _ => Err(self.expected(key, "a list")),
        }
    }

    /// The value as a string.
    pub fn text(&self, key: &str) -> Result<&str, FileFault> {
        match &self.content {
            FileContent::Scalar(Value::String(text)) => Ok(text),
            _ => Err(self.expected(key, "a string")),
        }
    }

    /// The value as a list of strings that has at least one.
    pub fn words(&self, key: &str) -> Result<Vec<String>, FileFault> {
        let nodes = self.list(key)?;
        if nodes.is_empty() {
            return Err(self.expected(key, "a list of strings that is not empty"));
        }
        let words = nodes.iter().map(|node| node.text(key).map(str::to_owned));
        words.collect()
    }

    /// The value as a string, or a list of them.
    pub fn one_or_more(&self, key: &str) -> Result<Vec<String>, FileFault> {
        match &self.content {
            FileContent::Scalar(Value::String(text)) => Ok(vec![text.clone()]),
            FileContent::List(_) => self.words(key),
            _ => Err(self.expected(key, "a string or a list of strings")),
        }
    }

    /// The value as an integer of a range.
    pub fn integer(&self, key: &str, from: i64, to: i64) -> Result<i64, FileFault> {
        let number = match &self.content {
            FileContent::Scalar(value) => value.as_i64(),
            _ => None,
        };
        let number = number.filter(|number| (from..=to).contains(number));
        number.ok_or_else(|| self.expected(key, &format!("an integer from {from} to {to}")))
    }

    /// The fault that this value is not what `key` needs.
    pub fn expected(&self, key: &str, what: &str) -> FileFault {
        FileFault::new(self.place, format!("{key}: must be {what}"))
    }
}

impl FileTable {
    /// Adds a key; a fault if the table has it already.
    pub fn add(&mut self, entry: FileEntry) -> Result<(), FileFault> {
        if let Some(first) = self.entry(&entry.key) {
            let message = format!("{}: the key is already at {}", entry.key, first.place);
            return Err(FileFault::new(entry.place, message));
        }
        self.0.push(entry);
        Ok(())
    }

    /// The keys with their values.
    pub fn entries(&self) -> impl Iterator<Item = &FileEntry> {
        self.0.iter()
    }

    /// A key with its value.
    pub fn entry(&self, key: &str) -> Option<&FileEntry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&FileNode> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The table as JSON.
    pub fn json(&self) -> Map<String, Value> {
        let entries = self.entries();
        entries
            .map(|entry| (entry.key.clone(), entry.value.json()))
            .collect()
    }

    /// Refuses every key but these; `of` says whose keys they are.
    pub fn refuse_others(&self, of: &str, known: &[&str]) -> Result<(), FileFault> {
        let mut entries = self.entries();
        let Some(other) = entries.find(|entry| !known.contains(&entry.key.as_str())) else {
            return Ok(());
        };
        Err(unknown_key(other, of, known))
    }

    /// The place of a dotted key, or of the innermost part of it that is here.
    pub fn place_of(&self, key: &str) -> Option<FilePlace> {
        let (first, rest) = match key.split_once(['.', '[']) {
            Some((first, rest)) => (first, Some(rest)),
            None => (key, None),
        };
        let entry = self.entry(first)?;
        let inner = match (&entry.value.content, rest) {
            (FileContent::Table(table), Some(rest)) => table.place_of(rest),
            _ => None,
        };
        Some(inner.unwrap_or(entry.place))
    }
}

/// The fault that a key is not one of the known ones.
pub fn unknown_key(entry: &FileEntry, of: &str, known: &[&str]) -> FileFault {
    let message = format!(
        "{}: unknown key of {of}; known keys are {}",
        entry.key,
        known.join(", ")
    );
    FileFault::new(entry.place, message)
}
