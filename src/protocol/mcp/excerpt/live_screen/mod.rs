//! The last rows of a terminal: text goes where the cursor is, and a row is finished when it is so far
//! up that no cursor movement reaches it.

mod cursor;
mod row;

use std::{borrow::Cow, collections::VecDeque};

use self::row::ScreenRow;
use super::{
    characters::escaped,
    clean_line::{CleanLine, Entry, Redrawn},
    tokens::{Erase, TerminalAction, TerminalToken},
};

/// How many rows the cursor can move over, about the height of a large terminal.
const ROWS_MAX: usize = 64;

/// Most characters of a row that can be rewritten. A terminal that is narrower has long begun a new
/// row; here, text that would go over a longer row begins one.
const REWRITTEN_CHARS_MAX: usize = 1_024;

/// Largest column to which the cursor can go.
const COLUMN_MAX: usize = 1_024;

/// How many spaces movements to the right may add to a part of an output, characters: a few bytes
/// could otherwise become a thousand spaces, again and again.
const PADDING_MAX: usize = 256 << 10;

/// The live rows of one part of an output, and what is finished of it.
#[derive(Debug)]
pub(super) struct LiveScreen<'a> {
    /// The bytes of the part, and the offset of the first one.
    bytes: &'a [u8],
    origin: u64,
    /// Never empty; the last one is the bottom.
    rows: VecDeque<ScreenRow<'a>>,
    /// How many rows are finished.
    finished: usize,
    /// Index of the cursor's row in `rows`.
    at: usize,
    column: usize,
    /// Row, counted from the first one of the part, and column.
    saved: Option<(usize, usize)>,
    /// The row that is the first one of the screen, counted likewise.
    top: usize,
    /// Whether the cursor went up and nothing was drawn since then.
    is_raised: bool,
    /// Whether text goes to a status line at a fixed place of the screen, which is not kept.
    is_outside: bool,
    padding: usize,
    /// Number of the line that is being read, from 1.
    number: Option<u64>,
    ready: VecDeque<Entry<'a>>,
}

impl<'a> LiveScreen<'a> {
    pub(super) fn new(origin: u64, bytes: &'a [u8], number: Option<u64>) -> Self {
        Self {
            bytes,
            origin,
            rows: VecDeque::from([ScreenRow::new(origin, number)]),
            finished: 0,
            at: 0,
            column: 0,
            saved: None,
            top: 0,
            is_raised: false,
            is_outside: false,
            padding: PADDING_MAX,
            number,
            ready: VecDeque::new(),
        }
    }

