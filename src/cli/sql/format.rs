//! The ways in which rows are printed, for a screen or without one.

use super::{answer::QueryResult, csv, json, screen::Screen, table};

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
    pub fn text(self, answer: &QueryResult, screen: Option<Screen>) -> String {
        match self {
            Self::Table => table::text(answer, screen),
            Self::Json => json::text(answer),
            Self::Csv => csv::text(answer, screen.is_some()),
        }
    }
}
