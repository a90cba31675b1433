//! One row of a terminal's screen: text that can be overwritten in the middle.

use std::borrow::Cow;

/// A row. Columns count characters, not cells.
#[derive(Debug, Clone, Default)]
pub(super) struct ScreenRow<'a> {
    text: Cow<'a, str>,
    chars: usize,
    /// A column and the index of its first byte: where the last text ended, and the next one often begins.
    known: (usize, usize),
    /// Offset of its first byte in the output.
    pub(super) from: u64,
    /// Number of its line, from 1.
    pub(super) number: Option<u64>,
    /// Whether its text is anything but its bytes in their order without the sequences.
    pub(super) is_rewritten: bool,
    /// How many times the cursor went up to this row from a later one.
    pub(super) redraws: u64,
    /// Whether it and the next row were drawn together.
    pub(super) is_joined: bool,
}

impl<'a> ScreenRow<'a> {
    pub(super) fn new(from: u64, number: Option<u64>) -> Self {
        Self {
            from,
            number,
            ..Self::default()
        }
    }

    pub(super) fn chars(&self) -> usize {
        self.chars
    }

    /// Its text. What was overwritten with spaces at its end is no text.
    pub(super) fn into_text(self) -> Cow<'a, str> {
        match self.text {
            text if !self.is_rewritten => text,
            Cow::Borrowed(text) => text.trim_end_matches(' ').into(),
            Cow::Owned(mut text) => {
                text.truncate(text.trim_end_matches(' ').len());
                text.into()
            }
        }
    }

    /// Writes from a column on, over what is there, after spaces if the row is shorter. Returns the
    /// column after the text. At most `padding` spaces are added, and taken from it.
    pub(super) fn write(
        &mut self,
        column: usize,
        text: Cow<'a, str>,
        padding: &mut usize,
    ) -> usize {
        let chars = text.chars().count();
        if chars == 0 {
            return column;
        }
        if column >= self.chars {
            self.pad(column, padding);
            match self.chars {
                0 => self.text = text,
                _ => self.text.to_mut().push_str(&text),
            }
            self.chars += chars;
            return self.chars;
        }
        self.is_rewritten = true;
        let end = column + chars;
        let from = self.byte(column);
        self.known = (column, from);
        let to = self.byte(end);
        self.known = (end, from + text.len());
        match column {
            0 if end >= self.chars => self.text = text,
            _ => self.text.to_mut().replace_range(from..to, &text),
        }
        self.chars = self.chars.max(end);
        end
    }

    fn pad(&mut self, column: usize, padding: &mut usize) {
        let spaces = (column - self.chars).min(*padding);
        if spaces > 0 {
            *padding -= spaces;
            self.is_rewritten = true;
            self.text.to_mut().extend(std::iter::repeat_n(' ', spaces));
            self.chars += spaces;
        }
    }

    /// Index of the first byte of a column; the end for one beyond it.
    fn byte(&self, column: usize) -> usize {
        let (first, begin) = match self.known.0 <= column {
            true => self.known,
            false => (0, 0),
        };
        if column >= self.chars {
            return self.text.len();
        }
        let mut rest = self.text[begin..].char_indices();
        rest.nth(column - first)
            .map_or(self.text.len(), |(at, _)| begin + at)
    }

    /// Removes all from a column on.
    pub(super) fn truncate(&mut self, column: usize) {
        if column < self.chars {
            self.is_rewritten = true;
            let end = self.byte(column);
            self.known = (0, 0);
            match &mut self.text {
                Cow::Borrowed(text) => *text = &text[..end],
                Cow::Owned(text) => text.truncate(end),
            }
            self.chars = column;
        }
    }

    /// Overwrites characters from a column on with spaces.
    pub(super) fn blank(&mut self, column: usize, count: usize) {
        let end = self.chars.min(column.saturating_add(count));
        if column < end {
            let spaces = " ".repeat(end - column);
            self.write(column, Cow::Owned(spaces), &mut 0);
        }
    }

    /// Removes characters at a column.
    pub(super) fn delete(&mut self, column: usize, count: usize) {
        let end = self.chars.min(column.saturating_add(count));
        if column < end {
            self.is_rewritten = true;
            let range = self.byte(column)..self.byte(end);
            self.known = (0, 0);
            self.text.to_mut().replace_range(range, "");
            self.chars -= end - column;
        }
    }

    /// Moves what stands at a column and after it to the right. At most `padding` spaces are added,
    /// and taken from it.
    pub(super) fn insert(&mut self, column: usize, count: usize, padding: &mut usize) {
        let count = count.min(*padding);
        if column < self.chars && count > 0 {
            *padding -= count;
            self.is_rewritten = true;
            let at = self.byte(column);
            self.known = (0, 0);
            self.text.to_mut().insert_str(at, &" ".repeat(count));
            self.chars += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> ScreenRow<'_> {
        let mut row = ScreenRow::new(0, None);
        row.write(0, text.into(), &mut 0);
        row
    }

    fn shown(row: &ScreenRow<'_>) -> (String, usize) {
        assert_eq!(row.text.chars().count(), row.chars);
        (row.text.to_string(), row.chars)
    }

    #[test]
    fn text_goes_over_text() {
        let mut each = row("größe");
        assert!(!each.is_rewritten);
        assert_eq!(each.write(1, "xé".into(), &mut 0), 3);
        assert_eq!(shown(&each), ("gxéße".into(), 5));
        assert_eq!(each.write(4, "12".into(), &mut 0), 6);
        assert_eq!(shown(&each), ("gxéß12".into(), 6));
        assert!(each.is_rewritten);
        assert_eq!(each.write(0, "ganz neu".into(), &mut 0), 8);
        assert_eq!(shown(&each), ("ganz neu".into(), 8));
    }

    #[test]
    fn a_jump_to_the_right_leaves_spaces_up_to_a_bound() {
        let mut padding = 5;
        let mut each = row("ab");
        assert_eq!(each.write(5, "c".into(), &mut padding), 6);
        assert_eq!(each.write(500, "d".into(), &mut padding), 9);
        assert_eq!(shown(&each), ("ab   c  d".into(), 9));
        assert_eq!(padding, 0);
        assert!(each.is_rewritten);
    }

    #[test]
    fn parts_are_erased_removed_and_moved() {
        let mut each = row("größe");
        each.blank(1, 2);
        assert_eq!(shown(&each), ("g  ße".into(), 5));
        each.delete(1, 2);
        assert_eq!(shown(&each), ("gße".into(), 3));
        each.insert(1, 2, &mut 9);
        assert_eq!(shown(&each), ("g  ße".into(), 5));
        each.truncate(2);
        assert_eq!(shown(&each), ("g ".into(), 2));
        for beyond in [2, 9] {
            each.truncate(beyond);
            each.delete(beyond, 9);
            each.blank(beyond, 9);
            each.insert(beyond, 9, &mut 9);
        }
        assert_eq!(shown(&each), ("g ".into(), 2));
    }
}
