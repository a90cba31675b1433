//! Goes through lines and keeps the diagnostics among them.

use super::{
    diagnostic::Diagnostics,
    open::OpenDiagnostic,
    recognize,
    rules::{Rule, Severity},
};
use crate::protocol::mcp::excerpt::clean_line::CleanLine;

/// Finds the diagnostics of lines that come one after the other.
#[derive(Debug, Default)]
pub(in crate::protocol::mcp::excerpt) struct Collector<'a> {
    found: Diagnostics,
    open: Option<OpenDiagnostic>,
    /// A line without which the next diagnostic is not understood, and how many lines ago it was.
    before: Option<(CleanLine<'a>, usize)>,
    /// Whether mocha has begun to list what failed.
    is_list: bool,
}

/// Mocha's list of failures: `  1) name`.
static LISTED: Rule = Rule {
    pattern: "",
    severity: Some(Severity::Error),
    following: super::rules::Following::Deeper,
};

/// How many lines before a diagnostic the line can be that explains it.
const BEFORE_LINES_MAX: usize = 2;

impl<'a> Collector<'a> {
    /// The next line. Whether it is part of a diagnostic.
    pub(in crate::protocol::mcp::excerpt) fn push(&mut self, line: &CleanLine<'a>) -> bool {
        if let Some(open) = &mut self.open {
            if open.push(line) {
                return true;
            }
            self.close();
        }
        let body = recognize::body(&line.text);
        let Some((rule, severity)) = self.rule(body) else {
            self.remember(line, body);
            return false;
        };
        let before = self.before.take().map(|(line, _)| line);
        let before = before
            .as_ref()
            .filter(|before| explains(recognize::body(&before.text), body));
        self.open = Some(OpenDiagnostic::new(rule, severity, line, before));
        true
    }

    fn rule(&mut self, body: &str) -> Option<(&'static Rule, Severity)> {
        let trimmed = body.trim_start();
        if trimmed.is_empty() {
            return None;
        }
        if self.is_list && trimmed.len() < body.len() {
            let rest = trimmed.trim_start_matches(|c: char| c.is_ascii_digit());
            if rest.len() < trimmed.len() && rest.starts_with(") ") {
                return Some((&LISTED, Severity::Error));
            }
        }
        if let Some(rest) = trimmed.strip_suffix(" failing") {
            self.is_list = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        }
        let rule = recognize::rule(body)?;
        Some((rule, rule.severity?))
    }

    /// Keeps a line that the next diagnostic may need.
    fn remember(&mut self, line: &CleanLine<'a>, body: &str) {
        if is_statement(body) || is_file(body) || is_function(body) {
            self.before = Some((line.clone(), 0));
        } else if let Some((_, lines)) = &mut self.before {
            *lines += 1;
            if *lines >= BEFORE_LINES_MAX {
                self.before = None;
            }
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.found.add(open.close());
        }
    }

    /// Something follows that is no line.
    pub(in crate::protocol::mcp::excerpt) fn interrupt(&mut self) {
        self.close();
        self.before = None;
    }

    /// What was found.
    pub(in crate::protocol::mcp::excerpt) fn finish(mut self) -> Diagnostics {
        self.close();
        self.found
    }
}

/// A statement of Python, as pytest shows it.
fn is_statement(body: &str) -> bool {
    body.starts_with("> ")
}

/// A file whose errors ESLint lists.
fn is_file(body: &str) -> bool {
    body.starts_with('/') && !body.contains(' ')
}

/// A function whose undefined references the linker lists.
fn is_function(body: &str) -> bool {
    body.contains(": in function ")
}

/// Whether a diagnostic needs the line before it.
fn explains(before: &str, body: &str) -> bool {
    (is_statement(before) && body.starts_with("E "))
        || (is_file(before) && body.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        || (is_function(before) && body.contains("undefined reference"))
}
