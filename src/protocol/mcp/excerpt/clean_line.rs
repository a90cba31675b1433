//! Splits output into lines as a terminal would show them, with the range of bytes of each.

use std::{borrow::Cow, ops::Range};

use super::{
    live_screen::LiveScreen,
    pieces::{Absence, Part},
    tokens::{Tokens, plain},
};

/// A line as a terminal shows it: without sequences, and after carriage returns and backspaces have
/// had their effect. Bytes that are no UTF-8 are U+FFFD, controls other than tabs are escapes.
#[derive(Debug, Clone)]
pub struct CleanLine<'a> {
    /// Offset of its first byte.
    pub from: u64,
    /// Offset after its last byte, its newline included.
    pub to: u64,
    /// Its number, from 1: how many newlines precede it. Known only where everything from offset 0 to
    /// here was read.
    pub number: Option<u64>,
    /// What is shown, without a newline.
    pub text: Cow<'a, str>,
    /// Whether the text is not simply its bytes in their order.
    pub(super) is_rewritten: bool,
    /// Its bytes. For a row that was drawn with others: the bytes of all of them.
    pub(super) bytes: &'a [u8],
}

/// Rows over which the cursor went up, so that their bytes cannot be told apart: their last state.
#[derive(Debug, Clone)]
pub struct Redrawn<'a> {
    /// Offset of the first byte that drew one of them.
    pub from: u64,
    /// Offset after the last byte that did.
    pub to: u64,
    /// How many times the cursor went up to one of them.
    pub times: u64,
    /// The rows. Each has the range of all.
    pub lines: Vec<CleanLine<'a>>,
}

/// A part of an output. The ranges of successive entries meet.
#[derive(Debug, Clone)]
pub enum Entry<'a> {
    /// A line.
    Line(CleanLine<'a>),
    /// Rows that were drawn several times.
    Redrawn(Redrawn<'a>),
    /// A range without bytes.
    Absent(Range<u64>, Absence),
}

impl Entry<'_> {
    /// The range of its bytes.
    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Line(line) => line.from..line.to,
            Self::Redrawn(rows) => rows.from..rows.to,
            Self::Absent(range, _) => range.clone(),
        }
    }
}

/// The entries of an output in order. Takes time linear in the bytes that it reads; holds no more than
/// some rows.
#[derive(Debug)]
pub struct CleanLines<'a> {
    parts: std::slice::Iter<'a, Part<'a>>,
    screen: Option<LiveScreen<'a>>,
    /// What is not read yet of the part that the screen shows, and the offset of its first byte.
    rest: (u64, &'a [u8]),
    /// Number of the next line.
    number: Option<u64>,
}

impl<'a> CleanLines<'a> {
    pub(super) fn new(parts: &'a [Part<'a>]) -> Self {
        let is_begin = matches!(parts.first(), Some(Part::Bytes { from: 0, .. }));
        Self {
            parts: parts.iter(),
            screen: None,
            rest: (0, &[]),
            number: is_begin.then_some(1),
        }
    }

    fn next_part(&mut self) -> Option<Option<Entry<'a>>> {
        match self.parts.next()? {
            Part::Absent(range, why) => {
                self.number = None;
                Some(Some(Entry::Absent(range.clone(), *why)))
            }
            Part::Bytes { from, bytes } => {
                self.screen = Some(LiveScreen::new(*from, bytes, self.number));
                self.rest = (*from, bytes);
                Some(None)
            }
        }
    }
}

/// Reads one line of the rest, or finishes the part if nothing is left. Whether it is finished.
fn read_line<'a>(screen: &mut LiveScreen<'a>, rest: &mut (u64, &'a [u8])) -> bool {
    let (from, bytes) = *rest;
    let newline = memchr::memchr(b'\n', bytes);
    let line = &bytes[..newline.unwrap_or(bytes.len())];
    let unreturned = match line.split_last() {
        Some((b'\r', before)) => before,
        _ => line,
    };
    match plain(unreturned) {
        Some(text) if screen.is_fresh() && (newline.is_some() || line == unreturned) => {
            screen.write(from, text.into());
        }
        _ => {
            for (at, token) in Tokens::new(line) {
                screen.apply(from + at as u64, token);
            }
        }
    }
    let end = newline.map_or(bytes.len(), |at| at + 1);
    *rest = (from + end as u64, &bytes[end..]);
    if newline.is_some() {
        screen.newline(rest.0);
    }
    rest.1.is_empty()
}

impl<'a> Iterator for CleanLines<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(screen) = &mut self.screen else {
                match self.next_part()? {
                    Some(entry) => return Some(entry),
                    None => continue,
                }
            };
            if let Some(entry) = screen.take() {
                return Some(entry);
            }
            if self.rest.1.is_empty() {
                self.screen = None;
            } else if read_line(screen, &mut self.rest) {
                self.number = screen.finish();
            }
        }
    }
}
