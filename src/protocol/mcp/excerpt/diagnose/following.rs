//! Which of the next lines belong to a diagnostic that has begun.

use super::{
    recognize,
    rules::{Following, Rule},
};

/// Whether a line belongs to the diagnostic before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    Yes,
    /// It does, and it is one of those that matter most.
    Mainly,
    /// If one of the next lines does; a blank line.
    Perhaps,
    No,
}

/// How far a diagnostic has come.
#[derive(Debug)]
pub(super) struct DiagnosticProgress {
    following: Following,
    /// The indentation of its first line.
    indent: usize,
    /// How many lines belong to it, without the first one.
    lines: usize,
    /// Blank lines since the last one that belongs to it.
    blanks: usize,
    /// The first two words, where they are what the lines have in common.
    prefix: String,
    stage: Stage,
}

/// Where in a traceback, or after an assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Frames, or the lines of the assertion.
    Frames,
    /// The exception, or the place of the assertion.
    Reason,
    /// It says that this exception was raised from the one above.
    Chained,
}

/// How many lines after an exception can belong to its message.
const MESSAGE_LINES_MAX: usize = 2;

/// Most lines of a diagnostic that has no end of its own.
const LINES_MAX: usize = 40;
/// Most lines of one with frames.
const FRAME_LINES_MAX: usize = 400;

impl DiagnosticProgress {
    pub(super) fn new(rule: &Rule, body: &str) -> Self {
        Self {
            following: rule.following,
            indent: indent(body),
            lines: 0,
            blanks: 0,
            prefix: match rule.following {
                Following::SamePrefix => body.split(' ').take(2).collect::<Vec<_>>().join(" "),
                _ => String::new(),
            },
            stage: Stage::Frames,
        }
    }

    /// Whether the next line belongs to it, by its text without what merges outputs.
    pub(super) fn next(&mut self, body: &str) -> Belongs {
        let lines_max = match self.following {
            Following::Traceback | Following::Frames => FRAME_LINES_MAX,
            _ => LINES_MAX,
        };
        if self.lines >= lines_max {
            return Belongs::No;
        }
        let belongs = match body.trim().is_empty() {
            true => self.blank(),
            false => self.text(body),
        };
        match belongs {
            Belongs::Yes | Belongs::Mainly => {
                self.lines += 1;
                self.blanks = 0;
            }
            Belongs::Perhaps => self.blanks += 1,
            Belongs::No => {}
        }
        belongs
    }

    fn blank(&self) -> Belongs {
        let blanks_max = match self.following {
            Following::SpacedSnippet => usize::from(self.lines == 0),
            Following::Deeper => 2,
            Following::Traceback if self.stage != Stage::Frames => 1,
            Following::Assertion if self.stage == Stage::Frames => 1,
            Following::Gradle | Following::Goroutine => 1,
            _ => 0,
        };
        match self.blanks < blanks_max {
            true => Belongs::Perhaps,
            false => Belongs::No,
        }
    }

    fn text(&mut self, body: &str) -> Belongs {
        let belongs = match self.following {
            Following::Nothing => false,
            Following::Snippet => is_snippet(body),
            Following::Statement => self.lines == 0 || indent(body) > 0,
            Following::SpacedSnippet => {
                self.lines + self.blanks > 0
                    && body.starts_with(|c: char| c.is_ascii_digit() || c == ' ')
            }
            Following::Paragraph => {
                !body.starts_with("note: run with") && !body.starts_with("stack backtrace:")
            }
            Following::Deeper => indent(body) > self.indent,
            Following::Traceback => return self.traceback(body),
            Following::Frames if body.trim_start().starts_with("Caused by: ") => {
                return Belongs::Mainly;
            }
            Following::Frames => is_frame(body),
            Following::Assertion => return self.assertion(body),
            Following::SamePrefix => body.starts_with(&self.prefix),
            Following::Maven => body.starts_with("[ERROR]  "),
            Following::Gradle => !body.starts_with("* Try"),
            Following::Goroutine => is_goroutine(body),
        };
        yes(belongs)
    }

    fn traceback(&mut self, body: &str) -> Belongs {
        let is_deeper = indent(body) > self.indent || body.trim_start().starts_with('|');
        let begins = body.contains("Traceback (most recent call last):");
        match self.stage {
            Stage::Frames if is_deeper => Belongs::Yes,
            Stage::Frames => {
                self.stage = Stage::Reason;
                self.lines = 0;
                Belongs::Mainly
            }
            Stage::Reason if is_chain(body) => {
                self.stage = Stage::Chained;
                Belongs::Yes
            }
            Stage::Reason => yes(self.blanks == 0
                && self.lines <= MESSAGE_LINES_MAX
                && !recognize::is_known(body)),
            Stage::Chained => {
                self.stage = Stage::Frames;
                yes(begins)
            }
        }
    }

    fn assertion(&mut self, body: &str) -> Belongs {
        match self.stage {
            Stage::Frames if self.blanks == 0 => yes(body == "E" || body.starts_with("E ")),
            Stage::Frames => {
                self.stage = Stage::Reason;
                yes(is_place(body))
            }
            _ => Belongs::No,
        }
    }
}

fn yes(belongs: bool) -> Belongs {
    match belongs {
        true => Belongs::Yes,
        false => Belongs::No,
    }
}

/// How many spaces and tabs a line begins with.
pub(super) fn indent(body: &str) -> usize {
    body.bytes()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count()
}

/// Whether a line shows source, or explains the error above it.
fn is_snippet(body: &str) -> bool {
    let unnumbered = body.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_numbered =
        unnumbered.len() < body.len() && unnumbered.trim_start().starts_with(['|', '-', '+', '~']);
    is_numbered
        || body.starts_with([' ', '\t'])
        || ["note: ", "help: ", "..."]
            .iter()
            .any(|begin| body.starts_with(begin))
        || body.contains(": note: ")
}

/// Whether a line is a frame of a stack.
fn is_frame(body: &str) -> bool {
    body.starts_with([' ', '\t'])
        || ["Suppressed: ", "... "]
            .iter()
            .any(|begin| body.starts_with(begin))
}

fn is_goroutine(body: &str) -> bool {
    body.starts_with("goroutine ")
        || body.starts_with("[signal ")
        || body.starts_with('\t')
        || (body.ends_with(')') && body.contains('('))
}

fn is_chain(body: &str) -> bool {
    let body = body.trim_start();
    body.starts_with("During handling of the above exception")
        || body.starts_with("The above exception was the direct cause")
}

/// Whether a line names a file and a line: `test_x.py:7: AssertionError`.
fn is_place(body: &str) -> bool {
    let mut parts = body.splitn(3, ':');
    let (file, line) = (parts.next(), parts.next());
    let is_number = line.is_some_and(|line| line.parse::<u32>().is_ok());
    is_number && file.is_some_and(|file| !file.is_empty() && !file.contains(' '))
}
