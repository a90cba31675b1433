//! Puts an excerpt together: diagnostics, the first rows, what is omitted, the last rows, never more
//! characters than allowed.

use std::ops::Range;

use super::{
    bounds::Bounds,
    choose::{self, Section},
    diagnose::Diagnostics,
    notes::Omission,
    pieces::Part,
    rows::TextRow,
};

/// Which share of the characters the last rows get before the diagnostics, in percent.
const TAIL_PERCENT: usize = 30;
/// Which share the diagnostics get before the first rows.
const DIAGNOSTICS_PERCENT: usize = 50;
/// What they get in any case if it is there, characters.
const DIAGNOSTICS_CHARS_MIN: usize = 110;
/// Which share the first rows get before the other ones of the last rows.
const HEAD_PERCENT: usize = 20;

/// Below this number of characters an omission is told in few words.
const LONG_NOTE_CHARS_MIN: usize = 1_000;

/// What an excerpt is made of.
#[derive(Debug)]
pub(super) struct ExcerptLayout<'a> {
    pub(super) bounds: Bounds,
    pub(super) parts: &'a [Part<'a>],
    /// The first rows: at least those that may be shown.
    pub(super) head: Vec<TextRow>,
    /// The last rows, those of `head` not among them: likewise.
    pub(super) tail: Vec<TextRow>,
    /// Lines for which the rows between them stand.
    pub(super) between: u64,
    /// Whether nothing is between them.
    pub(super) is_complete: bool,
    pub(super) diagnostics: Diagnostics,
}

/// How many rows of each end are shown.
#[derive(Debug, Clone, Copy)]
struct Ends {
    head: usize,
    tail: usize,
}

/// An excerpt.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub(super) text: String,
    /// The ranges of the rows of the output in it. Together with the omission they are everything.
    pub(super) shown: Vec<Range<u64>>,
}

impl Laid {
    /// These rows and nothing else.
    pub(super) fn new<'a>(rows: impl IntoIterator<Item = &'a TextRow>) -> Self {
        let (texts, shown): (Vec<&str>, Vec<_>) = rows
            .into_iter()
            .map(|row| (&row.text[..], row.range.clone()))
            .unzip();
        Self {
            text: texts.join("\n"),
            shown,
        }
    }
}

