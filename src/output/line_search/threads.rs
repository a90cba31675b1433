//! Finds the first match of a pattern in bytes by moving the threads of its NFA (a Pike VM), in turns.
//!
//! It is slower than the automata of `pattern`, but its time is bounded for every pattern, and it can
//! stop anywhere. Of several matches it returns the one that they return: the one that begins first,
//! and of those the one that the pattern prefers.

use std::ops::Range;

use regex_automata::{nfa::thompson::State, util::primitives::StateID};

use crate::output::{
    Pattern,
    search::{
        NextByte, SKIPPED_BYTES_PER_VISIT, holds,
        pattern::{alternates, step},
    },
};

/// A search in a range of bytes. It keeps no bytes: each call must get the same ones.
#[derive(Debug)]
pub(super) struct MatchThreads {
    /// The position of the next byte.
    at: usize,
    /// In the order in which the pattern prefers them.
    threads: Vec<MatchThread>,
    found: Option<Range<usize>>,
    /// By state: the last step in which it was visited.
    seen: Vec<u32>,
    /// Counts the positions that were looked at, from 1.
    step: u32,
    open: Vec<StateID>,
    closure: Vec<MatchThread>,
}

/// A match that has begun.
#[derive(Debug, Clone, Copy)]
struct MatchThread {
    state: StateID,
    start: usize,
}

impl MatchThreads {
    /// A search that begins at `at`.
    pub(super) fn new(pattern: &Pattern, at: usize) -> Self {
        Self {
            at,
            threads: Vec::new(),
            found: None,
            seen: vec![0; pattern.nfa().states().len()],
            step: 0,
            open: Vec::new(),
            closure: Vec::new(),
        }
    }

    /// Goes on to `end`, and takes the states that it visits from `visits`. `None`: there are none
    /// left, call it again. Otherwise the match, or that there is none.
    pub(super) fn run(
        &mut self,
        pattern: &Pattern,
        bytes: &[u8],
        end: usize,
        visits: &mut u64,
    ) -> Option<Option<Range<usize>>> {
        loop {
            if self.threads.is_empty() && self.found.is_none() {
                let skipped = pattern.no_match_before(&bytes[self.at..end]);
                *visits = visits.saturating_sub(skipped as u64 / SKIPPED_BYTES_PER_VISIT);
                self.at += skipped;
            }
            self.close(pattern, bytes, visits);
            let is_decided = self.found.is_some() && self.closure.is_empty();
            if is_decided || self.at >= end {
                return Some(self.found.take());
            }
            self.advance(pattern, bytes[self.at]);
            self.at += 1;
            if *visits == 0 {
                return None;
            }
        }
    }

    /// Computes which threads wait for the next byte. A match ends those that the pattern prefers
    /// less.
    fn close(&mut self, pattern: &Pattern, bytes: &[u8], visits: &mut u64) {
        self.step += 1;
        self.closure.clear();
        let before = self.at.checked_sub(1).map(|at| bytes[at]);
        let next = bytes
            .get(self.at)
            .map_or(NextByte::End, |b| NextByte::Byte(*b));
        for index in 0..self.threads.len() {
            if self.follow(pattern, self.threads[index], (before, next), visits) {
                return;
            }
        }
        if self.found.is_none() {
            let begins = MatchThread {
                state: pattern.nfa().start_anchored(),
                start: self.at,
            };
            self.follow(pattern, begins, (before, next), visits);
        }
    }

    /// Adds the states that a thread reaches without a byte; whether one of them is a match.
    fn follow(
        &mut self,
        pattern: &Pattern,
        thread: MatchThread,
        (before, next): (Option<u8>, NextByte),
        visits: &mut u64,
    ) -> bool {
        self.open.clear();
        self.open.push(thread.state);
        while let Some(id) = self.open.pop() {
            *visits = visits.saturating_sub(1);
            let seen = &mut self.seen[id.as_usize()];
            if std::mem::replace(seen, self.step) == self.step {
                continue;
            }
            match pattern.nfa().state(id) {
                State::Match { .. } => {
                    self.found = Some(thread.start..self.at);
                    return true;
                }
                State::Look { look, next: then } if holds(*look, before, next) => {
                    self.open.push(*then);
                }
                State::Look { .. } => {}
                state if state.is_epsilon() => {
                    let first = self.open.len();
                    self.open.extend(alternates(state));
                    // The last one is taken first.
                    self.open[first..].reverse();
                }
                _ => self.closure.push(MatchThread {
                    state: id,
                    ..thread
                }),
            }
        }
        false
    }

    /// Lets the threads read a byte.
    fn advance(&mut self, pattern: &Pattern, byte: u8) {
        self.threads.clear();
        let moved = self.closure.iter().filter_map(|thread| {
            let state = step(pattern.nfa().state(thread.state), byte)?;
            Some(MatchThread { state, ..*thread })
        });
        self.threads.extend(moved);
    }
}
