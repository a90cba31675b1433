//! The ways in which rows are printed, and the screen that they are printed for.

use std::io::IsTerminal;

use super::{answer::Answer, csv, json, table};

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

/// The terminal that stdout is.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// How wide it is, columns.
    pub width: usize,
}

/// How wide a terminal is that does not tell, columns.
const WIDTH_UNTOLD: usize = 80;

impl Screen {
    /// The terminal, where stdout is one.
    pub fn of_stdout() -> Option<Self> {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return None;
        }
        let told = rustix::termios::tcgetwinsize(stdout).ok();
        let width = told.map_or(0, |size| usize::from(size.ws_col));
        Some(Self {
            width: if width > 0 { width } else { WIDTH_UNTOLD },
        })
    }
}

impl Format {
    /// The rows as text, which may end without a newline only where it is empty. What goes to a
    /// screen has no character in it that a terminal acts on.
    pub fn text(self, answer: &Answer, screen: Option<Screen>) -> String {
        match self {
            Self::Table => table::text(answer, screen),
            Self::Json => json::text(answer),
            Self::Csv => csv::text(answer, screen.is_some()),
        }
    }
}
