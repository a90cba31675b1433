//! Splits output into lines as a terminal would show them, with the range of bytes of each.

use super::{
    characters::plain, clean_line::Entry, live_screen::LiveScreen, pieces::Part,
    tokens::TerminalTokens,
};

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
            for (at, token) in TerminalTokens::new(line) {
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
