//! The last rows of a terminal: text goes where the cursor is, and a row is finished when it is so far
//! up that no cursor movement reaches it.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    entry::{CleanLine, Entry, Redrawn},
    screen_row::ScreenRow,
    tokens::{Erase, ScreenAction, ScreenToken, escaped},
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
    pub(super) fn apply(&mut self, offset: u64, token: ScreenToken<'a>) {
        match token {
            ScreenToken::Text(text) => self.write(offset, text.into()),
            ScreenToken::Escaped(c) => self.write(offset, escaped(c)),
            ScreenToken::Invalid => self.write(offset, "\u{fffd}".into()),
            ScreenToken::ScreenAction(action) => self.act(offset, action),
            ScreenToken::Ignored => {}
        }
    }

    fn act(&mut self, offset: u64, action: ScreenAction) {
        let is_long = self.is_long();
        if action.draws() {
            self.join();
        }
        let row = &mut self.rows[self.at];
        match action {
            ScreenAction::Column(column) => self.column = column.min(COLUMN_MAX),
            ScreenAction::Left(count) => self.column = self.column.saturating_sub(count),
            ScreenAction::Right(count) => {
                self.column = self.column.max(COLUMN_MAX.min(self.column + count))
            }
            ScreenAction::EraseInLine(Erase::ToEnd) => row.truncate(self.column),
            ScreenAction::EraseInLine(Erase::All) => row.truncate(0),
            ScreenAction::EraseInLine(_)
            | ScreenAction::Blank(_)
            | ScreenAction::Delete(_)
            | ScreenAction::Insert(_)
                if is_long => {}
            ScreenAction::EraseInLine(Erase::ToStart) => row.blank(0, self.column + 1),
            ScreenAction::Delete(count) => row.delete(self.column, count),
            ScreenAction::Blank(count) => row.blank(self.column, count),
            ScreenAction::Insert(count) => row.insert(self.column, count, &mut self.padding),
            ScreenAction::Up(count) => self.go_up(self.at.saturating_sub(count)),
            ScreenAction::Down(count) => self.go_down(offset, self.at.saturating_add(count)),
            ScreenAction::EarlierLine(count) => {
                self.go_up(self.at.saturating_sub(count));
                self.column = 0;
            }
            ScreenAction::NextLine(count) => {
                self.go_down(offset, self.at.saturating_add(count));
                self.column = 0;
            }
            ScreenAction::Place(row, column) => self.go_to(offset, row, column),
            ScreenAction::EraseInScreen(erase) => self.erase_in_screen(offset, erase),
            ScreenAction::Save => self.saved = Some((self.finished + self.at, self.column)),
            ScreenAction::Restore => self.restore(offset),
        }
    }

    fn go_up(&mut self, target: usize) {
        self.is_outside = false;
        self.is_raised |= target < self.at;
        self.at = target.min(self.at);
    }

    /// The cursor goes down, at most to the bottom.
    fn go_down(&mut self, offset: u64, target: usize) {
        self.is_outside = false;
        let target = target.min(self.rows.len() - 1);
        if target > self.at {
            self.at = target;
            self.arrive(offset);
        }
    }

    /// An empty last row begins where the cursor comes back to it, unless it is drawn with others.
    fn arrive(&mut self, offset: u64) {
        let number = self.number;
        let is_alone = self.at > 0 && !self.rows[self.at - 1].is_joined;
        let is_bottom = self.is_at_bottom();
        let row = &mut self.rows[self.at];
        if is_bottom && is_alone && row.chars() == 0 && !row.is_rewritten {
            row.from = offset;
            row.number = number;
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

    fn go_to(&mut self, offset: u64, row: usize, column: usize) {
        let column = column.min(COLUMN_MAX);
        self.column = column;
        let target = self.top + row;
        let bottom = self.finished + self.rows.len() - 1;
        if target > bottom && self.saved.is_some() {
            self.is_outside = true;
        } else if target > bottom || target < self.finished {
            self.is_outside = false;
            if self.rows[self.rows.len() - 1].chars() > 0 {
                self.begin_row(offset);
            }
            self.go_down(offset, usize::MAX);
            self.column = column;
        } else {
            self.go_to_row(offset, target - self.finished);
        }
    }

    fn go_to_row(&mut self, offset: u64, target: usize) {
        self.is_outside = false;
        match target < self.at {
            true => self.go_up(target),
            false => self.go_down(offset, target),
        }
    }

    fn restore(&mut self, offset: u64) {
        let Some((row, column)) = self.saved.take() else {
            return;
        };
        let bottom = self.rows.len() - 1;
        self.go_to_row(offset, row.saturating_sub(self.finished).min(bottom));
        self.column = column;
    }

    fn erase_in_screen(&mut self, offset: u64, erase: Erase) {
        match erase {
            Erase::ToEnd => {
                self.rows[self.at].truncate(self.column);
                for row in self.rows.range_mut(self.at + 1..) {
                    row.truncate(0);
                }
            }
            Erase::ToStart => {}
            // What was on the screen stays: a log that is cleared at its end is still a log. The next
            // rows are a new screen.
            Erase::All => {
                let column = self.column;
                self.go_down(offset, usize::MAX);
                if self.rows[self.at].chars() > 0 {
                    self.begin_row(offset);
                }
                self.column = column;
                self.top = self.finished + self.at;
            }
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
