//! Prints lines on stderr and results on stdout. Writing never panics. A closed stdout is an error
//! of its own type, so that `ls | head` ends without a message.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal, Write},
};

use clap::{
    Arg, Command, ValueEnum,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
};
use serde_json::Value;

use crate::{escape, sys::waiting_io::WaitingIo};

/// The reader of stdout has left.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output has left")]
pub struct ReaderLeft;

/// Prints a line on stderr, with our name before it.
pub fn line(text: &str) {
    let line = format!("cc-executor: {}\n", escape::visible(text));
    // If stderr is closed, there is no place for the error.
    let _ = WaitingIo(io::stderr()).write_all(line.as_bytes());
}

/// The same, but only if stderr is a terminal.
pub fn line_on_terminal(text: &str) {
    if stderr_is_terminal() {
        line(text);
    }
}

/// An error with its causes. Some name their cause themselves: that is not said twice.
pub fn chain(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.ends_with(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// Whether stderr is a terminal.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Writes bytes to stdout as they are, without a buffer: a job's output, or a page with colours whose
/// parts were escaped one by one.
pub fn out(text: &[u8]) -> anyhow::Result<()> {
    match WaitingIo(io::stdout()).write_all(text) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderLeft.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
    }
}

/// Prints text on stdout. Control characters other than newlines are escaped.
pub fn page(text: &str) -> anyhow::Result<()> {
    out(escape::visible_lines(text).as_bytes())
}

/// Prints JSON on stdout, as one line.
pub fn json(value: &Value) -> anyhow::Result<()> {
    let mut text = escape::visible_json(&value.to_string());
    text.push('\n');
    out(text.as_bytes())
}

/// When to use colours.
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

/// Reads a [`Color`]. An empty variable counts as unset.
#[derive(Debug, Clone)]
struct ColorParser;

impl TypedValueParser for ColorParser {
    type Value = Color;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Color, clap::Error> {
        match value.is_empty() {
            true => Ok(Color::Auto),
            false => EnumValueParser::<Color>::new().parse_ref(command, arg, value),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = Color::value_variants().iter();
        Some(Box::new(values.filter_map(Color::to_possible_value)))
    }
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
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        value_parser = ColorParser,
        env = "CC_EXECUTOR_COLOR"
    )]
    pub color: Color,
}

impl PrintOptions {
    /// The text in the colour of a job's state, if colours are used on stdout.
    pub fn paint(&self, state: &str, text: &str) -> String {
        let code = match state {
            "succeeded" => "32",
            "failed" => "31",
            "cancelled" => "35",
            "running" => "36",
            "paused" => "33",
            _ => return text.to_owned(),
        };
        self.color(code, text)
    }

    /// The text in the colour with this code (of the sequence SGR), if colours are used on stdout.
    pub fn color(&self, code: &str, text: &str) -> String {
        if self.in_color() && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn in_color(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_in_color(io::stdout().is_terminal()),
        }
    }
}

/// Whether colours are used by default: on a terminal, unless NO_COLOR is set.
pub fn is_in_color(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_said_twice() {
        let cause = || anyhow::anyhow!("no room");
        assert_eq!(
            chain(&cause().context("cannot write")),
            "cannot write: no room"
        );
        let told = cause()
            .context("cannot write: no room")
            .context("cannot start");
        assert_eq!(chain(&told), "cannot start: cannot write: no room");
    }

    #[test]
    fn colours_can_be_forced_and_forbidden() {
        let look = |color| PrintOptions { json: false, color };
        assert_eq!(look(Color::Never).paint("failed", "x"), "x");
        assert_eq!(look(Color::Always).paint("failed", "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(look(Color::Always).paint("queued", "x"), "x");
    }
}
