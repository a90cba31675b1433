//! Values of a TOML file with their lines, so that a mistake is told with its place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong in a policy's text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PolicyMistake {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// The text that is read.
#[derive(Debug, Clone, Copy)]
pub struct TomlText<'a>(pub &'a str);

impl TomlText<'_> {
    /// The line of a place in the text.
    pub fn line(self, span: &Range<usize>) -> usize {
        let before = self.0.get(..span.start).unwrap_or(self.0);
        before.matches('\n').count() + 1
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub struct TomlNode<'a> {
    text: TomlText<'a>,
    value: &'a Spanned<DeValue<'a>>,
    /// Its keys, such as `args[0].any`.
    at: String,
}

impl<'a> TomlNode<'a> {
    /// The value of a table's key.
    fn new(text: TomlText<'a>, value: &'a Spanned<DeValue<'a>>, at: String) -> Self {
        Self { text, value, at }
    }

    /// Its line.
    pub fn line(&self) -> usize {
        self.text.line(&self.value.span())
    }

    /// A mistake here.
    pub fn wrong(&self, message: impl std::fmt::Display) -> PolicyMistake {
        PolicyMistake {
            line: self.line(),
            message: format!("{}: {message}", self.at),
        }
    }

    fn expected(&self, what: &str) -> PolicyMistake {
        let found = self.value.get_ref().type_str();
        self.wrong(format!("must be {what}, and is of the type {found}"))
    }

    /// A text.
    pub fn string(&self) -> Result<&'a str, PolicyMistake> {
        let text = self.value.get_ref().as_str();
        text.ok_or_else(|| self.expected("a string"))
    }

    /// Whether it is a text.
    pub fn is_string(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// Whether it is a list.
    pub fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// A truth value.
    pub fn boolean(&self) -> Result<bool, PolicyMistake> {
        let value = self.value.get_ref().as_bool();
        value.ok_or_else(|| self.expected("true or false"))
    }

    /// A whole number.
    pub fn integer(&self) -> Result<i64, PolicyMistake> {
        let integer = self.value.get_ref().as_integer();
        let integer =
            integer.and_then(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).ok());
        integer.ok_or_else(|| self.expected("a whole number"))
    }

    /// A number above 0.
    pub fn positive(&self) -> Result<f64, PolicyMistake> {
        let number = match self.value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(_) => self.integer().ok().map(|integer| integer as f64),
            _ => None,
        };
        let number = number.filter(|number: &f64| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| self.expected("a number above 0"))
    }

    /// The elements of a list.
    pub fn list(&self) -> Result<Vec<Self>, PolicyMistake> {
        let list = self.value.get_ref().as_array();
        let list = list.ok_or_else(|| self.expected("a list"))?;
        let nodes = list.iter().enumerate();
        Ok(nodes
            .map(|(index, value)| Self::new(self.text, value, format!("{}[{index}]", self.at)))
            .collect())
    }

    /// A list of texts that is not empty; one text alone is a list of one.
    pub fn strings(&self) -> Result<Vec<(Self, &'a str)>, PolicyMistake> {
        if self.is_string() {
            return Ok(vec![(self.clone(), self.string()?)]);
        }
        let nodes = self.list()?.into_iter();
        nodes
            .map(|node| Ok((node.clone(), node.string()?)))
            .collect()
    }

    /// A table with these keys alone.
    pub fn table(&self, known: &[&str]) -> Result<TomlTable<'a>, PolicyMistake> {
        let table = self.value.get_ref().as_table();
        let table = table.ok_or_else(|| self.expected("a table"))?;
        let line = self.line();
        TomlTable::new(self.text, table, line, format!("{}.", self.at), known)
    }
}

/// A table and its place.
#[derive(Debug, Clone)]
pub struct TomlTable<'a> {
    text: TomlText<'a>,
    table: &'a DeTable<'a>,
    /// The line at which it begins.
    pub line: usize,
    at: String,
}

impl<'a> TomlTable<'a> {
    /// A table at this line, with these keys alone. `at` is what its keys are named after.
    pub fn new(
        text: TomlText<'a>,
        table: &'a DeTable<'a>,
        line: usize,
        at: String,
        known: &[&str],
    ) -> Result<Self, PolicyMistake> {
        let unknown = table
            .keys()
            .find(|key| !known.contains(&key.get_ref().as_ref()));
        match unknown {
            None => Ok(Self {
                text,
                table,
                line,
                at,
            }),
            Some(key) => Err(PolicyMistake {
                line: text.line(&key.span()),
                message: format!(
                    "{at}{}: unknown key; known keys are {}",
                    key.get_ref(),
                    known.join(", ")
                ),
            }),
        }
    }

    /// The value of a key, if it is there.
    pub fn get(&self, key: &str) -> Option<TomlNode<'a>> {
        let (_, value) = self
            .table
            .iter()
            .find(|(known, _)| known.get_ref() == key)?;
        Some(TomlNode::new(self.text, value, format!("{}{key}", self.at)))
    }

    /// A mistake about a key that is missing, or about the table.
    pub fn wrong(&self, key: &str, message: impl std::fmt::Display) -> PolicyMistake {
        PolicyMistake {
            line: self.line,
            message: format!("{}{key}: {message}", self.at),
        }
    }

    /// The same table, with another name in mistakes.
    pub fn named(mut self, at: String) -> Self {
        self.at = at;
        self
    }
}