    /// The next finished entry.
    pub(super) fn take(&mut self) -> Option<Entry<'a>> {
        self.ready.pop_front()
    }

    /// Whether the cursor is at the beginning of an empty last row.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_at_bottom()
            && self.column == 0
            && self.rows[self.at].chars() == 0
            && !self.is_outside
    }

    fn is_at_bottom(&self) -> bool {
        self.at + 1 == self.rows.len()
    }

    /// Writes text at the cursor; its first byte is at an offset.
    pub(super) fn write(&mut self, offset: u64, text: Cow<'a, str>) {
        if self.is_outside {
            self.rows[self.at].is_rewritten = true;
            return;
        }
        if self.is_long() && self.column < self.rows[self.at].chars() {
            self.begin_row(offset);
        }
        self.join();
        let row = &mut self.rows[self.at];
        self.column = row.write(self.column, text, &mut self.padding);
    }

    /// Something is drawn where the cursor went up: its row and all later ones are drawn together.
    fn join(&mut self) {
        if !std::mem::replace(&mut self.is_raised, false) || self.is_at_bottom() {
            return;
        }
        let bottom = self.rows.len() - 1;
        let is_empty = self.rows[bottom].chars() == 0 && !self.rows[bottom - 1].is_joined;
        let last = if is_empty { bottom - 1 } else { bottom };
        for row in self.rows.range_mut(self.at..last) {
            row.is_joined = true;
        }
        for row in self.rows.range_mut(self.at..=last) {
            row.is_rewritten = true;
        }
        self.rows[self.at].redraws += 1;
    }

    /// Whether the cursor's row is too long to be rewritten.
    fn is_long(&self) -> bool {
        self.rows[self.at].chars() > REWRITTEN_CHARS_MAX
    }

    /// Applies a token that begins at an offset.
    pub(super) fn apply(&mut self, offset: u64, token: TerminalToken<'a>) {
        match token {
            TerminalToken::Text(text) => self.write(offset, text.into()),
            TerminalToken::Escaped(c) => self.write(offset, escaped(c)),
            TerminalToken::Invalid => self.write(offset, "\u{fffd}".into()),
            TerminalToken::Action(action) => self.act(offset, action),
            TerminalToken::Ignored => {}
        }
    }

    fn act(&mut self, offset: u64, action: TerminalAction) {
        let is_long = self.is_long();
        if action.draws() {
            self.join();
        }
        let row = &mut self.rows[self.at];
        match action {
            TerminalAction::Column(column) => self.column = column.min(COLUMN_MAX),
            TerminalAction::Left(count) => self.column = self.column.saturating_sub(count),
            TerminalAction::Right(count) => {
                self.column = self.column.max(COLUMN_MAX.min(self.column + count))
            }
            TerminalAction::EraseInLine(Erase::ToEnd) => row.truncate(self.column),
            TerminalAction::EraseInLine(Erase::All) => row.truncate(0),
            TerminalAction::EraseInLine(_)
            | TerminalAction::Blank(_)
            | TerminalAction::Delete(_)
            | TerminalAction::Insert(_)
                if is_long => {}
            TerminalAction::EraseInLine(Erase::ToStart) => row.blank(0, self.column + 1),
            TerminalAction::Delete(count) => row.delete(self.column, count),
            TerminalAction::Blank(count) => row.blank(self.column, count),
            TerminalAction::Insert(count) => row.insert(self.column, count, &mut self.padding),
            TerminalAction::Up(count) => self.go_up(self.at.saturating_sub(count)),
            TerminalAction::Down(count) => self.go_down(offset, self.at.saturating_add(count)),
            TerminalAction::EarlierLine(count) => {
                self.go_up(self.at.saturating_sub(count));
                self.column = 0;
            }
            TerminalAction::NextLine(count) => {
                self.go_down(offset, self.at.saturating_add(count));
                self.column = 0;
            }
            TerminalAction::Place(row, column) => self.go_to(offset, row, column),
            TerminalAction::EraseInScreen(erase) => self.erase_in_screen(offset, erase),
            TerminalAction::Save => self.saved = Some((self.finished + self.at, self.column)),
            TerminalAction::Restore => self.restore(offset),
        }
    }

    /// A newline; `offset` is that of the byte after it.
    pub(super) fn newline(&mut self, offset: u64) {
        self.number = self.number.map(|number| number + 1);
        self.is_outside = false;
        self.column = 0;
        match self.is_at_bottom() {
            true => self.begin_row(offset),
            false => {
                self.at += 1;
                self.arrive(offset);
            }
        }
    }

    /// A new last row. What is too far up is finished.
    fn begin_row(&mut self, offset: u64) {
        self.rows.push_back(ScreenRow::new(offset, self.number));
        self.at = self.rows.len() - 1;
        self.column = 0;
        while self.rows.len() > ROWS_MAX {
            self.finish_first();
        }
    }

    /// Finishes the first row and those that were drawn with it.
    fn finish_first(&mut self) {
        let Some(first) = self.rows.pop_front() else {
            return;
        };
        let mut others = Vec::new();
        let mut is_joined = first.is_joined;
        while is_joined && let Some(next) = self.rows.pop_front() {
            is_joined = next.is_joined;
            others.push(next);
        }
        self.at = self.at.saturating_sub(1 + others.len());
        self.finished += 1 + others.len();
        let times: u64 = first.redraws + others.iter().map(|row| row.redraws).sum::<u64>();
        let from = first.from;
        let end = self.origin + self.bytes.len() as u64;
        let to = self.rows.front().map_or(end, |row| row.from);
        let index = |offset: u64| (offset - self.origin) as usize;
        let bytes = &self.bytes[index(from)..index(to)];
        let line = |row: ScreenRow<'a>| CleanLine {
            from,
            to,
            number: row.number,
            is_rewritten: row.is_rewritten,
            bytes,
            text: row.into_text(),
        };
        self.ready.push_back(match times {
            0 => Entry::Line(line(first)),
            _ => Entry::Redrawn(Redrawn {
                from,
                to,
                times,
                lines: std::iter::once(first).chain(others).map(line).collect(),
            }),
        });
    }

    /// Finishes all rows at the end of the part. Returns the number of the next line.
    pub(super) fn finish(&mut self) -> Option<u64> {
        let last = self.rows.len() - 1;
        let is_joined = last > 0 && self.rows[last - 1].is_joined;
        // Nothing follows the last newline, or only sequences: their bytes go to the row before.
        if last > 0 && self.rows[last].chars() == 0 && !is_joined {
            self.rows.pop_back();
        }
        while !self.rows.is_empty() {
            self.finish_first();
        }
        self.number
    }
}
