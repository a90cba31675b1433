//! Takes a line of output apart into text and what a terminal acts on.
//!
//! A line has no newline. A sequence that its line does not finish is none: what introduces it is
//! ignored, and the rest is text.

use super::characters::{decode, is_ignored, is_text};

/// A part of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TerminalToken<'a> {
    /// Characters that are shown as they are.
    Text(&'a str),
    /// A character that would act on a terminal or be invisible; it is shown as an escape.
    Escaped(char),
    /// Bytes that are no UTF-8.
    Invalid,
    /// Something that changes where the next text goes, or what of the earlier text stays.
    Action(TerminalAction),
    /// A sequence or a character without an effect on the text.
    Ignored,
}

/// What a terminal does to its text. Columns and rows count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TerminalAction {
    Up(usize),
    Down(usize),
    Right(usize),
    Left(usize),
    /// To a column of the same row.
    Column(usize),
    /// To a row and a column of the screen.
    Place(usize, usize),
    EraseInLine(Erase),
    EraseInScreen(Erase),
    /// Removes characters; what follows them moves to the left.
    Delete(usize),
    /// Overwrites characters with spaces.
    Blank(usize),
    /// Makes room for characters.
    Insert(usize),
    Save,
    Restore,
    /// To the first column of the next row.
    NextLine(usize),
    /// To the first column of an earlier row.
    EarlierLine(usize),
}

impl TerminalAction {
    /// Whether it changes text, unlike a movement of the cursor.
    pub(super) fn draws(self) -> bool {
        matches!(
            self,
            Self::EraseInLine(_)
                | Self::EraseInScreen(Erase::ToEnd)
                | Self::Delete(_)
                | Self::Blank(_)
                | Self::Insert(_)
        )
    }
}

/// Which part of a line or of the screen is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Erase {
    ToEnd,
    ToStart,
    All,
}

const ESCAPE: u8 = 0x1b;

/// Largest argument of a sequence that counts; no terminal has more columns or rows.
const ARGUMENT_MAX: usize = 9_999;

/// The tokens of a line, each with the index of its first byte. Takes time linear in its length.
#[derive(Debug)]
pub(super) struct TerminalTokens<'a> {
    line: &'a [u8],
    at: usize,
    /// Where a control string ends that begins at or before here: found once, asked for often.
    string_end: Option<usize>,
}

impl<'a> TerminalTokens<'a> {
    pub(super) fn new(line: &'a [u8]) -> Self {
        Self {
            line,
            at: 0,
            string_end: None,
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.line.get(at).copied()
    }

    fn token(&mut self, byte: u8) -> TerminalToken<'a> {
        match byte {
            ESCAPE => self.escape(),
            b'\r' => self.ends_after(1, TerminalToken::Action(TerminalAction::Column(0))),
            0x08 => self.ends_after(1, TerminalToken::Action(TerminalAction::Left(1))),
            b'\t' | 0x20..=0x7e => self.text(),
            // NUL, BEL, SO and SI: a terminal shows nothing for them.
            0x00 | 0x07 | 0x0e | 0x0f => self.ends_after(1, TerminalToken::Ignored),
            0x00..=0x1f | 0x7f => self.ends_after(1, TerminalToken::Escaped(char::from(byte))),
            0x80.. => match decode(&self.line[self.at..]) {
                Err(bytes) => self.ends_after(bytes, TerminalToken::Invalid),
                Ok(c) if is_text(c) => self.text(),
                Ok(c) => self.special(c),
            },
        }
    }

    fn ends_after(&mut self, bytes: usize, token: TerminalToken<'a>) -> TerminalToken<'a> {
        self.at += bytes;
        token
    }

    fn text(&mut self) -> TerminalToken<'a> {
        let from = self.at;
        while let Some(byte) = self.byte(self.at) {
            match byte {
                b'\t' | 0x20..=0x7e => self.at += 1,
                0x80.. => match decode(&self.line[self.at..]) {
                    Ok(c) if is_text(c) => self.at += c.len_utf8(),
                    _ => break,
                },
                _ => break,
            }
        }
        TerminalToken::Text(str::from_utf8(&self.line[from..self.at]).expect("decoded above"))
    }

