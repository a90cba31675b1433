//! The output in reading order, one page after the other.

use std::borrow::Cow;

use super::{
    clean_line::{CleanLine, CleanLines, Entry, Redrawn},
    fold::Folded,
    pieces::{Absence, Part, Pieces},
    rows, tokens,
};
use crate::escape;

/// A page of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The text.
    pub text: String,
    /// Offset of the first byte that is not shown: where the next page begins.
    pub next_offset: u64,
}

impl Page {
    /// Fewest characters of a page: no escape is longer, so each page has a character of the output.
    pub const CHARS_MIN: usize = 10;
}

/// The output from an offset on, in at most `chars_max` characters, which is taken as no less than
/// [`Page::CHARS_MIN`].
///
/// It ends after a line where it can, never within a character, and before a range that was not read.
/// Lines are shown as a terminal would, none is folded or cut in its middle. With `raw` the bytes are
/// shown as they are: bytes that are no UTF-8 as U+FFFD, and all characters but tabs and newlines that
/// a terminal would act on, or would not show, as escapes such as `\x1b` and `\r`.
///
/// Unless the output is final, a character, a terminal sequence or a carriage return that the last
/// bytes may only have begun is left for the next page; a page that has nothing else shows it.
pub fn page(pieces: &Pieces<'_>, from: u64, chars_max: usize, raw: bool) -> Page {
    let mut pieces = pieces.clone();
    pieces.from = from;
    let mut parts = pieces.parts();
    let is_read = |part: &Part<'_>| !matches!(part, Part::Absent(_, Absence::NotRead));
    let read = parts.iter().take_while(|part| is_read(part)).count();
    let is_cut = read < parts.len();
    parts.truncate(read);
    if is_cut || !pieces.is_final {
        hold_back(&mut parts, raw);
    }
    let mut writer = PageWriter {
        page: Page {
            text: String::new(),
            next_offset: from,
        },
        chars: 0,
        chars_max: chars_max.max(Page::CHARS_MIN),
        is_empty: true,
    };
    match raw {
        true => writer.raw(&parts),
        false => writer.clean(&parts, is_cut),
    }
    writer.page
}

