//! Shows text on a terminal through a pager. Works without one, and the user may leave it early.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use tokio::signal::unix::{SignalKind, signal};
use unicode_width::UnicodeWidthStr;

use super::screen::Screen;
use crate::cli::render::{print, shell::shell_word};

/// The pager if `PAGER` is not set.
const PAGER: &str = "less";
/// Options of `less` for lines that fit into the screen's width: it exits at once if the text fits
/// on one screen.
const LESS: &str = "-SFRX";
/// Options of `less` for longer lines: without `-F` it stays, so that the user can scroll to their
/// ends.
const LESS_WIDE: &str = "-SRX";
/// Exit codes of a shell that could not execute the program, or did not find it.
const MISSING: [i32; 2] = [126, 127];

/// Prints text to stdout, through the pager if there is a screen.
pub fn show(text: &str, screen: Option<Screen>) -> anyhow::Result<()> {
    let Some(screen) = screen else {
        return print::out(text.as_bytes());
    };
    let less = options(text, screen);
    let pager = std::env::var("PAGER").unwrap_or_else(|_| format!("{PAGER} {less}"));
    if is_pager(&pager) && page(text, &pager, less) {
        return Ok(());
    }
    print::out(text.as_bytes())
}

/// The options of `less` for this text.
fn options(text: &str, screen: Screen) -> &'static str {
    match text.lines().all(|line| line.width() <= screen.width) {
        true => LESS,
        false => LESS_WIDE,
    }
}

fn is_pager(command: &str) -> bool {
    !["", "cat"].contains(&command.trim())
}

/// Shows text in the pager; false if the pager could not be started.
fn page(text: &str, pager: &str, less: &str) -> bool {
    // While this exists, Ctrl-C does not end this process: it is for the pager.
    let _ours = signal(SignalKind::interrupt());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script(pager)).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", less);
    }
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    if let Some(mut stdin) = child.stdin.take() {
        // An error means that the user left the pager before it had read everything.
        let _ = stdin.write_all(text.as_bytes());
    }
    let ended = child.wait().ok().and_then(|status| status.code());
    !ended.is_some_and(|code| MISSING.contains(&code))
}

/// The shell's script; it exits with 127 and without a message if the program is missing.
fn script(pager: &str) -> String {
    let program = pager.split_whitespace().find(|word| !word.contains('='));
    let program = shell_word(program.unwrap_or_default());
    format!("command -v {program} >/dev/null 2>&1 || exit 127\n{pager}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pager_is_there_or_missing() {
        let page = |text: &str, pager: &str| page(text, pager, LESS);
        assert!(page("x\n", "cat >/dev/null"));
        assert!(page("x\n", "A=b cat >/dev/null"));
        assert!(!page("x\n", "no-such-pager --really"));
        assert!(!page("x\n", "/dev/null"));
        let long = "x\n".repeat(1 << 20);
        assert!(page(&long, "true"), "one that reads nothing is no error");
    }

    #[test]
    fn less_stays_where_lines_are_longer_than_the_screen() {
        let screen = Screen { width: 4 };
        assert_eq!(options("ab\ncd\n", screen), LESS);
        assert_eq!(options("ab\nefghi\n", screen), LESS_WIDE);
    }

    #[test]
    fn cat_and_nothing_are_none() {
        assert!(!is_pager("") && !is_pager(" cat ") && is_pager("less"));
    }
}
