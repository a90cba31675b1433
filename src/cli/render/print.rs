//! What the command line itself says: lines on stderr, results on stdout.
//!
//! Writing never panics. A closed stdout is an error of its own kind, so that `ls | head` ends as
//! quietly as any other program.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::escape;

/// Nobody reads stdout any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub struct ReaderLeft;

/// A line on stderr, with our name before it.
pub fn line(text: &str) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "cc-executor: {}", escape::visible(text));
}

/// The same, but only where a person looks: stderr is a terminal.
pub fn line_on_terminal(text: &str) {
    if stderr_is_terminal() {
        line(text);
    }
}

/// Whether stderr is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Bytes on stdout as they are, at once: a job's own, or a page with colours whose parts were made
/// harmless one by one.
pub fn out(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderLeft.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
    }
}

/// A page for people on stdout: its line ends stay, and nothing else in it acts on a terminal.
pub fn page(text: &str) -> anyhow::Result<()> {
    out(escape::visible_lines(text).as_bytes())
}

/// JSON on stdout, one line.
pub fn json(value: &Value) -> anyhow::Result<()> {
    let mut text = escape::visible_json(&value.to_string());
    text.push('\n');
    out(text.as_bytes())
}

/// When colours are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Options of verbs that print for people or for programs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PrintOptions {
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colours.
    #[arg(
        long,
        value_enum,
        global = true,
        value_name = "WHEN",
        default_value_t,
        env = "CC_EXECUTOR_COLOR"
    )]
    pub color: Color,
}

impl PrintOptions {
    /// Paints text that goes to stdout in the colour of a job's state.
    pub fn paint(&self, state: &str, text: &str) -> String {
        let code = match state {
            "succeeded" => "32",
            "failed" => "31",
            "cancelled" => "35",
            "running" => "36",
            "paused" => "33",
            _ => return text.to_owned(),
        };
        if self.in_color() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn in_color(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                !unwanted && io::stdout().is_terminal()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_can_be_forced_and_forbidden() {
        let look = |color| PrintOptions { json: false, color };
        assert_eq!(look(Color::Never).paint("failed", "x"), "x");
        assert_eq!(look(Color::Always).paint("failed", "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(look(Color::Always).paint("queued", "x"), "x");
    }
}
