//! A diagnostic whose lines are still coming.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
};

use super::{
    diagnostic::Diagnostic,
    following::{Belongs, DiagnosticProgress},
    recognize,
    rules::{Rule, Severity},
};
use crate::protocol::mcp::excerpt::{
    clean_line::CleanLine,
    notes::{self, counted},
    rows::TextRow,
};

/// How many lines of a diagnostic are kept from its beginning, and from its end: the end of a traceback
/// and the last cause matter most.
const LINES_KEPT: (usize, usize) = (8, 4);

/// How many of the lines between them are kept because they matter most, such as exceptions from which
/// the last one was raised.
const MAIN_LINES_KEPT: usize = 4;

/// Longest line of a diagnostic, characters; a longer one is cut in its middle.
const LINE_CHARS_MAX: usize = 300;

#[derive(Debug)]
pub(super) struct OpenDiagnostic {
    severity: Severity,
    number: Option<u64>,
    range: Range<u64>,
    progress: DiagnosticProgress,
    first: Vec<TextRow>,
    /// Each with whether it matters most.
    last: VecDeque<(TextRow, bool)>,
    /// Lines between the first and the last ones.
    between: u64,
    between_range: Range<u64>,
    /// Those of them that matter most.
    main: Vec<TextRow>,
    /// Blank lines that count only if another line follows.
    blanks: Vec<TextRow>,
    /// Of the texts of all lines.
    hasher: DefaultHasher,
}

impl OpenDiagnostic {
    /// Begins with a line; `before` is a line before it without which it is not understood.
    pub(super) fn new(
        rule: &Rule,
        severity: Severity,
        line: &CleanLine<'_>,
        before: Option<&CleanLine<'_>>,
    ) -> Self {
        let begin = before.unwrap_or(line);
        let mut open = Self {
            severity,
            number: begin.number,
            range: begin.from..line.to,
            progress: DiagnosticProgress::new(rule, recognize::body(&line.text)),
            first: Vec::new(),
            last: VecDeque::new(),
            between: 0,
            between_range: 0..0,
            main: Vec::new(),
            blanks: Vec::new(),
            hasher: DefaultHasher::new(),
        };
        if let Some(before) = before {
            open.add(row(before), false);
        }
        open.add(row(line), false);
        open
    }

    /// The next line of the output; whether it belongs to the diagnostic, or may do so.
    pub(super) fn push(&mut self, line: &CleanLine<'_>) -> bool {
        let belongs = self.progress.next(recognize::body(&line.text));
        match belongs {
            Belongs::Yes | Belongs::Mainly => {
                for blank in std::mem::take(&mut self.blanks) {
                    self.add(blank, false);
                }
                self.add(row(line), belongs == Belongs::Mainly);
            }
            Belongs::Perhaps => self.blanks.push(row(line)),
            Belongs::No => {}
        }
        belongs != Belongs::No
    }

    fn add(&mut self, row: TextRow, is_main: bool) {
        row.text.hash(&mut self.hasher);
        self.range.end = self.range.end.max(row.range.end);
        if self.first.len() < LINES_KEPT.0 {
            return self.first.push(row);
        }
        self.last.push_back((row, is_main));
        if self.last.len() <= LINES_KEPT.1 {
            return;
        }
        if let Some((row, is_main)) = self.last.pop_front() {
            if self.between == 0 {
                self.between_range.start = row.range.start;
            }
            self.between += 1;
            self.between_range.end = row.range.end;
            if is_main && self.main.len() < MAIN_LINES_KEPT {
                self.main.push(row);
            }
        }
    }

    /// The diagnostic as it is.
    pub(super) fn close(self) -> Diagnostic {
        let note = (self.between > 0).then(|| {
            let lines = counted(self.between, "line");
            let range = notes::range(&self.between_range);
            let among = if self.main.is_empty() {
                ""
            } else {
                ", among them:"
            };
            format!("[… {lines} omitted, bytes {range}{among}]")
        });
        let first = self.first.into_iter().map(|row| row.text);
        let main = self.main.into_iter().map(|row| row.text);
        let last = self.last.into_iter().map(|(row, _)| row.text);
        Diagnostic {
            severity: self.severity,
            number: self.number,
            from: self.range.start,
            to: self.range.end,
            text: first.chain(note).chain(main).chain(last).collect(),
            times: 1,
            key: self.hasher.finish(),
        }
    }
}

fn row(line: &CleanLine<'_>) -> TextRow {
    TextRow::of_line(line, LINE_CHARS_MAX)
}
