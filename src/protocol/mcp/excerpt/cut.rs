//! Shortens a line in its middle, with the range of bytes that is left out.

use super::{
    characters::escaped,
    clean_line::CleanLine,
    notes::counted,
    tokens::{TerminalToken, TerminalTokens},
};

/// Fewest characters of a line that are shown on each side of a cut.
const SIDE_CHARS_MIN: usize = 10;

impl CleanLine<'_> {
    /// How many characters its text has.
    pub(super) fn chars(&self) -> usize {
        self.text.chars().count()
    }

    /// Its text in about `chars_max` characters: whole if it is not longer, else its beginning and its end
    /// with a note between them. The note and ten characters on each side are always there.
    pub(super) fn shortened(&self, chars_max: usize) -> String {
        let chars = match self.text.len() {
            // No more characters than bytes.
            bytes if bytes <= chars_max => return self.text.to_string(),
            _ => self.chars(),
        };
        if chars <= chars_max {
            return self.text.to_string();
        }
        let note_chars = self.note_chars_max();
        let kept = chars_max.saturating_sub(note_chars).max(2 * SIDE_CHARS_MIN);
        // The note takes more than it would save.
        if kept + note_chars >= chars {
            return self.text.to_string();
        }
        let (head, tail) = self.cut(kept - kept / 2, chars - kept / 2);
        format!(
            "{}{}{}",
            &self.text[..head.text],
            self.note(head.offset, tail.offset),
            &self.text[tail.text..]
        )
    }

    /// How many characters a note has at most.
    fn note_chars_max(&self) -> usize {
        let digits = self.to.to_string().len();
        let shortest = self.note(self.from, self.to).chars().count();
        shortest + digits - self.from.to_string().len()
    }

    fn note(&self, from: u64, to: u64) -> String {
        match self.is_rewritten {
            true => format!("[… cut; the whole line is bytes {}-{}]", self.from, self.to),
            false => format!("[… {} cut, bytes {from}-{to}]", counted(to - from, "byte")),
        }
    }

    /// Where a character is, or the escape of which it is a part.
    pub(super) fn place(&self, char: usize) -> Place {
        let mut place = Place::default();
        for each in self.places() {
            if each.char > char {
                break;
            }
            place = each;
        }
        self.within(place, char)
    }

    /// The places between which a line is cut to show this many characters before the cut and those from
    /// another one on after it. An escape is shown whole or not at all.
    fn cut(&self, head: usize, tail: usize) -> (Place, Place) {
        let mut before = Place::default();
        let mut after = Place::default();
        let mut places = self.places();
        for each in places.by_ref() {
            if each.char <= head {
                before = each;
            }
            if each.char > tail {
                // Behind the escape in which the place lies.
                let tail = match after.is_text || after.char == tail {
                    true => self.within(after, tail),
                    false => each,
                };
                return (self.within(before, head), tail);
            }
            after = each;
        }
        let tail = match after.is_text || after.char == tail {
            true => self.within(after, tail),
            false => self.end(),
        };
        (self.within(before, head), tail)
    }

    fn end(&self) -> Place {
        Place {
            char: self.chars(),
            text: self.text.len(),
            offset: self.to,
            is_text: false,
        }
    }

    /// Goes on within a run of text.
    fn within(&self, place: Place, char: usize) -> Place {
        if !place.is_text {
            return place;
        }
        let rest = &self.text[place.text..];
        let at = rest.char_indices().nth(char - place.char);
        let bytes = at.map_or(rest.len(), |(at, _)| at);
        Place {
            char,
            text: place.text + bytes,
            offset: place.offset + bytes as u64,
            is_text: true,
        }
    }

    /// The beginnings of its runs of text and escapes. For a rewritten line, where bytes and text are
    /// not the same, the text is one run whose offsets mean nothing.
    fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let begin = Place {
            offset: self.from,
            is_text: true,
            ..Place::default()
        };
        let line = self.bytes.split(|byte| *byte == b'\n').next();
        let bytes = if self.is_rewritten { None } else { line };
        let rewritten = bytes.is_none().then_some(begin);
        let mut next = Place::default();
        let places =
            TerminalTokens::new(bytes.unwrap_or_default()).filter_map(move |(at, token)| {
                let (chars, bytes) = match token {
                    TerminalToken::Text(text) => (text.chars().count(), text.len()),
                    TerminalToken::Escaped(c) => (escaped(c).len(), escaped(c).len()),
                    TerminalToken::Invalid => (1, '\u{fffd}'.len_utf8()),
                    TerminalToken::Action(_) | TerminalToken::Ignored => return None,
                };
                let place = Place {
                    offset: self.from + at as u64,
                    is_text: matches!(token, TerminalToken::Text(_)),
                    ..next
                };
                next.char += chars;
                next.text += bytes;
                Some(place)
            });
        rewritten.into_iter().chain(places)
    }
}

/// A place in a line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// How many characters of the text precede it.
    pub(super) char: usize,
    /// How many bytes of the text precede it.
    pub(super) text: usize,
    /// Its offset in the output.
    pub(super) offset: u64,
    /// Whether bytes and text are the same from here to the next place.
    is_text: bool,
}
