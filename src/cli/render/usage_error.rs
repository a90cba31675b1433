//! Prints clap's help and errors. Errors quote the command line, so control characters in them are
//! escaped.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use super::print::is_in_color;
use crate::{escape, sys::waiting_io::WaitingIo};

/// Prints why a command line is wrong, or the help that it asks for; returns the exit code.
pub fn print(refused: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(refused.exit_code()).unwrap_or(2));
    let styled = refused.render();
    let plain = styled.to_string();
    let text = |is_terminal| match harmless(&plain) {
        Some(text) => text,
        None if is_in_color(is_terminal) => styled.ansi().to_string(),
        None => plain.clone(),
    };
    let (stdout, stderr) = (io::stdout(), io::stderr());
    // If it cannot be written, there is no place for the error.
    let _ = match refused.use_stderr() {
        true => WaitingIo(&stderr).write_all(text(stderr.is_terminal()).as_bytes()),
        false => WaitingIo(&stdout).write_all(text(stdout.is_terminal()).as_bytes()),
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
