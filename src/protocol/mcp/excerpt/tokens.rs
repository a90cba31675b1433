//! Takes a line of output apart into text and what a terminal acts on.
//!
//! A line has no newline. A sequence that its line does not finish is none: what introduces it is
//! ignored, and the rest is text.

use std::borrow::Cow;

use crate::escape;

/// A part of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScreenToken<'a> {
    /// Characters that are shown as they are.
    Text(&'a str),
    /// A character that would act on a terminal or be invisible; it is shown as an escape.
    Escaped(char),
    /// Bytes that are no UTF-8.
    Invalid,
    /// Something that changes where the next text goes, or what of the earlier text stays.
    ScreenAction(ScreenAction),
    /// A sequence or a character without an effect on the text.
    Ignored,
}

/// What a terminal does to its text. Columns and rows count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScreenAction {
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

impl ScreenAction {
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

/// The escapes of the ASCII controls below the space.
const ESCAPES: [&str; 32] = [
    "\\x00", "\\x01", "\\x02", "\\x03", "\\x04", "\\x05", "\\x06", "\\x07", "\\x08", "\\t", "\\n",
    "\\x0b", "\\x0c", "\\r", "\\x0e", "\\x0f", "\\x10", "\\x11", "\\x12", "\\x13", "\\x14",
    "\\x15", "\\x16", "\\x17", "\\x18", "\\x19", "\\x1a", "\\x1b", "\\x1c", "\\x1d", "\\x1e",
    "\\x1f",
];

/// A character that is shown as an escape.
pub(super) fn escaped(c: char) -> Cow<'static, str> {
    match ESCAPES.get(c as usize) {
        Some(escape) => Cow::Borrowed(escape),
        None => Cow::Owned(escape::visible(c.encode_utf8(&mut [0; 4]))),
    }
}

/// Largest argument of a sequence that counts; no terminal has more columns or rows.
const ARGUMENT_MAX: usize = 9_999;

/// The tokens of a line, each with the index of its first byte. Takes time linear in its length.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    line: &'a [u8],
    at: usize,
    /// Where a control string ends that begins at or before here: found once, asked for often.
    string_end: Option<usize>,
}

impl<'a> Tokens<'a> {
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