/// Takes what the next bytes may complete off the end, unless nothing else is there.
fn hold_back(parts: &mut [Part<'_>], raw: bool) {
    let is_only = parts.len() == 1;
    let Some(Part::Bytes { bytes, .. }) = parts.last_mut() else {
        return;
    };
    let held = match raw {
        true => tokens::unfinished_char(bytes),
        false => tokens::unfinished(bytes),
    };
    let kept = bytes.len() - held;
    if kept == 0 && is_only {
        return;
    }
    match bytes {
        Cow::Borrowed(bytes) => *bytes = &bytes[..kept],
        Cow::Owned(bytes) => bytes.truncate(kept),
    }
}

struct PageWriter {
    page: Page,
    chars: usize,
    chars_max: usize,
    is_empty: bool,
}

impl PageWriter {
    /// Adds a row if it fits.
    fn row(&mut self, text: &str, next_offset: u64) -> bool {
        let newline = usize::from(!self.is_empty);
        let chars = text.chars().count() + newline;
        if self.chars + chars > self.chars_max {
            return false;
        }
        self.add(text, next_offset);
        true
    }

    fn add(&mut self, text: &str, next_offset: u64) {
        if !self.is_empty {
            self.page.text.push('\n');
            self.chars += 1;
        }
        self.page.text.push_str(text);
        self.chars += text.chars().count();
        self.page.next_offset = next_offset;
        self.is_empty = false;
    }

    /// `is_cut`: the bytes after the last part were not read.
    fn clean(&mut self, parts: &[Part<'_>], is_cut: bool) {
        let end = parts.last().map_or(0, |part| part.range().end);
        for entry in CleanLines::new(parts) {
            let fits = match &entry {
                Entry::Line(line) => {
                    let is_partial = is_cut && line.to == end && !line.bytes.ends_with(b"\n");
                    (self.is_empty || !is_partial) && self.row(&line.text, line.to)
                }
                Entry::Redrawn(rows) => self.redrawn(rows),
                Entry::Absent(range, why) => {
                    self.row(&super::notes::absent(range, *why), range.end)
                }
            };
            if fits {
                continue;
            }
            if self.is_empty {
                self.first(&entry);
            }
            return;
        }
    }

    fn redrawn(&mut self, redrawn: &Redrawn<'_>) -> bool {
        let rows = rows::of(&Folded::Redrawn(redrawn.clone()), usize::MAX);
        let texts: Vec<&str> = rows.iter().map(|row| &row.text[..]).collect();
        self.row(&texts.join("\n"), redrawn.to)
    }

    /// As much as fits of an entry that is longer than a page.
    fn first(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Line(line) => self.beginning(line),
            Entry::Redrawn(redrawn) => {
                let rows = rows::of(&Folded::Redrawn(redrawn.clone()), self.chars_max / 2);
                // The note that names the range of all rows, before those for which there is room.
                let note = rows.last().map(|row| &row.text[..]).unwrap_or_default();
                self.add(&shortest(note, self.chars_max), redrawn.to);
                let lines = &rows[..rows.len().saturating_sub(1)];
                let _ = lines.iter().all(|row| self.row(&row.text, redrawn.to));
            }
            Entry::Absent(range, why) => {
                let note = super::notes::absent(range, *why);
                self.add(&shortest(&note, self.chars_max), range.end);
            }
        }
    }

    /// The beginning of a line. Of one whose bytes and text are not the same, the rest is named.
    fn beginning(&mut self, line: &CleanLine<'_>) {
        if line.is_rewritten {
            let text = shortest(&line.shortened(self.chars_max), self.chars_max);
            return self.add(&text, line.to);
        }
        let place = line.place(self.chars_max);
        self.add(&line.text[..place.text], place.offset);
    }

    fn raw(&mut self, parts: &[Part<'_>]) {
        for part in parts {
            match part {
                Part::Bytes { from, bytes } => {
                    if !self.raw_bytes(*from, bytes) {
                        return;
                    }
                }
                Part::Absent(range, why) => {
                    let note = super::notes::absent(range, *why);
                    if !self.row(&note, range.end) {
                        return;
                    }
                    self.raw_text("\n");
                }
            }
        }
    }

    fn raw_text(&mut self, text: &str) {
        self.page.text.push_str(text);
        self.chars += text.chars().count();
        self.is_empty = false;
    }

    /// Whether all bytes fit.
    fn raw_bytes(&mut self, from: u64, bytes: &[u8]) -> bool {
        /// The end of the last line that is shown.
        struct LineEnd {
            text: usize,
            offset: u64,
        }
        let mut last: Option<LineEnd> = None;
        let mut at = 0;
        while at < bytes.len() {
            let (c, length) = match tokens::decode(&bytes[at..]) {
                Ok(c) => (c, c.len_utf8()),
                Err(length) => ('\u{fffd}', length),
            };
            let text = match c {
                '\n' | '\t' => c.to_string(),
                c => escape::visible(c.encode_utf8(&mut [0; 4])),
            };
            let fits = self.chars + text.chars().count() <= self.chars_max;
            if !fits && !self.is_empty {
                if let Some(last) = last {
                    self.page.text.truncate(last.text);
                    self.page.next_offset = last.offset;
                }
                return false;
            }
            self.raw_text(&text);
            at += length;
            self.page.next_offset = from + at as u64;
            if c == '\n' {
                last = Some(LineEnd {
                    text: self.page.text.len(),
                    offset: self.page.next_offset,
                });
            }
        }
        true
    }
}

/// The first characters of a text.
fn shortest(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::mcp::excerpt::Piece;

    fn of(pieces: &Pieces<'_>, from: u64, chars_max: usize) -> (String, u64) {
        let page = page(pieces, from, chars_max, false);
        (page.text, page.next_offset)
    }

    fn raw(bytes: &[u8], from: u64, chars_max: usize) -> (String, u64) {
        let page = page(&Pieces::whole(bytes), from, chars_max, true);
        (page.text, page.next_offset)
    }

    #[test]
    fn a_page_ends_after_a_line() {
        let pieces = Pieces::whole(b"abcde\nfghi\n\x1b[1mjk\x1b[0m\n\nl");
        assert_eq!(of(&pieces, 0, 200), ("abcde\nfghi\njk\n\nl".into(), 24));
        assert_eq!(of(&pieces, 0, 10), ("abcde\nfghi".into(), 11));
        assert_eq!(of(&pieces, 0, 12), ("abcde\nfghi".into(), 11));
        assert_eq!(of(&pieces, 11, 10), ("jk\n\nl".into(), 24));
        assert_eq!(of(&pieces, 24, 10), (String::new(), 24));
        assert_eq!(of(&pieces, 99, 10), (String::new(), 99));
    }

    #[test]
    fn a_longer_line_ends_between_characters() {
        let pieces = Pieces::whole("\x1b[31mgrößer🎉\x1b[0m als\n".as_bytes());
        assert_eq!(of(&pieces, 0, 10), ("größer🎉 al".into(), 24));
        assert_eq!(of(&pieces, 24, 10), ("s".into(), 26));
        // An escape is whole.
        let pieces = Pieces::whole(b"ab\x01\x01\x01cdef");
        assert_eq!(of(&pieces, 0, 10), ("ab\\x01\\x01".into(), 4));
        assert_eq!(of(&pieces, 4, 10), ("\\x01cdef".into(), 9));
        let pieces = Pieces::whole("\u{e0001}\u{e0001}a".as_bytes());
        assert_eq!(of(&pieces, 0, 0), ("\\u{e0001}".into(), 4));
    }

    #[test]
    fn a_rewritten_line_is_one_with_all_of_its_bytes() {
        let bytes = format!(
            "{}\n",
            (0..=100)
                .map(|n| format!("\rload {n}%"))
                .collect::<String>()
        );
        let end = bytes.len() as u64;
        let pieces = Pieces::whole(bytes.as_bytes());
        assert_eq!(of(&pieces, 0, 200), ("load 100%".into(), end));
        assert_eq!(of(&pieces, 0, 10), ("load 100%".into(), end));
        let pieces = Pieces::whole(b"a 1%\nb 1%\n\x1b[2Aa 2%\nb 2%\nc");
        let note = "[2 lines above redrawn 1 time, bytes 0-24]";
        assert_eq!(of(&pieces, 0, 200), (format!("a 2%\nb 2%\n{note}\nc"), 25));
        assert_eq!(of(&pieces, 0, 50), (format!("{note}\na 2%"), 24));
    }

    #[test]
    fn what_is_still_to_come_is_left_for_the_next_page() {
        let mut pieces = Pieces::whole("name? é".as_bytes());
        pieces.pieces[0].bytes = &pieces.pieces[0].bytes[..7];
        pieces.output_bytes = 7;
        pieces.is_final = false;
        assert_eq!(of(&pieces, 0, 99), ("name? ".into(), 6));
        // A page shows it where there is nothing else.
        assert_eq!(of(&pieces, 6, 99), ("\u{fffd}".into(), 7));
        assert_eq!(page(&pieces, 0, 99, true).next_offset, 6);
        pieces.is_final = true;
        assert_eq!(of(&pieces, 0, 99), ("name? \u{fffd}".into(), 7));
        let mut pieces = Pieces::whole(b"ab\x1b[3");
        pieces.is_final = false;
        assert_eq!(of(&pieces, 0, 99), ("ab".into(), 2));
        let mut pieces = Pieces::whole(b"ab\r");
        pieces.is_final = false;
        assert_eq!(of(&pieces, 0, 99), ("ab".into(), 2));
        assert_eq!(page(&pieces, 0, 99, true).text, "ab\\r");
    }

    #[test]
    fn a_page_ends_before_what_was_not_read() {
        let piece = |from, text: &'static str| Piece {
            from,
            bytes: text.as_bytes(),
        };
        let mut pieces = Pieces::new(vec![piece(0, "ab\ncd\nef"), piece(100, "gh\n")], 200);
        assert_eq!(of(&pieces, 0, 99), ("ab\ncd".into(), 6));
        assert_eq!(of(&pieces, 6, 99), ("ef".into(), 8));
        assert_eq!(of(&pieces, 8, 99), (String::new(), 8));
        pieces.dropped.push(8..100);
        let note = "[… bytes 8-100 dropped]";
        assert_eq!(of(&pieces, 3, 99), (format!("cd\nef\n{note}\ngh"), 103));
        let raw = page(&pieces, 3, 99, true);
        assert_eq!(
            (raw.text, raw.next_offset),
            (format!("cd\nef\n{note}\ngh\n"), 103)
        );
    }

    #[test]
    fn a_raw_page_has_everything_and_acts_on_nothing() {
        let bytes = b"a\tb\r\n\x1b[31mred\x07\xff\xe2\x80\xae\xc3\xa9";
        let text = "a\tb\\r\n\\x1b[31mred\\x07\u{fffd}\\u{202e}é";
        assert_eq!(raw(bytes, 0, 200), (text.into(), 20));
        assert_eq!(raw(bytes, 0, 10), ("a\tb\\r\n".into(), 5));
        assert_eq!(raw(bytes, 5, 10), ("\\x1b[31mre".into(), 12));
        let text = "é漢🎉".repeat(4);
        assert_eq!(raw(text.as_bytes(), 0, 10), ("é漢🎉é漢🎉é漢🎉é".into(), 29));
    }
}
