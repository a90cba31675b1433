//! Shows text on a terminal through a pager, which may be missing and may be left early.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{escape::shell_word, say};

/// The pager where `PAGER` names none: cuts long lines, leaves where all fits on the screen.
const PAGER: &str = "less -SFRX";
/// What `less` does where the person has not said it.
const LESS: &str = "SFRX";
/// Exit codes of a shell that found no such program, or none that can be executed.
const MISSING: [i32; 2] = [126, 127];

/// Prints text to stdout, through the pager where `paged`.
pub fn show(text: &str, paged: bool) -> anyhow::Result<()> {
    let pager = std::env::var("PAGER").unwrap_or_else(|_| PAGER.to_owned());
    if paged && is_pager(&pager) && page(text, &pager) {
        return Ok(());
    }
    say::out(text.as_bytes())
}

fn is_pager(command: &str) -> bool {
    !["", "cat"].contains(&command.trim())
}

/// Whether the pager was there.
fn page(text: &str, pager: &str) -> bool {
    // Ctrl-C belongs to the pager as long as it runs.
    let _ours = signal(SignalKind::interrupt());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script(pager)).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS);
    }
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    if let Some(mut stdin) = child.stdin.take() {
        // It may be left before it has read everything.
        let _ = stdin.write_all(text.as_bytes());
    }
    let ended = child.wait().ok().and_then(|status| status.code());
    !ended.is_some_and(|code| MISSING.contains(&code))
}

/// What the shell is told; it says nothing where the program is missing.
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
        assert!(page("x\n", "cat >/dev/null"));
        assert!(page("x\n", "A=b cat >/dev/null"));
        assert!(!page("x\n", "no-such-pager --really"));
        assert!(!page("x\n", "/dev/null"));
        let long = "x\n".repeat(1 << 20);
        assert!(page(&long, "true"), "one that reads nothing is no error");
    }

    #[test]
    fn cat_and_nothing_are_none() {
        assert!(!is_pager("") && !is_pager(" cat ") && is_pager("less"));
    }
}
