//! Prints clap's help and errors. Errors quote the command line, so control characters in them are
//! escaped.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::escape;

/// Prints why a command line is wrong, or the help that it asks for; returns the exit code.
pub fn print(refused: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(refused.exit_code()).unwrap_or(2));
    // If it cannot be written, there is no place for the error.
    let _ = match harmless(&refused.to_string()) {
        // Nothing to escape: clap prints it, with colours.
        None => refused.print(),
        Some(text) => io::stderr().write_all(text.as_bytes()),
    };
    code
}

/// The text with escapes; `None` if it needs none.
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
