//! Keeps what an excerpt can show of an output: its first and its last entries. What is between them is
//! only counted, so that the length of the output does not matter.

use std::collections::VecDeque;

use super::{
    bounds::Bounds,
    diagnose::Diagnostics,
    fold::Folded,
    layout::{ExcerptLayout, Laid},
    pieces::Part,
    rows::{self, TextRow},
};

/// Shortest bound of a line, characters, and the usual one.
const LINE_CHARS_BOUNDS: (usize, usize) = (80, 400);
/// Which part of the excerpt a line may take if there are many.
const LINE_SHARE: usize = 5;

/// Most bytes of a character in UTF-8.
const CHAR_BYTES_MAX: usize = 4;

/// The first entries and the last ones.
#[derive(Debug)]
pub(super) struct Gathered<'a> {
    bounds: Bounds,
    head: Vec<Folded<'a>>,
    head_rows: usize,
    tail: VecDeque<Folded<'a>>,
    tail_rows: usize,
    /// Lines for which the entries between them stand.
    between: u64,
    /// Rows of all entries.
    rows: usize,
}

impl<'a> Gathered<'a> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            head: Vec::new(),
            head_rows: 0,
            tail: VecDeque::new(),
            tail_rows: 0,
            between: 0,
            rows: 0,
        }
    }

    pub(super) fn push(&mut self, entry: Folded<'a>) {
        let rows = rows::count(&entry);
        self.rows += rows;
        if self.head_rows < self.bounds.head_lines {
            self.head_rows += rows;
            return self.head.push(entry);
        }
        self.tail_rows += rows;
        self.tail.push_back(entry);
        while let Some(first) = self.tail.front() {
            let rows = rows::count(first);
            if self.tail_rows - rows < self.bounds.tail_lines {
                break;
            }
            self.tail_rows -= rows;
            self.between += rows::lines(first);
            self.tail.pop_front();
        }
    }

    /// The longest line that is shown whole, characters: all of them get the same share, but no less
    /// than is usual.
    fn line_chars_max(&self) -> usize {
        let (min, usual) = LINE_CHARS_BOUNDS;
        let chars_max = self.bounds.chars_max;
        let least = (chars_max / LINE_SHARE).clamp(min, usual);
        // One character of each is the newline.
        least.max((chars_max / self.rows.max(1)).saturating_sub(1))
    }

    /// What can be shown of an output that has these parts and diagnostics.
    pub(super) fn layout<'b>(
        self,
        parts: &'b [Part<'b>],
        diagnostics: Diagnostics,
    ) -> ExcerptLayout<'b> {
        let chars_max = self.line_chars_max();
        let head = self
            .head
            .iter()
            .flat_map(|entry| rows::of(entry, chars_max));
        let tail = self
            .tail
            .iter()
            .flat_map(|entry| rows::of(entry, chars_max));
        ExcerptLayout {
            bounds: self.bounds,
            parts,
            head: head.collect(),
            tail: tail.collect(),
            between: self.between,
            is_complete: self.rows == self.head_rows + self.tail_rows,
            diagnostics,
        }
    }
}

/// All rows, as long as they have few enough characters.
#[derive(Debug)]
pub(super) struct Whole {
    chars_max: usize,
    chars: usize,
    rows: Option<Vec<TextRow>>,
}

impl Whole {
    pub(super) fn new(chars_max: usize) -> Self {
        Self {
            chars_max,
            chars: 0,
            rows: Some(Vec::new()),
        }
    }

    /// Whether all rows that came fit.
    pub(super) fn fits(&self) -> bool {
        self.rows.is_some()
    }

    pub(super) fn push(&mut self, entry: &Folded<'_>) {
        let Some(all) = &mut self.rows else {
            return;
        };
        // A longer one is not even copied.
        let bytes_max = self.chars_max.saturating_mul(CHAR_BYTES_MAX);
        let is_long = match entry {
            Folded::Line(line) | Folded::Repeated { line, .. } => line.text.len() > bytes_max,
            _ => false,
        };
        let rows = match is_long {
            true => Vec::new(),
            false => rows::of(entry, usize::MAX),
        };
        self.chars += rows.iter().map(|row| row.chars).sum::<usize>();
        // The last one has no newline.
        if is_long || self.chars > self.chars_max + 1 {
            self.rows = None;
        } else {
            all.extend(rows);
        }
    }

    /// The rows as an excerpt.
    pub(super) fn finish(self) -> Option<Laid> {
        self.rows.map(|rows| Laid::new(&rows))
    }
}
