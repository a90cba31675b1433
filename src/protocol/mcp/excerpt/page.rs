//! The output in reading order, one page after the other.

use std::borrow::Cow;

use super::{
    characters,
    clean_line::{CleanLine, Entry, Redrawn},
    clean_lines::CleanLines,
    fold::Folded,
    pieces::{Absence, Part, Pieces},
    rows, unfinished,
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
        true => unfinished::unfinished_char(bytes),
        false => unfinished::unfinished(bytes),
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
            let (c, length) = match characters::decode(&bytes[at..]) {
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
#[path = "page_tests.rs"]
mod tests;
