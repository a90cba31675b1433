//! Lines that were found: a part of each around its match, and how many more there may be.

use std::ops::Range;

use crate::job::{Offset, Stream};

/// A line in which there is a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLine {
    /// The stream that it is a line of.
    pub stream: Stream,
    /// Where the line begins.
    pub offset: Offset,
    /// Its number: how many line ends of all streams are before `offset`, plus one. `None` where that
    /// is unknown: after a gap, and if the search did not begin at offset 0.
    pub number: Option<u64>,
    /// Where its first match begins and ends.
    pub found: Range<Offset>,
    /// The line without its end, or the part of it with the beginning of the match: up to
    /// [`Self::TEXT_BYTES_MAX`] bytes.
    pub text: Vec<u8>,
    /// Where `text` begins: after `offset` if the line has bytes before it.
    pub text_offset: Offset,
    /// The part of `text` that matched; ends where `text` ends if the match goes on after it.
    pub text_found: Range<usize>,
    /// Whether the line has bytes after `text`.
    pub goes_on: bool,
}

impl FoundLine {
    /// The longest part of a line that is returned, bytes.
    pub const TEXT_BYTES_MAX: usize = 4 << 10;

    /// How much of such a part precedes the match where the line is longer, bytes.
    const TEXT_BYTES_BEFORE: usize = 1 << 10;
}

/// Lines that were found, up to a number and to a length.
#[derive(Debug)]
pub struct FoundLines {
    /// In the order in which their ends were read.
    pub lines: Vec<FoundLine>,
    /// How many there were, those included that the caller has taken out of `lines`.
    count: usize,
    lines_max: usize,
    /// What they take as JSON, at most, bytes.
    json_bytes: usize,
    json_bytes_max: usize,
}

/// About how many bytes a line takes as JSON besides its text.
const JSON_BYTES_BESIDE_TEXT: usize = 512;

/// A line with a match, where it lies.
pub(super) struct LineWithMatch<'a, F> {
    pub(super) stream: Stream,
    pub(super) offset: Offset,
    pub(super) number: Option<u64>,
    /// The line, or a window of it.
    pub(super) bytes: &'a [u8],
    /// The match in `bytes`.
    pub(super) found: Range<usize>,
    /// The offset in the output of a place in `bytes`.
    pub(super) offset_of: F,
    /// Whether the line has more bytes after them.
    pub(super) goes_on: bool,
}

impl FoundLines {
    /// Room for this many lines, and for about this many bytes of JSON; for one line in any case.
    pub fn new(lines_max: usize, json_bytes_max: usize) -> Self {
        Self {
            lines: Vec::new(),
            count: 0,
            lines_max,
            json_bytes: 0,
            json_bytes_max,
        }
    }

    /// Whether there is no room for another line.
    pub fn is_full(&self) -> bool {
        self.has_lines_max() || self.json_bytes >= self.json_bytes_max
    }

    /// Whether there are as many lines as there may be.
    pub fn has_lines_max(&self) -> bool {
        self.count >= self.lines_max
    }

    pub(super) fn add<F: Fn(usize) -> Offset>(&mut self, line: LineWithMatch<'_, F>) {
        let LineWithMatch {
            bytes,
            found,
            offset_of,
            ..
        } = line;
        let shown = excerpt(bytes, found.start);
        let end = match found.is_empty() {
            true => offset_of(found.start),
            // The byte after the match may be elsewhere in the output.
            false => offset_of(found.end - 1) + 1,
        };
        let text = bytes[shown.clone()].to_vec();
        self.json_bytes += json_bytes_max(&text) + JSON_BYTES_BESIDE_TEXT;
        self.count += 1;
        self.lines.push(FoundLine {
            stream: line.stream,
            offset: line.offset,
            number: line.number,
            found: offset_of(found.start)..end,
            text_offset: offset_of(shown.start),
            text_found: found.start - shown.start..found.end.min(shown.end) - shown.start,
            goes_on: line.goes_on || shown.end < bytes.len(),
            text,
        });
    }
}

/// The most bytes that a text takes in a string of JSON.
fn json_bytes_max(text: &[u8]) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 | 0x7f => 6,
        0x80.. => "\u{fffd}".len(),
        _ => 1,
    };
    text.iter().map(length).sum()
}

/// The part of a line that is returned for a match that begins at `at`; it cuts no character.
fn excerpt(line: &[u8], at: usize) -> Range<usize> {
    if line.len() <= FoundLine::TEXT_BYTES_MAX {
        return 0..line.len();
    }
    let last = line.len() - FoundLine::TEXT_BYTES_MAX;
    let begin = at.saturating_sub(FoundLine::TEXT_BYTES_BEFORE).min(last);
    let end = begin + FoundLine::TEXT_BYTES_MAX;
    let begin = match begin {
        0 => 0,
        begin => (begin..=at)
            .find(|at| begins_character(line, *at))
            .unwrap_or(begin),
    };
    let end = (at.max(end - 3)..=end).rfind(|at| begins_character(line, *at));
    begin..end.unwrap_or(begin + FoundLine::TEXT_BYTES_MAX)
}

/// Whether no UTF-8 character goes on at this place.
fn begins_character(line: &[u8], at: usize) -> bool {
    line.get(at).is_none_or(|byte| byte & 0xc0 != 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = FoundLine::TEXT_BYTES_MAX;

    #[test]
    fn a_long_line_is_cut_around_the_match_and_between_characters() {
        assert_eq!(excerpt(b"", 0), 0..0);
        assert_eq!(excerpt(&[b'x'; MAX], 9), 0..MAX);
        let long = vec![b'x'; 3 * MAX];
        assert_eq!(excerpt(&long, 0), 0..MAX);
        assert_eq!(excerpt(&long, 5000), 3976..3976 + MAX);
        assert_eq!(excerpt(&long, 3 * MAX), 2 * MAX..3 * MAX);
        let wide = "é漢".repeat(MAX);
        for at in [0, 1024, 1026, 2000, 5002, wide.len() - 5, wide.len()] {
            let shown = excerpt(wide.as_bytes(), at);
            assert!(shown.contains(&at) || shown.end == at, "{at}: {shown:?}");
            assert!((MAX - 6..=MAX).contains(&shown.len()), "{at}: {shown:?}");
            let text = std::str::from_utf8(&wide.as_bytes()[shown]);
            assert!(text.is_ok(), "{at}");
        }
        // No character anywhere.
        let broken = vec![0x80; 2 * MAX];
        assert!(excerpt(&broken, 4000).contains(&4000));
    }

    #[test]
    fn no_line_takes_more_json_than_was_counted() {
        let all: Vec<u8> = (0..=255).collect();
        for text in [&all[..], "é漢🎉".as_bytes(), b"\x00\x7f\"\\", b"plain"] {
            let told = serde_json::json!(String::from_utf8_lossy(text)).to_string();
            assert!(told.len() <= json_bytes_max(text) + 2, "{told}");
        }
    }
}