    /// A character beyond ASCII that is not shown as it is.
    fn special(&mut self, c: char) -> TerminalToken<'a> {
        self.at += c.len_utf8();
        match c {
            '\u{9b}' => self.control_sequence(),
            '\u{9d}' | '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}' => self.control_string(),
            c if is_ignored(c) => TerminalToken::Ignored,
            c => TerminalToken::Escaped(c),
        }
    }

    fn escape(&mut self) -> TerminalToken<'a> {
        self.at += 1;
        let Some(byte) = self.byte(self.at) else {
            return TerminalToken::Ignored;
        };
        match byte {
            b'[' => {
                self.at += 1;
                self.control_sequence()
            }
            b']' | b'P' | b'X' | b'^' | b'_' => {
                self.at += 1;
                self.control_string()
            }
            b'7' => self.ends_after(1, TerminalToken::Action(TerminalAction::Save)),
            b'8' => self.ends_after(1, TerminalToken::Action(TerminalAction::Restore)),
            b'M' => self.ends_after(1, TerminalToken::Action(TerminalAction::Up(1))),
            b'c' => self.ends_after(
                1,
                TerminalToken::Action(TerminalAction::EraseInScreen(Erase::All)),
            ),
            0x20..=0x2f => {
                self.skip(0x20..=0x2f);
                if matches!(self.byte(self.at), Some(0x30..=0x7e)) {
                    self.at += 1;
                }
                TerminalToken::Ignored
            }
            0x30..=0x7e => self.ends_after(1, TerminalToken::Ignored),
            _ => TerminalToken::Ignored,
        }
    }

    fn skip(&mut self, bytes: std::ops::RangeInclusive<u8>) {
        while self.byte(self.at).is_some_and(|byte| bytes.contains(&byte)) {
            self.at += 1;
        }
    }

    /// After `ESC [`: arguments, intermediate bytes, and the byte that says what is done.
    fn control_sequence(&mut self) -> TerminalToken<'a> {
        let from = self.at;
        self.skip(0x30..=0x3f);
        let arguments = &self.line[from..self.at];
        let plain = self.at;
        self.skip(0x20..=0x2f);
        let is_plain = plain == self.at && !arguments.iter().any(|byte| (0x3c..).contains(byte));
        let Some(byte @ 0x40..=0x7e) = self.byte(self.at) else {
            return TerminalToken::Ignored;
        };
        self.at += 1;
        match is_plain {
            true => action(byte, arguments).map_or(TerminalToken::Ignored, TerminalToken::Action),
            false => TerminalToken::Ignored,
        }
    }

    /// After `ESC ]` and the like: everything up to BEL, ST, CAN, SUB or another escape.
    fn control_string(&mut self) -> TerminalToken<'a> {
        let from = self.at;
        let known = self.string_end.filter(|end| *end >= from);
        let end = known.unwrap_or_else(|| {
            let rest = &self.line[from..];
            let ends = |at: &usize| {
                matches!(rest[*at], 0x07 | 0x18 | 0x1a | ESCAPE)
                    || rest[*at..].starts_with(&[0xc2, 0x9c])
            };
            (0..rest.len()).find(ends).unwrap_or(rest.len()) + from
        });
        self.string_end = Some(end);
        self.at = match &self.line[end..] {
            [] => from,
            [ESCAPE, b'\\', ..] | [0xc2, ..] => end + 2,
            [ESCAPE, ..] => end,
            _ => end + 1,
        };
        TerminalToken::Ignored
    }
}

impl<'a> Iterator for TerminalTokens<'a> {
    type Item = (usize, TerminalToken<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let byte = self.byte(self.at)?;
        let from = self.at;
        Some((from, self.token(byte)))
    }
}

fn action(byte: u8, arguments: &[u8]) -> Option<TerminalAction> {
    let mut numbers = arguments.split(|byte| *byte == b';').map(number);
    let first = numbers.next().unwrap_or(0);
    let second = numbers.next().unwrap_or(0);
    let count = first.max(1);
    let erase = match first {
        0 => Erase::ToEnd,
        1 => Erase::ToStart,
        _ => Erase::All,
    };
    Some(match byte {
        b'A' => TerminalAction::Up(count),
        b'B' | b'e' => TerminalAction::Down(count),
        b'C' | b'a' => TerminalAction::Right(count),
        b'D' => TerminalAction::Left(count),
        b'E' => TerminalAction::NextLine(count),
        b'F' => TerminalAction::EarlierLine(count),
        b'G' | b'`' => TerminalAction::Column(count - 1),
        b'H' | b'f' => TerminalAction::Place(count - 1, second.max(1) - 1),
        b'J' => TerminalAction::EraseInScreen(erase),
        b'K' => TerminalAction::EraseInLine(erase),
        b'P' => TerminalAction::Delete(count),
        b'X' => TerminalAction::Blank(count),
        b'@' => TerminalAction::Insert(count),
        b's' => TerminalAction::Save,
        b'u' => TerminalAction::Restore,
        _ => return None,
    })
}

/// The number of an argument; 0 for none.
fn number(digits: &[u8]) -> usize {
    let mut number = 0;
    for digit in digits.iter().filter(|byte| byte.is_ascii_digit()) {
        number = ARGUMENT_MAX.min(number * 10 + usize::from(digit - b'0'));
    }
    number
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
