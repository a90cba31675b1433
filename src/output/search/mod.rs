//! Searches output for a pattern, piece by piece: where the first match ends, however the bytes
//! were cut.
//!
//! It keeps the automaton's threads and no bytes. What is read, and when, is its caller's business.

pub mod pattern;

use std::ops::Range;

use regex_automata::{
    nfa::thompson::State,
    util::{look::Look, primitives::StateID},
};

use super::Item;
use crate::job::{Offset, Stream};
use pattern::{Pattern, alternates, step};

/// Longest match that is found, bytes.
pub const MATCH_BYTES_MAX: u64 = 64 << 10;

/// A search as far as it has come. The answer is the earliest place where a match ends, so it does
/// not depend on how the bytes came; what decides it is looked at in order and never again.
///
/// The bytes of the streams that are searched, from the search's beginning to the output's end,
/// are one text; a gap ends it and begins another one. `$` and its like wait for the byte behind
/// them, or for the text's end.
#[derive(Debug)]
pub struct Search {
    pattern: Pattern,
    stream: Option<Stream>,
    /// Newest first, so that of two in one state the shorter match goes on.
    threads: Vec<Thread>,
    /// Where the text begins in the job's output.
    begin: Offset,
    /// How many bytes of the text were read.
    read: u64,
    /// The last of them.
    before: Option<u8>,
    /// Where it ends in the job's output.
    end: Offset,
}

/// A match that has begun.
#[derive(Debug, Clone, Copy)]
struct Thread {
    state: StateID,
    /// How many bytes of the text stand before it.
    start: u64,
}

/// How far a search has come in what was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    item: usize,
    /// How many bytes of that item were read.
    bytes: usize,
    is_through: bool,
}

impl Progress {
    /// Whether all of it was looked at, or a match was found.
    pub fn is_through(&self) -> bool {
        self.is_through
    }
}

/// What stands behind a place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextByte {
    Byte(u8),
    /// Nothing, ever.
    End,
    /// Nobody knows yet.
    Unknown,
}

/// What one piece of work needs and the next need not know.
struct SearchScratch {
    /// How many states have been looked at: what a search costs.
    visits: u64,
    /// By state: the last place to which a thread has come in it.
    seen: Vec<u32>,
    /// Counts the places, from 1.
    place: u32,
    open: Vec<StateID>,
    /// The threads that read the next byte.
    settled: Vec<Thread>,
}

/// Whether there is a match in these bytes, which are all of a text.
pub fn is_in(pattern: &Pattern, bytes: &[u8]) -> bool {
    let mut search = Search::new(pattern.clone(), None, 0);
    let mut desk = SearchScratch::new(pattern);
    let found = search.bytes(&mut desk, (0, bytes), &mut 0, u64::MAX);
    found.is_some() || search.finish().is_some()
}

/// How many states are looked at in one turn of a search: a hundredth of a second, more or less. The
/// bytes that this is depend on the pattern.
pub const TURN_VISITS: u64 = 1_000_000;

/// As many bytes that begin no match cost as much as one state.
const BARREN_BYTES_PER_VISIT: u64 = 16;

impl Search {
    /// A search that begins at `from`.
    pub fn new(pattern: Pattern, stream: Option<Stream>, from: Offset) -> Self {
        Self {
            pattern,
            stream,
            threads: Vec::new(),
            begin: from,
            read: 0,
            before: None,
            end: from,
        }
    }

    /// Goes on with what was read, in offset order; where the first match ends.
    pub fn feed(&mut self, items: &[Item]) -> Option<Offset> {
        self.find(items).map(|found| found.end)
    }

    /// The same, with where that match begins: of several that end there, the shortest. Only where
    /// all streams are searched does a place in the text tell one in the output.
    pub fn find(&mut self, items: &[Item]) -> Option<Range<Offset>> {
        self.find_some(items, &mut Progress::default(), u64::MAX)
    }

    /// The same, in turns: goes on from `at` until `visits_max` states were looked at, and one byte
    /// more at least. To be called with the same items until `at` is through.
    pub fn find_some(
        &mut self,
        items: &[Item],
        at: &mut Progress,
        visits_max: u64,
    ) -> Option<Range<Offset>> {
        let mut desk = SearchScratch::new(&self.pattern);
        while let Some(item) = items.get(at.item) {
            let found = match item {
                Item::Chunk(chunk) if self.stream.is_none_or(|only| only == chunk.stream) => {
                    let data = (chunk.offset, &chunk.data[..]);
                    self.bytes(&mut desk, data, &mut at.bytes, visits_max)
                }
                Item::Chunk(_) => None,
                Item::Gap(gap) => self.cut(&mut desk, gap.to),
            };
            if found.is_some() {
                at.is_through = true;
                return found;
            }
            if matches!(item, Item::Chunk(chunk) if (1..chunk.data.len()).contains(&at.bytes)) {
                return None;
            }
            at.item += 1;
            at.bytes = 0;
        }
        at.is_through = true;
        let found = self.settle(&mut desk, NextByte::Unknown);
        // It may be long until there is more.
        self.threads.shrink_to_fit();
        found
    }

    /// Nothing follows any more; where the first match ends.
    pub fn finish(&mut self) -> Option<Offset> {
        self.find_last().map(|found| found.end)
    }

    /// The same, with where that match begins, as [`Self::find`].
    pub fn find_last(&mut self) -> Option<Range<Offset>> {
        self.settle(&mut SearchScratch::new(&self.pattern), NextByte::End)
    }

