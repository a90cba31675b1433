//! Movements of the cursor over rows, and what clears more than one of them.

use super::{COLUMN_MAX, LiveScreen};
use crate::protocol::mcp::excerpt::tokens::Erase;

impl LiveScreen<'_> {
    /// The cursor goes up.
    pub(super) fn go_up(&mut self, target: usize) {
        self.is_outside = false;
        self.is_raised |= target < self.at;
        self.at = target.min(self.at);
    }

    /// The cursor goes down, at most to the bottom.
    pub(super) fn go_down(&mut self, offset: u64, target: usize) {
        self.is_outside = false;
        let target = target.min(self.rows.len() - 1);
        if target > self.at {
            self.at = target;
            self.arrive(offset);
        }
    }

    /// An empty last row begins where the cursor comes back to it, unless it is drawn with others.
    pub(super) fn arrive(&mut self, offset: u64) {
        let number = self.number;
        let is_alone = self.at > 0 && !self.rows[self.at - 1].is_joined;
        let is_bottom = self.is_at_bottom();
        let row = &mut self.rows[self.at];
        if is_bottom && is_alone && row.chars() == 0 && !row.is_rewritten {
            row.from = offset;
            row.number = number;
        }
    }

    /// The cursor goes to a row and a column of the screen.
    pub(super) fn go_to(&mut self, offset: u64, row: usize, column: usize) {
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

    /// The cursor goes back to where it was saved.
    pub(super) fn restore(&mut self, offset: u64) {
        let Some((row, column)) = self.saved.take() else {
            return;
        };
        let bottom = self.rows.len() - 1;
        self.go_to_row(offset, row.saturating_sub(self.finished).min(bottom));
        self.column = column;
    }

    /// Erases rows below the cursor, or begins a new screen.
    pub(super) fn erase_in_screen(&mut self, offset: u64, erase: Erase) {
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
}
