//! Finds the lines of an output in which something is, piece by piece.
//!
//! A line is a line of one stream: what other streams write in between does not cut it. A gap ends it.
//! Most lines are searched where they lie, many at once; only a line whose end is in a later chunk is
//! collected, and one that is longer than a window is searched window by window.

mod found;
mod matcher;
pub mod pattern;
pub mod position;
mod threads;
mod unfinished;

use std::ops::Range;

pub use found::{FoundLine, FoundLines};
pub use unfinished::LINE_MATCH_BYTES_MAX;

use self::{
    matcher::{LineMatcher, Sought},
    pattern::LinePattern,
    position::{LinePosition, OpenLine},
    unfinished::{Due, UnfinishedLine},
};
use super::Item;
use crate::job::{Chunk, Offset, Stream};

/// A search through the lines of outputs, one output after the other.
#[derive(Debug)]
pub struct LineSearch {
    matcher: LineMatcher,
    /// Only these streams; `None`: all.
    wanted: Option<Vec<Stream>>,
    /// The unfinished line of each stream, by its code.
    lines: [UnfinishedLine; 3],
    /// By stream: where its search begins.
    begin: [Offset; 3],
    /// The next byte to read.
    next: Offset,
    /// The line ends before it; `None` after a gap.
    line_ends: Option<u64>,
}

/// How far a search has come in the items that it was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ItemProgress {
    /// Index of the item that is being searched.
    item: usize,
    /// How many bytes of that item were read.
    bytes: usize,
}

/// Why a call of the search has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Searched {
    /// All was searched that it was given.
    Through,
    /// The turn is over: call it again with the same items.
    Paused,
    /// No further line may be found.
    Full,
}

/// Ends the present function unless all was searched.
macro_rules! through {
    ($searched:expr) => {
        match $searched {
            Searched::Through => {}
            other => return other,
        }
    };
}

impl LineSearch {
    /// A search for a pattern in these streams (`None`: in all), at the beginning of an output.
    pub fn new(pattern: LinePattern, wanted: Option<Vec<Stream>>) -> Self {
        Self {
            matcher: LineMatcher::new(pattern),
            wanted,
            lines: [(); 3].map(|()| UnfinishedLine::new()),
            begin: [0; 3],
            next: 0,
            line_ends: Some(0),
        }
    }

    /// Begins another output, or goes on in one. Give it the items from `position.from` on.
    pub fn begin(&mut self, position: &LinePosition) {
        self.matcher.forget_paused();
        self.next = position.from;
        self.line_ends = position.line_ends;
        for (index, stream) in position.streams.iter().enumerate() {
            self.lines[index].restore(stream);
            self.begin[index] = stream.begin;
        }
    }

    /// How far it has come. [`Self::begin`] goes on there.
    pub fn position(&self) -> LinePosition {
        let mut position = LinePosition {
            from: self.next,
            line_ends: self.line_ends,
            streams: LinePosition::begin(self.next).streams,
        };
        for (index, line) in self.lines.iter().enumerate() {
            let mut stream = line.position(self.next);
            // It may go on in the middle of what was read before.
            stream.begin = stream.begin.max(self.begin[index]);
            if stream.begin < position.from {
                position.from = stream.begin;
                position.line_ends = line.line_ends_before();
            }
            position.streams[index] = stream;
        }
        position
    }

    /// The next byte that it reads.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Another piece of the output follows.
    pub fn begin_piece(&mut self) {
        self.matcher.begin_piece();
    }

    /// Searches the next items, from `at` on, until about `visits` states were visited.
    pub fn feed(
        &mut self,
        items: &[Item],
        at: &mut ItemProgress,
        found: &mut FoundLines,
        visits: &mut u64,
    ) -> Searched {
        while let Some(item) = items.get(at.item) {
            match item {
                Item::Chunk(chunk) => through!(self.chunk(chunk, &mut at.bytes, found, visits)),
                Item::Gap(gap) => {
                    through!(self.finish(found, visits));
                    self.next = self.next.max(gap.to);
                    self.line_ends = None;
                }
            }
            at.item += 1;
            at.bytes = 0;
        }
        for index in 0..self.lines.len() {
            if self.lines[index].is_interrupted(self.next) {
                self.lines[index].due = Due::Rest;
            }
            through!(self.search_due(index, found, visits));
        }
        Searched::Through
    }

    /// Searches the lines that the output ends in.
    pub fn finish(&mut self, found: &mut FoundLines, visits: &mut u64) -> Searched {
        for index in 0..self.lines.len() {
            if !self.lines[index].bytes.is_empty() {
                self.lines[index].due = Due::Rest;
            }
            through!(self.search_due(index, found, visits));
            self.lines[index].end();
        }
        Searched::Through
    }