    fn token(&mut self, byte: u8) -> ScreenToken<'a> {
        match byte {
            ESCAPE => self.escape(),
            b'\r' => self.ends_after(1, ScreenToken::ScreenAction(ScreenAction::Column(0))),
            0x08 => self.ends_after(1, ScreenToken::ScreenAction(ScreenAction::Left(1))),
            b'\t' | 0x20..=0x7e => self.text(),
            // NUL, BEL, SO and SI: a terminal shows nothing for them.
            0x00 | 0x07 | 0x0e | 0x0f => self.ends_after(1, ScreenToken::Ignored),
            0x00..=0x1f | 0x7f => self.ends_after(1, ScreenToken::Escaped(char::from(byte))),
            0x80.. => match decode(&self.line[self.at..]) {
                Err(bytes) => self.ends_after(bytes, ScreenToken::Invalid),
                Ok(c) if is_text(c) => self.text(),
                Ok(c) => self.special(c),
            },
        }
    }

    fn ends_after(&mut self, bytes: usize, token: ScreenToken<'a>) -> ScreenToken<'a> {
        self.at += bytes;
        token
    }

    fn text(&mut self) -> ScreenToken<'a> {
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
        ScreenToken::Text(str::from_utf8(&self.line[from..self.at]).expect("decoded above"))
    }

    /// A character beyond ASCII that is not shown as it is.
    fn special(&mut self, c: char) -> ScreenToken<'a> {
        self.at += c.len_utf8();
        match c {
            '\u{9b}' => self.control_sequence(),
            '\u{9d}' | '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}' => self.control_string(),
            c if c.is_control() || is_selector(c) => ScreenToken::Ignored,
            c => ScreenToken::Escaped(c),
        }
    }

    fn escape(&mut self) -> ScreenToken<'a> {
        self.at += 1;
        let Some(byte) = self.byte(self.at) else {
            return ScreenToken::Ignored;
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
            b'7' => self.ends_after(1, ScreenToken::ScreenAction(ScreenAction::Save)),
            b'8' => self.ends_after(1, ScreenToken::ScreenAction(ScreenAction::Restore)),
            b'M' => self.ends_after(1, ScreenToken::ScreenAction(ScreenAction::Up(1))),
            b'c' => self.ends_after(
                1,
                ScreenToken::ScreenAction(ScreenAction::EraseInScreen(Erase::All)),
            ),
            0x20..=0x2f => {
                self.skip(0x20..=0x2f);
                if matches!(self.byte(self.at), Some(0x30..=0x7e)) {
                    self.at += 1;
                }
                ScreenToken::Ignored
            }
            0x30..=0x7e => self.ends_after(1, ScreenToken::Ignored),
            _ => ScreenToken::Ignored,
        }
    }

    fn skip(&mut self, bytes: std::ops::RangeInclusive<u8>) {
        while self.byte(self.at).is_some_and(|byte| bytes.contains(&byte)) {
            self.at += 1;
        }
    }

    /// After `ESC [`: arguments, intermediate bytes, and the byte that says what is done.
    fn control_sequence(&mut self) -> ScreenToken<'a> {
        let from = self.at;
        self.skip(0x30..=0x3f);
        let arguments = &self.line[from..self.at];
        let plain = self.at;
        self.skip(0x20..=0x2f);
        let is_plain = plain == self.at && !arguments.iter().any(|byte| (0x3c..).contains(byte));
        let Some(byte @ 0x40..=0x7e) = self.byte(self.at) else {
            return ScreenToken::Ignored;
        };
        self.at += 1;
        match is_plain {
            true => action(byte, arguments).map_or(ScreenToken::Ignored, ScreenToken::ScreenAction),
            false => ScreenToken::Ignored,
        }
    }

    /// After `ESC ]` and the like: everything up to BEL, ST, CAN, SUB or another escape.
    fn control_string(&mut self) -> ScreenToken<'a> {
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
        ScreenToken::Ignored
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, ScreenToken<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let byte = self.byte(self.at)?;
        let from = self.at;
        Some((from, self.token(byte)))
    }
}

/// The line, if all of it is text: the usual case, found quickly.
pub(super) fn plain(line: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte) || *byte == b'\t';
    if line.iter().all(is_plain) {
        return str::from_utf8(line).ok();
    }
    if line.iter().any(|byte| byte.is_ascii() && !is_plain(byte)) {
        return None;
    }
    str::from_utf8(line)
        .ok()
        .filter(|text| text.chars().all(|c| c.is_ascii() || is_text(c)))
}

/// How many bytes at the end of `bytes` are the beginning of a character or of a terminal sequence that
/// the next bytes may complete, or a carriage return that may belong to a newline.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    /// Longest beginning of a sequence that is looked for, bytes.
    const SEQUENCE_BYTES_MAX: usize = 4 << 10;
    if bytes.last() == Some(&b'\r') {
        return 1;
    }
    let of_char = unfinished_char(bytes);
    if of_char > 0 {
        return of_char;
    }
    let near = &bytes[bytes.len().saturating_sub(SEQUENCE_BYTES_MAX)..];
    let Some(begin) = near.iter().rposition(|byte| *byte == ESCAPE) else {
        return 0;
    };
    let sequence = &near[begin..];
    let is_open = match sequence {
        [_] => true,
        [_, b'[', rest @ ..] => rest.iter().all(|byte| (0x20..0x40).contains(byte)),
        [_, b']' | b'P' | b'X' | b'^' | b'_', rest @ ..] => !rest
            .iter()
            .any(|byte| matches!(byte, 0x07 | 0x18 | 0x1a | b'\n')),
        [_, rest @ ..] => rest.iter().all(|byte| (0x20..0x30).contains(byte)),
        [] => false,
    };
    if is_open { sequence.len() } else { 0 }
}

