//! Searches output for a pattern, piece by piece, and finds where the first match ends, however the
//! bytes were cut.
//!
//! It simulates the pattern's NFA (a Pike VM) and keeps the NFA's threads, not the bytes. The caller
//! reads the output and decides how much is searched at once.

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

/// A search in progress. Its result is the earliest offset at which a match ends, so it does not
/// depend on how the bytes were cut. Each byte is read once.
///
/// The bytes of the streams that are searched, from the search's beginning to the output's end,
/// are one text; a gap ends it and begins another one. `$`, `\b` and the like wait for the next
/// byte or for the end of the text.
#[derive(Debug)]
pub struct Search {
    pattern: Pattern,
    stream: Option<Stream>,
    /// Newest first, so that of two threads in one state the one with the shorter match stays.
    threads: Vec<Thread>,
    /// Where the text begins in the job's output.
    begin: Offset,
    /// How many bytes of the text were read.
    read: u64,
    /// The last byte that was read; `None` at the beginning of the text.
    before: Option<u8>,
    /// The offset in the job's output after the last byte that was read.
    end: Offset,
}

/// A match that has begun.
#[derive(Debug, Clone, Copy)]
struct Thread {
    state: StateID,
    /// Where the match begins, in bytes from the beginning of the text.
    start: u64,
}

/// How far a search has come in the items that it was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Index of the item that is being searched.
    item: usize,
    /// How many bytes of that item were read.
    bytes: usize,
    is_through: bool,
}

impl Progress {
    /// Whether all items were searched, or a match was found.
    pub fn is_through(&self) -> bool {
        self.is_through
    }
}

/// What follows the last byte that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::output) enum NextByte {
    Byte(u8),
    /// The text ends here.
    End,
    /// The next byte has not been read yet.
    Unknown,
}

/// Memory of one call, which the search need not keep until the next one.
struct SearchScratch {
    /// How many states have been visited: the cost of the search.
    visits: u64,
    /// By state: the last step in which it was visited.
    seen: Vec<u32>,
    /// Counts the steps, one for each position in the text, from 1.
    step: u32,
    open: Vec<StateID>,
    /// The threads that wait for the next byte: the epsilon closure of all threads.
    closure: Vec<Thread>,
}

/// Whether there is a match in these bytes, which are a whole text.
pub fn is_in(pattern: &Pattern, bytes: &[u8]) -> bool {
    let mut search = Search::new(pattern.clone(), None, 0);
    let mut scratch = SearchScratch::new(pattern);
    let found = search.bytes(&mut scratch, (0, bytes), &mut 0, u64::MAX);
    found.is_some() || search.finish().is_some()
}

/// How many states a search visits in one turn, about 10 ms of work. How many bytes that is depends
/// on the pattern.
pub const TURN_VISITS: u64 = 1_000_000;