impl ExcerptLayout<'_> {
    pub(super) fn lay(&self) -> Laid {
        let everything = self.omission(Ends { head: 0, tail: 0 });
        let note_chars = everything.map_or(0, |note| note.chars_max(self.has_long_notes()) + 1);
        // The last row has no newline, so there is one character more.
        let room = (self.bounds.chars_max + 1).saturating_sub(note_chars);
        let mut ends = Ends { head: 0, tail: 0 };
        self.grow_tail(&mut ends, room * TAIL_PERCENT / 100);
        if ends.tail == 0 {
            self.grow_tail_once(&mut ends, room / 2);
        }
        let left = room - self.tail_chars(ends);
        let share = left.min(DIAGNOSTICS_CHARS_MIN.max(room * DIAGNOSTICS_PERCENT / 100));
        let diagnosed = choose::choose(&self.diagnostics, share, &self.hidden(ends)).chars();
        let left = left - diagnosed;
        let head_share = match diagnosed {
            0 => left / 2,
            _ => left.min(room * HEAD_PERCENT / 100),
        };
        self.grow_head(&mut ends, head_share);
        let left = room - diagnosed - self.head_chars(ends);
        self.grow_tail(&mut ends, left);
        let left = room - diagnosed - self.tail_chars(ends);
        self.grow_head(&mut ends, left);
        let left = room - self.tail_chars(ends) - self.head_chars(ends);
        let section = choose::choose(&self.diagnostics, left, &self.hidden(ends));
        self.text(&section, ends)
    }

    /// All rows, if all are there and they fit.
    pub(super) fn whole(&self) -> Option<Laid> {
        let rows = self.head.iter().chain(&self.tail);
        let chars: usize = rows.clone().map(|row| row.chars).sum();
        let is_whole = self.is_complete && chars <= self.bounds.chars_max + 1;
        is_whole.then(|| Laid::new(rows))
    }

    fn has_long_notes(&self) -> bool {
        self.bounds.chars_max >= LONG_NOTE_CHARS_MIN
    }

    fn head_chars(&self, ends: Ends) -> usize {
        self.head[..ends.head].iter().map(|row| row.chars).sum()
    }

    fn shown_tail(&self, ends: Ends) -> &[TextRow] {
        &self.tail[self.tail.len() - ends.tail..]
    }

    fn tail_chars(&self, ends: Ends) -> usize {
        self.shown_tail(ends).iter().map(|row| row.chars).sum()
    }

    /// The range of which no row is shown.
    fn hidden(&self, ends: Ends) -> Range<u64> {
        let omission = self.omission(ends);
        omission.map_or(u64::MAX..u64::MAX, |omission| omission.range)
    }

    /// As many rows of the beginning as fit.
    fn grow_head(&self, ends: &mut Ends, chars_max: usize) {
        let mut chars = self.head_chars(*ends);
        let rows_max = self.head.len().min(self.bounds.head_lines);
        while ends.head < rows_max {
            chars += self.head[ends.head].chars;
            if chars > chars_max {
                return;
            }
            ends.head += 1;
        }
    }

    /// As many rows of the end as fit.
    fn grow_tail(&self, ends: &mut Ends, chars_max: usize) {
        while self.grow_tail_once(ends, chars_max) {}
        // A remark without the row that it is about says nothing.
        while self
            .shown_tail(*ends)
            .first()
            .is_some_and(|row| row.is_remark)
        {
            ends.tail -= 1;
        }
    }

    fn grow_tail_once(&self, ends: &mut Ends, chars_max: usize) -> bool {
        let more = Ends {
            tail: ends.tail + 1,
            ..*ends
        };
        let rows_max = self.tail.len().min(self.bounds.tail_lines);
        let fits = more.tail <= rows_max && self.tail_chars(more) <= chars_max;
        if fits {
            *ends = more;
        }
        fits
    }

    /// What is not shown between the ends.
    fn omission(&self, ends: Ends) -> Option<Omission> {
        let hidden_tail = &self.tail[..self.tail.len() - ends.tail];
        let hidden_head = &self.head[ends.head..];
        let shown_tail = self.shown_tail(ends);
        let end = self.parts.last().map_or(0, |part| part.range().end);
        let begin = self.parts.first().map_or(0, |part| part.range().start);
        // Rows that were drawn together have one range: if one of them is hidden, it is named.
        let from = match (hidden_head.first(), self.head.last()) {
            (Some(hidden), _) => hidden.range.start,
            (None, Some(last)) => last.range.end,
            (None, None) => begin,
        };
        let to = match (hidden_tail.last(), shown_tail.first()) {
            (Some(hidden), _) => hidden.range.end,
            (None, Some(first)) => first.range.start,
            (None, None) => end,
        };
        let hidden = hidden_head.iter().chain(hidden_tail);
        let lines = self.between + hidden.map(|row| row.lines).sum::<u64>();
        (from < to).then(|| Omission::new(lines, from..to, self.parts))
    }

    fn text(&self, section: &Section, ends: Ends) -> Laid {
        let head = &self.head[..ends.head];
        let tail = self.shown_tail(ends);
        let omission = self.omission(ends);
        let note = omission.map(|omission| match self.has_long_notes() {
            true => omission.long(),
            false => omission.short(),
        });
        let mut rows = section.rows();
        rows.extend(head.iter().map(|row| row.text.clone()));
        rows.extend(note);
        rows.extend(tail.iter().map(|row| row.text.clone()));
        let text = rows.join("\n");
        Laid {
            // Only where there are fewer characters than a note takes.
            text: text.chars().take(self.bounds.chars_max).collect(),
            shown: head
                .iter()
                .chain(tail)
                .map(|row| row.range.clone())
                .collect(),
        }
    }
}
