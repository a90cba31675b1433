//! The formats in which `sql` prints rows.

use super::{csv, json, result::QueryResult, screen::Screen, table};

/// A format of rows.
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
    /// The rows as text, empty or with a newline at the end. For a screen, control characters are
    /// escaped.
    pub fn text(self, result: &QueryResult, screen: Option<Screen>) -> String {
        match self {
            Self::Table => table::text(result, screen),
            Self::Json => json::text(result),
            Self::Csv => csv::text(result, screen.is_some()),
        }
    }
}