    fn chunk(
        &mut self,
        chunk: &Chunk,
        at: &mut usize,
        found: &mut FoundLines,
        visits: &mut u64,
    ) -> Searched {
        self.next = chunk.offset + *at as u64;
        let index = usize::from(chunk.stream.code());
        let is_wanted = self
            .wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains(&chunk.stream));
        let unneeded = match is_wanted {
            true => self.begin[index].saturating_sub(chunk.offset),
            false => u64::MAX,
        };
        let unneeded = usize::try_from(unneeded).unwrap_or(usize::MAX);
        self.read_to(chunk, at, unneeded.min(chunk.data.len()));
        while *at < chunk.data.len() {
            let line = &mut self.lines[index];
            if line.due == Due::No && line.is_interrupted(self.next) {
                line.due = Due::Rest;
            }
            through!(self.search_due(index, found, visits));
            match self.lines[index].open {
                Some(open) if open.is_found => self.skip_line(index, chunk, at),
                Some(_) => self.collect(index, chunk, at),
                None => through!(self.search_lines(index, chunk, at, found, visits)),
            }
            if *visits == 0 {
                return Searched::Paused;
            }
        }
        self.search_due(index, found, visits)
    }

    /// Marks the bytes up to `end` as read.
    fn read_to(&mut self, chunk: &Chunk, at: &mut usize, end: usize) {
        if end > *at {
            let line_ends = || memchr::memchr_iter(b'\n', &chunk.data[*at..end]).count() as u64;
            self.line_ends = self.line_ends.map(|before| before + line_ends());
            self.next = chunk.offset + end as u64;
            *at = end;
        }
    }

    /// Reads to the end of a line that was found already.
    fn skip_line(&mut self, index: usize, chunk: &Chunk, at: &mut usize) {
        let end = memchr::memchr(b'\n', &chunk.data[*at..]);
        let end = end.map(|end| *at + end + 1);
        if end.is_some() {
            self.lines[index].end();
        }
        self.read_to(chunk, at, end.unwrap_or(chunk.data.len()));
    }

    /// Adds bytes to the unfinished line, up to its end or that of the window.
    fn collect(&mut self, index: usize, chunk: &Chunk, at: &mut usize) {
        let rest = &chunk.data[*at..];
        let line = &mut self.lines[index];
        let end = memchr::memchr(b'\n', rest);
        let taken = end.unwrap_or(rest.len()).min(line.room());
        line.push(&rest[..taken], self.next, self.line_ends);
        let is_whole = end == Some(taken);
        if is_whole {
            line.due = Due::Rest;
        } else if line.room() == 0 {
            line.due = Due::Window;
        }
        let read = *at + taken + usize::from(is_whole);
        self.read_to(chunk, at, read);
    }

    /// Searches the whole lines that begin here, up to the first that is found. If there is none, opens
    /// a line.
    fn search_lines(
        &mut self,
        index: usize,
        chunk: &Chunk,
        at: &mut usize,
        found: &mut FoundLines,
        visits: &mut u64,
    ) -> Searched {
        let rest = &chunk.data[*at..];
        let Some(last) = memchr::memrchr(b'\n', rest) else {
            self.lines[index].open = Some(OpenLine {
                offset: self.next,
                number: self.line_ends.map(|before| before + 1),
                is_found: false,
            });
            return Searched::Through;
        };
        let rest = &rest[..self.matcher.piece_end(&rest[..=last])];
        let last = rest.len() - 1;
        let range = match self.matcher.find(rest, 0..last, visits) {
            Sought::Paused => return Searched::Paused,
            Sought::Nothing => {
                let read = *at + last + 1;
                self.read_to(chunk, at, read);
                return Searched::Through;
            }
            Sought::Match(range) => range,
        };
        let begin = memchr::memrchr(b'\n', &rest[..range.start]).map_or(0, |end| end + 1);
        let end = memchr::memchr(b'\n', &rest[range.end..]).map_or(last, |end| range.end + end);
        let (base, first) = (self.next, *at);
        self.read_to(chunk, at, first + begin);
        found.add(found::LineWithMatch {
            stream: chunk.stream,
            offset: base + begin as u64,
            number: self.line_ends.map(|before| before + 1),
            bytes: &rest[begin..end],
            found: range.start - begin..range.end - begin,
            offset_of: |at| base + (begin + at) as u64,
            goes_on: false,
        });
        self.read_to(chunk, at, first + end + 1);
        full_or_through(found)
    }

    /// Searches what is due of the unfinished line.
    fn search_due(&mut self, index: usize, found: &mut FoundLines, visits: &mut u64) -> Searched {
        let line = &mut self.lines[index];
        let Some(open) = line.open.filter(|_| line.due != Due::No) else {
            return Searched::Through;
        };
        let is_rest = line.due == Due::Rest;
        // What follows a window is unknown: its last byte only says what follows the others.
        let end = line.bytes.len() - usize::from(!is_rest);
        let range = usize::from(line.has_context).min(end)..end;
        let range = match self.matcher.find(&line.bytes, range, visits) {
            Sought::Paused => return Searched::Paused,
            Sought::Nothing if is_rest => {
                line.end();
                return Searched::Through;
            }
            Sought::Nothing => {
                line.slide();
                return Searched::Through;
            }
            Sought::Match(range) => range,
        };
        found.add(found_in(line, index, open, range, is_rest));
        match is_rest {
            true => line.end(),
            false => line.set_found(),
        }
        full_or_through(found)
    }
}

fn found_in<'a>(
    line: &'a UnfinishedLine,
    index: usize,
    open: OpenLine,
    found: Range<usize>,
    is_rest: bool,
) -> found::LineWithMatch<'a, impl Fn(usize) -> Offset + 'a> {
    found::LineWithMatch {
        stream: u8::try_from(index)
            .ok()
            .and_then(Stream::from_code)
            .unwrap_or(Stream::Stdout),
        offset: open.offset,
        number: open.number,
        bytes: &line.bytes,
        found,
        offset_of: |at| line.offset_of(at),
        goes_on: !is_rest,
    }
}

fn full_or_through(found: &FoundLines) -> Searched {
    match found.is_full() {
        true => Searched::Full,
        false => Searched::Through,
    }
}

#[cfg(test)]
#[path = "line_search_tests.rs"]
mod tests;