/// How many bytes at the end are the beginning of a character.
pub(super) fn unfinished_char(bytes: &[u8]) -> usize {
    let near = &bytes[bytes.len().saturating_sub(4)..];
    let Some(begin) = near.iter().rposition(|byte| *byte >= 0xc0) else {
        return 0;
    };
    match str::from_utf8(&near[begin..]) {
        Err(error) if error.error_len().is_none() => near.len() - begin,
        _ => 0,
    }
}

fn action(byte: u8, arguments: &[u8]) -> Option<ScreenAction> {
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
        b'A' => ScreenAction::Up(count),
        b'B' | b'e' => ScreenAction::Down(count),
        b'C' | b'a' => ScreenAction::Right(count),
        b'D' => ScreenAction::Left(count),
        b'E' => ScreenAction::NextLine(count),
        b'F' => ScreenAction::EarlierLine(count),
        b'G' | b'`' => ScreenAction::Column(count - 1),
        b'H' | b'f' => ScreenAction::Place(count - 1, second.max(1) - 1),
        b'J' => ScreenAction::EraseInScreen(erase),
        b'K' => ScreenAction::EraseInLine(erase),
        b'P' => ScreenAction::Delete(count),
        b'X' => ScreenAction::Blank(count),
        b'@' => ScreenAction::Insert(count),
        b's' => ScreenAction::Save,
        b'u' => ScreenAction::Restore,
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

/// The first character, or how many bytes at the beginning are no UTF-8.
pub(super) fn decode(bytes: &[u8]) -> Result<char, usize> {
    match *bytes {
        [] => return Err(0),
        [byte, ..] if byte.is_ascii() => return Ok(char::from(byte)),
        // No character begins with such a byte, or goes on with such a one.
        [..0xc2 | 0xf5.., ..] | [_, ..0x80 | 0xc0.., ..] => return Err(1),
        _ => {}
    }
    let near = &bytes[..bytes.len().min(4)];
    let valid = match str::from_utf8(near) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            str::from_utf8(&near[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => return Err(error.error_len().unwrap_or(near.len())),
    };
    valid.chars().next().ok_or(1)
}

/// Whether a character beyond ASCII is shown as it is. The joiners are invisible but part of how some
/// languages and emoji are written.
fn is_text(c: char) -> bool {
    match c {
        '\u{ae}'..'\u{34f}' | '\u{2070}'..'\u{3164}' | '\u{4e00}'..='\u{d7ff}' => true,
        '\u{200c}' | '\u{200d}' => true,
        c => !escape::needs_escape(c),
    }
}

/// Variation selectors and the byte order mark: invisible, common and without a meaning of their own.
fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(line: &[u8]) -> Vec<ScreenToken<'_>> {
        Tokens::new(line).map(|(_, token)| token).collect()
    }

    /// The text alone.
    fn text(line: &[u8]) -> String {
        let mut text = String::new();
        for token in tokens(line) {
            match token {
                ScreenToken::Text(part) => text.push_str(part),
                ScreenToken::Escaped(c) => text.push_str(&escape::visible(&c.to_string())),
                ScreenToken::Invalid => text.push('\u{fffd}'),
                ScreenToken::ScreenAction(_) | ScreenToken::Ignored => {}
            }
        }
        text
    }

    #[test]
    fn sequences_have_no_text() {
        for (line, expected) in [
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b[38;2;1;2;3mred\x1b[m", "red"),
            ("\x1b[?25lhidden\x1b[?25h", "hidden"),
            ("\x1b]0;a title\x07text", "text"),
            (
                "\x1b]8;;http://a/\x1b\\link\x1b]8;;\x1b\\ text",
                "link text",
            ),
            ("\x1bP1$r0m\x1b\\a\x1b_Gi=1\x1b\\b\x1b^x\x1b\\c", "abc"),
            ("\x1b(Ba\x1b)0b\x1b#8c", "abc"),
            ("\x1b=a\x1b>b\x1b7c\x1b8", "abc"),
            (
                "\u{9b}31mred\u{9b}0m \u{9d}0;title\u{9c}text\u{85}",
                "red text",
            ),
            ("a\tb\x07\0\x0e\x0f", "a\tb"),
            ("a\x01b\x7f\u{202e}", "a\\x01b\\x7f\\u{202e}"),
            (
                "⚠\u{fe0f} 漢字 é 👩\u{200d}🚀\u{feff}",
                "⚠ 漢字 é 👩\u{200d}🚀",
            ),
        ] {
            assert_eq!(text(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_not_finished_is_no_sequence() {
        assert_eq!(
            text(b"\x1b]0;title without an end"),
            "0;title without an end"
        );
        assert_eq!(text(b"a\x1b[31"), "a");
        assert_eq!(text(b"a\x1b["), "a");
        assert_eq!(text(b"a\x1b"), "a");
        assert_eq!(text(b"a\x1b[3\x01b"), "a\\x01b");
        assert_eq!(text("\x1b[é".as_bytes()), "é");
        assert_eq!(text(b"\x1b]0;a\x1b[1mb\x07c"), "bc");
    }

    #[test]
    fn bytes_that_are_no_text_become_the_replacement_character() {
        assert_eq!(text(b"a\xffb\xc3(\xe2\x82"), "a\u{fffd}b\u{fffd}(\u{fffd}");
        assert_eq!(text(b"\x9b31m"), "\u{fffd}31m");
    }

    #[test]
    fn actions_are_read_with_their_numbers() {
        let actions: Vec<ScreenToken<'_>> =
            tokens(b"\r\x08\x1b[A\x1b[12A\x1b[2K\x1b[K\x1b[;5H\x1b[99999999999B");
        let expected = [
            ScreenAction::Column(0),
            ScreenAction::Left(1),
            ScreenAction::Up(1),
            ScreenAction::Up(12),
            ScreenAction::EraseInLine(Erase::All),
            ScreenAction::EraseInLine(Erase::ToEnd),
            ScreenAction::Place(0, 4),
            ScreenAction::Down(ARGUMENT_MAX),
        ];
        assert_eq!(actions, expected.map(ScreenToken::ScreenAction));
    }

    #[test]
    fn escapes_are_those_of_every_other_text() {
        for c in ('\0'..' ').chain(['\x7f', '\u{85}', '\u{202e}']) {
            assert_eq!(escaped(c), escape::visible(&c.to_string()));
        }
    }

    #[test]
    fn a_plain_line_is_seen_at_once() {
        assert_eq!(plain("a\tß ✓".as_bytes()), Some("a\tß ✓"));
        for special in ["a\r", "\x1b[m", "\u{202e}", "\u{9b}", "\x7f", "\0"] {
            assert_eq!(plain(special.as_bytes()), None, "{special:?}");
        }
        assert_eq!(plain(b"\xff"), None);
    }

    #[test]
    fn many_strings_without_an_end_take_linear_time() {
        let line = b"\x1b]".repeat(300_000);
        assert_eq!(tokens(&line).len(), 300_000);
        let line = b"\xc2\x9d".repeat(300_000);
        assert_eq!(tokens(&line).len(), 300_000);
    }

    #[test]
    fn what_the_next_bytes_may_complete_is_found() {
        for (bytes, expected) in [
            (&b"abc"[..], 0),
            (b"", 0),
            (b"abc\r", 1),
            ("aé".as_bytes(), 0),
            (b"a\xc3", 1),
            (b"a\xe2\x82", 2),
            (b"a\xf0\x9f\x8e", 3),
            (b"a\xff", 0),
            (b"a\x1b", 1),
            (b"a\x1b[31", 4),
            (b"a\x1b[31m", 0),
            (b"a\x1b]0;ti", 6),
            (b"a\x1b]0;ti\x07", 0),
            (b"a\x1b(", 2),
            (b"a\x1b(B", 0),
        ] {
            assert_eq!(unfinished(bytes), expected, "{bytes:?}");
        }
    }
}