/// How many bytes that begin no match cost as much as one visit of a state.
pub(in crate::output) const SKIPPED_BYTES_PER_VISIT: u64 = 16;

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

    /// Searches the next items, in offset order; returns where the first match ends.
    pub fn feed(&mut self, items: &[Item]) -> Option<Offset> {
        self.find(items).map(|found| found.end)
    }

    /// The same, and where that match begins: of several that end there, the shortest. The beginning
    /// is an offset in the output only if all streams are searched.
    pub fn find(&mut self, items: &[Item]) -> Option<Range<Offset>> {
        self.find_some(items, &mut Progress::default(), u64::MAX)
    }

    /// The same, in turns: goes on from `at` until `visits_max` states were visited, and reads at
    /// least one byte. Call it with the same items until `at` is through.
    pub fn find_some(
        &mut self,
        items: &[Item],
        at: &mut Progress,
        visits_max: u64,
    ) -> Option<Range<Offset>> {
        let mut scratch = SearchScratch::new(&self.pattern);
        while let Some(item) = items.get(at.item) {
            let found = match item {
                Item::Chunk(chunk) if self.stream.is_none_or(|only| only == chunk.stream) => {
                    let data = (chunk.offset, &chunk.data[..]);
                    self.bytes(&mut scratch, data, &mut at.bytes, visits_max)
                }
                Item::Chunk(_) => None,
                Item::Gap(gap) => self.cut(&mut scratch, gap.to),
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
        let found = self.close_threads(&mut scratch, NextByte::Unknown);
        // It may be long until there is more output.
        self.threads.shrink_to_fit();
        found
    }

    /// Ends the text; returns where the first match ends.
    pub fn finish(&mut self) -> Option<Offset> {
        self.find_last().map(|found| found.end)
    }

    /// The same, and where that match begins, as [`Self::find`].
    pub fn find_last(&mut self) -> Option<Range<Offset>> {
        self.close_threads(&mut SearchScratch::new(&self.pattern), NextByte::End)
    }

    /// Reads bytes that begin at an offset, from `at` on, until `visits_max` states were visited.
    fn bytes(
        &mut self,
        scratch: &mut SearchScratch,
        (offset, data): (Offset, &[u8]),
        at: &mut usize,
        visits_max: u64,
    ) -> Option<Range<Offset>> {
        let mut begun = false;
        while *at < data.len() && !(begun && scratch.visits >= visits_max) {
            begun = true;
            if self.threads.is_empty() {
                let skipped = self.pattern.no_match_before(&data[*at..]);
                if skipped > 0 {
                    *at += skipped;
                    scratch.visits += 1 + skipped as u64 / SKIPPED_BYTES_PER_VISIT;
                    self.note_read(skipped as u64, data[*at - 1], offset + *at as u64);
                    continue;
                }
            }
            let byte = data[*at];
            if let Some(found) = self.close_threads(scratch, NextByte::Byte(byte)) {
                return Some(found);
            }
            *at += 1;
            self.note_read(1, byte, offset + *at as u64);
            self.advance(scratch, byte);
        }
        None
    }

    /// The text ends here, and another one begins at `to`.
    fn cut(&mut self, scratch: &mut SearchScratch, to: Offset) -> Option<Range<Offset>> {
        let found = self.close_threads(scratch, NextByte::End);
        *self = Self::new(self.pattern.clone(), self.stream, to);
        found
    }

    fn note_read(&mut self, bytes: u64, last: u8, end: Offset) {
        self.read += bytes;
        self.before = Some(last);
        self.end = end;
    }

    /// Computes the epsilon closure of all threads and of a new one that begins here. Returns the
    /// match that ends here, if any.
    fn close_threads(&self, scratch: &mut SearchScratch, next: NextByte) -> Option<Range<Offset>> {
        scratch.next_step();
        let begins = Thread {
            state: self.pattern.nfa().start_anchored(),
            start: self.read,
        };
        let all = std::iter::once(&begins).chain(&self.threads);
        for thread in all.take_while(|thread| self.read - thread.start <= MATCH_BYTES_MAX) {
            if self.follow(scratch, *thread, next) {
                return Some(self.begin + thread.start..self.end);
            }
        }
        None
    }

    /// Adds the states that one thread reaches without a byte; whether one of them is a match.
    fn follow(&self, scratch: &mut SearchScratch, thread: Thread, next: NextByte) -> bool {
        scratch.open.push(thread.state);
        while let Some(id) = scratch.open.pop() {
            if !scratch.visit(id) {
                continue;
            }
            match self.pattern.nfa().state(id) {
                State::Match { .. } => return true,
                State::Look { look, next: then } if holds(*look, self.before, next) => {
                    scratch.open.push(*then);
                }
                State::Look { .. } => {}
                state if state.is_epsilon() => scratch.open.extend(alternates(state)),
                _ => scratch.closure.push(Thread {
                    state: id,
                    ..thread
                }),
            }
        }
        false
    }

    /// Lets the threads of the closure read a byte.
    fn advance(&mut self, scratch: &SearchScratch, byte: u8) {
        self.threads.clear();
        let nfa = self.pattern.nfa();
        let moved = scratch.closure.iter().filter_map(|thread| {
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
            step: 0,
            open: Vec::new(),
            closure: Vec::new(),
        }
    }

    fn next_step(&mut self) {
        self.step += 1;
        self.open.clear();
        self.closure.clear();
    }

    /// Whether this is the first visit of the state in this step.
    fn visit(&mut self, id: StateID) -> bool {
        self.visits += 1;
        std::mem::replace(&mut self.seen[id.as_usize()], self.step) != self.step
    }
}

/// Whether a look-around assertion holds. One that needs the next byte does not hold while that is
/// unknown.
pub(in crate::output) fn holds(look: Look, before: Option<u8>, next: NextByte) -> bool {
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
        // `Pattern::new` refuses these.
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
