//! The line editor of the prompt: several lines, completion, history. It decides when a text is
//! complete; `prompt` runs it.

use std::path::PathBuf;

use rustyline::{
    CompletionType, Config, Context, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{command, complete, history, names::QueryNames, statement};
use crate::cli::render::print;

/// Printed before the cursor.
const PROMPT: &str = "sql> ";

/// What the user did.
#[derive(Debug, PartialEq, Eq)]
pub enum EditorLine {
    /// Entered this complete text.
    Typed(String),
    /// Cleared the line (Ctrl-C).
    Cleared,
    /// Left (Ctrl-D).
    Left,
}

/// Reads what is typed; blocks the calling thread.
pub struct Editor {
    inner: rustyline::Editor<SqlHelper, FileHistory>,
    history: Option<PathBuf>,
}

impl Editor {
    /// An editor that completes these names, and keeps its history in this file; `None`: in memory.
    pub fn new(names: QueryNames, history: Option<PathBuf>) -> anyhow::Result<Self> {
        let config = Config::builder()
            .max_history_size(history::ENTRIES_MAX)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let kept = FileHistory::with_config(&config);
        let mut inner = rustyline::Editor::with_history(config, kept)?;
        inner.set_helper(Some(SqlHelper(names)));
        if let Some(path) = history.as_ref().filter(|path| path.is_file())
            && let Err(error) = inner.load_history(path)
        {
            print::line(&format!("{} cannot be read: {error}", path.display()));
        }
        Ok(Self { inner, history })
    }

    /// Waits for the next input.
    pub fn read(&mut self) -> anyhow::Result<EditorLine> {
        match self.inner.readline(PROMPT) {
            Ok(text) => {
                self.add_to_history(&text);
                Ok(EditorLine::Typed(text))
            }
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => Ok(EditorLine::Cleared),
            Err(ReadlineError::Eof) => Ok(EditorLine::Left),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a text to the history and its file, at once, so that it survives a kill.
    fn add_to_history(&mut self, text: &str) {
        if text.trim().is_empty() || text.len() > history::ENTRY_BYTES_MAX {
            return;
        }
        let added = self.inner.add_history_entry(text);
        let Some(path) = &self.history else { return };
        if let Err(error) = added.and_then(|_| self.inner.append_history(path)) {
            print::line(&format!("{} cannot be written: {error}", path.display()));
            // Print it once: the prompt works without the file.
            self.history = None;
        }
    }
}

/// Completion and the check for completeness, for rustyline.
struct SqlHelper(QueryNames);

impl Helper for SqlHelper {}
impl Highlighter for SqlHelper {}

impl Hinter for SqlHelper {
    type Hint = String;
}

impl Completer for SqlHelper {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete::complete(line, cursor, &self.0))
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

fn is_complete(text: &str) -> bool {
    command::is_command(text) || statement::cut(text).is_complete()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_wait_for_their_end_and_commands_do_not() {
        for text in ["", "a;", "\\d", "\\x y", "quit", "a;\nb;"] {
            assert!(is_complete(text), "{text}");
        }
        for text in ["a", "a;\nb", "a ';"] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