    /// Reads bytes that begin at an offset, from `at` on, until so many states were looked at.
    fn bytes(
        &mut self,
        desk: &mut SearchScratch,
        (offset, data): (Offset, &[u8]),
        at: &mut usize,
        visits_max: u64,
    ) -> Option<Range<Offset>> {
        let mut begun = false;
        while *at < data.len() && !(begun && desk.visits >= visits_max) {
            begun = true;
            if self.threads.is_empty() {
                let barren = self.pattern.barren(&data[*at..]);
                if barren > 0 {
                    *at += barren;
                    desk.visits += 1 + barren as u64 / BARREN_BYTES_PER_VISIT;
                    self.pass(barren as u64, data[*at - 1], offset + *at as u64);
                    continue;
                }
            }
            let byte = data[*at];
            if let Some(found) = self.settle(desk, NextByte::Byte(byte)) {
                return Some(found);
            }
            *at += 1;
            self.pass(1, byte, offset + *at as u64);
            self.advance(desk, byte);
        }
        None
    }

    /// The text ends here, and another one begins at `to`.
    fn cut(&mut self, desk: &mut SearchScratch, to: Offset) -> Option<Range<Offset>> {
        let found = self.settle(desk, NextByte::End);
        *self = Self::new(self.pattern.clone(), self.stream, to);
        found
    }

    fn pass(&mut self, bytes: u64, last: u8, end: Offset) {
        self.read += bytes;
        self.before = Some(last);
        self.end = end;
    }

    /// Lets all threads, and one that begins here, come to where they read a byte; the match that
    /// ends here, if one does.
    fn settle(&self, desk: &mut SearchScratch, next: NextByte) -> Option<Range<Offset>> {
        desk.go_on();
        let begins = Thread {
            state: self.pattern.nfa().start_anchored(),
            start: self.read,
        };
        let all = std::iter::once(&begins).chain(&self.threads);
        for thread in all.take_while(|thread| self.read - thread.start <= MATCH_BYTES_MAX) {
            if self.follow(desk, *thread, next) {
                return Some(self.begin + thread.start..self.end);
            }
        }
        None
    }

    /// Follows one thread; whether it is a match.
    fn follow(&self, desk: &mut SearchScratch, thread: Thread, next: NextByte) -> bool {
        desk.open.push(thread.state);
        while let Some(id) = desk.open.pop() {
            if !desk.visit(id) {
                continue;
            }
            match self.pattern.nfa().state(id) {
                State::Match { .. } => return true,
                State::Look { look, next: then } if holds(*look, self.before, next) => {
                    desk.open.push(*then);
                }
                State::Look { .. } => {}
                state if state.is_epsilon() => desk.open.extend(alternates(state)),
                _ => desk.settled.push(Thread {
                    state: id,
                    ..thread
                }),
            }
        }
        false
    }

    /// Lets the settled threads read a byte.
    fn advance(&mut self, desk: &SearchScratch, byte: u8) {
        self.threads.clear();
        let nfa = self.pattern.nfa();
        let moved = desk.settled.iter().filter_map(|thread| {
            let state = step(nfa.state(thread.state), byte)?;
            Some(Thread { state, ..*thread })
        });
        self.threads.extend(moved);
    }
}

impl SearchScratch {
    fn new(pattern: &Pattern) -> Self {
        Self {
            visits: 0,
            seen: vec![0; pattern.nfa().states().len()],
            place: 0,
            open: Vec::new(),
            settled: Vec::new(),
        }
    }

    fn go_on(&mut self) {
        self.place += 1;
        self.open.clear();
        self.settled.clear();
    }

    /// Whether nobody was there before.
    fn visit(&mut self, id: StateID) -> bool {
        self.visits += 1;
        std::mem::replace(&mut self.seen[id.as_usize()], self.place) != self.place
    }
}

/// Whether a look at the neighbours holds. What nobody knows yet does not hold yet.
fn holds(look: Look, before: Option<u8>, next: NextByte) -> bool {
    let is = |byte: u8| next == NextByte::Byte(byte);
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let word_before = before.is_some_and(word);
    let word_next = matches!(next, NextByte::Byte(byte) if word(byte));
    let known = next != NextByte::Unknown;
    match look {
        Look::Start => before.is_none(),
        Look::End => next == NextByte::End,
        Look::StartLF => before.is_none_or(|byte| byte == b'\n'),
        Look::EndLF => next == NextByte::End || is(b'\n'),
        Look::StartCRLF => {
            before.is_none_or(|byte| byte == b'\n')
                || (before == Some(b'\r') && known && !is(b'\n'))
        }
        Look::EndCRLF => next == NextByte::End || is(b'\r') || (is(b'\n') && before != Some(b'\r')),
        Look::WordAscii => known && word_before != word_next,
        Look::WordAsciiNegate => known && word_before == word_next,
        Look::WordStartAscii => !word_before && word_next,
        Look::WordEndAscii => word_before && known && !word_next,
        Look::WordStartHalfAscii => !word_before,
        Look::WordEndHalfAscii => known && !word_next,
        // Refused when the pattern was compiled.
        Look::WordUnicode
        | Look::WordUnicodeNegate
        | Look::WordStartUnicode
        | Look::WordEndUnicode
        | Look::WordStartHalfUnicode
        | Look::WordEndHalfUnicode => false,
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
