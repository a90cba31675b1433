//! The ways in which rows are printed, for a screen or without one.

use super::{csv, json, result::QueryResult, screen::Screen, table};

/// How rows are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns below a headline; long values are cut on a terminal.
    #[default]
    Table,
    /// One array of objects.
    Json,
    /// Comma-separated values (RFC 4180, with LF), a headline first.
    Csv,
}

impl Format {
    /// The rows as text, which may end without a newline only where it is empty. What goes to a
    /// screen has no character in it that a terminal acts on.
    pub fn text(self, result: &QueryResult, screen: Option<Screen>) -> String {
        match self {
            Self::Table => table::text(result, screen),
            Self::Json => json::text(result),
            Self::Csv => csv::text(result, screen.is_some()),
        }
    }
}
