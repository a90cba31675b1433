//! What is shown of folded entries: rows of text, each with the bytes for which it stands.

use std::ops::Range;

use super::{
    clean_line::{CleanLine, Redrawn},
    fold::Folded,
    notes::{self, counted},
};

/// A row of a text for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextRow {
    /// One line without a newline.
    pub(super) text: String,
    /// The bytes that it shows or names. Rows that were drawn together have the range of all.
    pub(super) range: Range<u64>,
    /// For how many lines of the output it stands.
    pub(super) lines: u64,
    /// Its characters, with the newline that ends it.
    pub(super) chars: usize,
    /// Whether it says something about the row before it.
    pub(super) is_remark: bool,
}

impl TextRow {
    fn new(text: String, range: Range<u64>, lines: u64) -> Self {
        Self {
            chars: text.chars().count() + 1,
            text,
            range,
            lines,
            is_remark: false,
        }
    }

    /// A line, cut in its middle if it is longer.
    pub(super) fn of_line(line: &CleanLine<'_>, chars_max: usize) -> Self {
        Self::new(line.shortened(chars_max), line.from..line.to, 1)
    }
}

/// How many rows an entry has.
pub(super) fn count(folded: &Folded<'_>) -> usize {
    match folded {
        Folded::Line(_) | Folded::Absent(..) => 1,
        Folded::Repeated { .. } => 2,
        Folded::Similar { first, last, .. } => first.len() + 1 + last.len(),
        Folded::Redrawn(rows) => rows.lines.len() + 1,
    }
}

/// For how many lines of the output an entry stands.
pub(super) fn lines(folded: &Folded<'_>) -> u64 {
    match folded {
        Folded::Line(_) => 1,
        Folded::Absent(..) => 0,
        Folded::Repeated { times, .. } => 1 + times,
        Folded::Similar {
            first, lines, last, ..
        } => (first.len() + last.len()) as u64 + lines,
        Folded::Redrawn(rows) => rows.lines.len() as u64,
    }
}

/// The rows of an entry. Lines longer than `chars_max` are cut in their middle.
pub(super) fn of(folded: &Folded<'_>, chars_max: usize) -> Vec<TextRow> {
    let line = |line: &CleanLine<'_>| TextRow::of_line(line, chars_max);
    match folded {
        Folded::Line(each) => vec![line(each)],
        Folded::Repeated {
            line: each,
            times,
            range,
        } => {
            let text = format!(
                "[last line repeated {}, bytes {}]",
                counted(*times, "time"),
                notes::range(range)
            );
            vec![line(each), remark(text, range, *times)]
        }
        Folded::Similar {
            first,
            lines,
            range,
            last,
        } => {
            let what = if *lines == 1 { "line" } else { "lines" };
            let text = format!(
                "[… {} similar {what}, bytes {}]",
                notes::grouped(*lines),
                notes::range(range)
            );
            let note = note(text, range, *lines);
            let before = first.iter().map(line);
            before.chain([note]).chain(last.iter().map(line)).collect()
        }
        Folded::Redrawn(rows) => redrawn(rows, chars_max),
        Folded::Absent(range, why) => vec![note(notes::absent(range, *why), range, 0)],
    }
}

fn redrawn(rows: &Redrawn<'_>, chars_max: usize) -> Vec<TextRow> {
    let text = format!(
        "[{} above redrawn {}, bytes {}-{}]",
        counted(rows.lines.len() as u64, "line"),
        counted(rows.times, "time"),
        rows.from,
        rows.to
    );
    let lines = rows.lines.iter();
    lines
        .map(|line| TextRow::of_line(line, chars_max))
        .chain([remark(text, &(rows.from..rows.to), 0)])
        .collect()
}

fn note(text: String, range: &Range<u64>, lines: u64) -> TextRow {
    TextRow::new(text, range.clone(), lines)
}

fn remark(text: String, range: &Range<u64>, lines: u64) -> TextRow {
    TextRow {
        is_remark: true,
        ..note(text, range, lines)
    }
}
