//! Folds lines that repeat: the same line again and again, reports of progress, and, where room is
//! short, lines that differ only in their digits.

use std::{collections::VecDeque, ops::Range};

use super::{
    clean_line::{CleanLine, Entry, Redrawn},
    pieces::Absence,
    similar,
};

/// Fewest equal lines in a row that are folded.
const EQUAL_LINES_MIN: usize = 4;
/// Fewest reports of the same progress in a row that are folded, to the first and the last one. Fewer of
/// them can be read one by one.
const PROGRESS_LINES_MIN: usize = 8;
/// Fewest lines in a row that are folded because they differ only in their digits. They can be data, so
/// more of them stay.
const DIGIT_LINES_MIN: usize = 24;
/// How many of such lines stay before the fold, and after it.
const DIGIT_LINES_KEPT: (usize, usize) = (8, 8);

/// What is left of entries.
#[derive(Debug, Clone)]
pub enum Folded<'a> {
    /// A line.
    Line(CleanLine<'a>),
    /// A line and that it was repeated.
    Repeated {
        /// The first one.
        line: CleanLine<'a>,
        /// How many more there are.
        times: u64,
        /// Their range.
        range: Range<u64>,
    },
    /// Lines that are similar to those around them.
    Similar {
        /// The lines before them.
        first: Vec<CleanLine<'a>>,
        /// How many they are.
        lines: u64,
        /// Their range.
        range: Range<u64>,
        /// The lines after them.
        last: Vec<CleanLine<'a>>,
    },
    /// Rows that were drawn several times.
    Redrawn(Redrawn<'a>),
    /// A range without bytes.
    Absent(Range<u64>, Absence),
}

/// Folds entries as they come; holds no more than some lines.
#[derive(Debug)]
pub struct Folder<'a> {
    /// Whether lines that differ only in their digits are folded.
    folds_digits: bool,
    likeness: Likeness,
    /// Successive lines that are alike: all of them as long as they are too few to be folded, else
    /// the first ones.
    first: Vec<CleanLine<'a>>,
    /// Once they are folded: how many there are, the range of those that are not kept, the last ones.
    folded: Option<FoldedRun<'a>>,
}

#[derive(Debug)]
struct FoldedRun<'a> {
    lines: u64,
    range: Range<u64>,
    last: VecDeque<CleanLine<'a>>,
}

/// How lines are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Equal,
    Progress,
    Digits,
}

impl Likeness {
    fn lines_min(self) -> usize {
        match self {
            Self::Equal => EQUAL_LINES_MIN,
            Self::Progress => PROGRESS_LINES_MIN,
            Self::Digits => DIGIT_LINES_MIN,
        }
    }

    /// How many lines are shown before a fold, and after it.
    fn kept(self) -> (usize, usize) {
        match self {
            Self::Equal => (1, 0),
            Self::Progress => (1, 1),
            Self::Digits => DIGIT_LINES_KEPT,
        }
    }
}

impl<'a> Folder<'a> {
    /// A folder; with `folds_digits`, lines that differ only in their digits are folded, too.
    pub fn new(folds_digits: bool) -> Self {
        Self {
            folds_digits,
            likeness: Likeness::Equal,
            first: Vec::new(),
            folded: None,
        }
    }

    /// Takes the next entry; what can be told apart from what follows goes to `out`. A line that is
    /// part of a diagnostic is only folded with equal ones.
    pub fn push(
        &mut self,
        entry: Entry<'a>,
        is_diagnostic: bool,
        out: &mut impl FnMut(Folded<'a>),
    ) {
        let line = match entry {
            Entry::Line(line) => line,
            Entry::Redrawn(rows) => {
                self.finish(out);
                return out(Folded::Redrawn(rows));
            }
            Entry::Absent(range, why) => {
                self.finish(out);
                return out(Folded::Absent(range, why));
            }
        };
        if !self.joins(&line, is_diagnostic) {
            self.finish(out);
            self.first.push(line);
            return;
        }
        if self.folded.is_none() {
            self.first.push(line);
            if self.first.len() >= self.likeness.lines_min() {
                self.fold();
            }
            return;
        }
        self.extend(line);
    }

    /// Whether a line belongs to those that are held.
    fn joins(&mut self, line: &CleanLine<'a>, is_diagnostic: bool) -> bool {
        let held = self.folded.as_ref().and_then(|run| run.last.back());
        let Some(last) = held.or(self.first.last()) else {
            return false;
        };
        // Blank lines are the most frequent equal ones.
        let is_equal = match line.text.is_empty() {
            true => last.text.is_empty(),
            false => last.text == line.text,
        };
        match self.likeness {
            Likeness::Equal if is_equal => true,
            // Another likeness can only begin where nothing is folded yet.
            Likeness::Equal if self.first.len() > 1 || self.folded.is_some() || is_diagnostic => {
                false
            }
            Likeness::Equal if similar::is_same_progress(&last.text, &line.text) => {
                self.likeness = Likeness::Progress;
                true
            }
            Likeness::Equal if self.folds_digits => {
                let is_same = similar::is_same_but_digits(&last.text, &line.text);
                if is_same {
                    self.likeness = Likeness::Digits;
                }
                is_same
            }
            Likeness::Equal => false,
            _ if is_diagnostic => false,
            Likeness::Progress => is_equal || similar::is_same_progress(&last.text, &line.text),
            Likeness::Digits => is_equal || similar::is_same_but_digits(&last.text, &line.text),
        }
    }

    /// The lines that are held are enough: only the first and the last ones stay.
    fn fold(&mut self) {
        let (first, _) = self.likeness.kept();
        let mut others = self.first.split_off(first).into_iter();
        let Some(begin) = others.as_slice().first().map(|line| line.from) else {
            return;
        };
        self.folded = Some(FoldedRun {
            lines: 0,
            range: begin..begin,
            last: VecDeque::new(),
        });
        others.by_ref().for_each(|line| self.extend(line));
    }

    fn extend(&mut self, line: CleanLine<'a>) {
        let (_, kept) = self.likeness.kept();
        let Some(run) = &mut self.folded else {
            return;
        };
        if kept == 0 {
            run.lines += 1;
            run.range.end = line.to;
            return;
        }
        run.last.push_back(line);
        while run.last.len() > kept {
            let Some(line) = run.last.pop_front() else {
                return;
            };
            run.lines += 1;
            run.range.end = line.to;
        }
    }

    /// Gives out what is held.
    pub fn finish(&mut self, out: &mut impl FnMut(Folded<'a>)) {
        let first = std::mem::take(&mut self.first);
        let likeness = std::mem::replace(&mut self.likeness, Likeness::Equal);
        let Some(run) = self.folded.take() else {
            return first.into_iter().map(Folded::Line).for_each(out);
        };
        if likeness != Likeness::Equal {
            return out(Folded::Similar {
                first,
                lines: run.lines,
                range: run.range,
                last: run.last.into(),
            });
        }
        for line in first {
            out(Folded::Repeated {
                line,
                times: run.lines,
                range: run.range.clone(),
            });
        }
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
