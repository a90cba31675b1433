//! What clap says about a command line: help as it is, and errors with what they quote made harmless
//! for a terminal.
//!
//! What the words mean is the verbs' business.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::escape;

/// Prints why a command line is not taken, or the help that it asks for; the exit code.
pub fn print(refused: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(refused.exit_code()).unwrap_or(2));
    // Where nobody reads it there is nobody to tell.
    let _ = match harmless(&refused.to_string()) {
        // Nothing is in it but our own words: in clap's colours.
        None => refused.print(),
        Some(text) => io::stderr().write_all(text.as_bytes()),
    };
    code
}

/// The text with escapes, where it needs some.
fn harmless(text: &str) -> Option<String> {
    let shown = escape::visible_lines(text);
    (shown != text).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_act_is_changed() {
        assert_eq!(harmless("error: x\n\nUsage: y\n"), None);
        assert_eq!(
            harmless("'--\x1b[2J\u{200f}'\n").as_deref(),
            Some("'--\\x1b[2J\\u{200f}'\n")
        );
    }
}
