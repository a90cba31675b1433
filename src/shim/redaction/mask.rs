//! One stream: what is a form of a secret becomes `*`, line ends stay. Bytes that may be the beginning of a
//! form are held back until it is known.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use zeroize::Zeroize;

use super::{
    automaton::{AutomatonError, PatternAutomaton, PatternState},
    forms::Forms,
};

/// What a byte of a secret becomes.
const MASK: u8 = b'*';

/// From this length on, the beginning of a form is held back. A shorter one is passed on: it is found in any
/// text, and a prompt that ends with it would wait for nothing.
const HELD_BYTES_MIN: usize = 4;

/// The most bytes of line ends in a row that an encoding may have inside of it: CR LF.
const LINE_END_BYTES_MAX: usize = 2;

/// What is looked for in both streams.
pub struct SecretPatterns {
    exact: PatternAutomaton,
    /// For these the bytes of line ends do not count.
    wrapped: PatternAutomaton,
}

impl SecretPatterns {
    /// The patterns for these forms.
    pub fn of(forms: &Forms) -> Result<Self, AutomatonError> {
        Ok(Self {
            exact: PatternAutomaton::new(&forms.exact)?,
            wrapped: PatternAutomaton::new(&forms.wrapped)?,
        })
    }
}

/// The masks of one stream. Positions count its bytes from 0.
pub struct StreamMask {
    patterns: Arc<SecretPatterns>,
    exact: PatternState,
    wrapped: PatternState,
    /// Positions of line ends inside of what `wrapped` has read, oldest first.
    line_ends: VecDeque<u64>,
    /// How many bytes of line ends came last, and whether the last one was LF.
    line_end_run: (usize, bool),
    /// What was read and is not taken; matches in it are masked.
    pending: Vec<u8>,
    /// How many of these bytes are released.
    released: usize,
    /// The position of the first pending byte.
    base: u64,
    /// The position after the byte that was looked at last.
    end: u64,
    /// The last run of masked bytes.
    masked: Range<u64>,
}

impl StreamMask {
    /// A stream of which nothing was read.
    pub fn new(patterns: Arc<SecretPatterns>) -> Self {
        Self {
            exact: patterns.exact.start(),
            wrapped: patterns.wrapped.start(),
            patterns,
            line_ends: VecDeque::new(),
            line_end_run: (0, false),
            pending: Vec::new(),
            released: 0,
            base: 0,
            end: 0,
            masked: 0..0,
        }
    }

    /// Takes bytes that follow.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.pending.extend_from_slice(bytes);
        let patterns = Arc::clone(&self.patterns);
        for &byte in bytes {
            self.end += 1;
            self.exact = patterns.exact.next(self.exact, byte);
            if let Some(length) = patterns.exact.longest_match(self.exact) {
                self.mask_from(self.end - length as u64);
            }
            self.push_wrapped(&patterns.wrapped, byte);
        }
        self.release();
    }

    /// Nothing follows: all bytes are released.
    pub fn finish(&mut self) {
        self.released = self.pending.len();
        self.exact = self.patterns.exact.start();
        self.forget_wrapped();
    }

    /// Whether bytes are released and not taken.
    pub fn has_released(&self) -> bool {
        self.released > 0
    }

    /// Moves released bytes into `into`; returns how many.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let length = self.released.min(into.len());
        into[..length].copy_from_slice(&self.pending[..length]);
        self.pending.drain(..length);
        self.released -= length;
        self.base += length as u64;
        length
    }

    /// Makes room without leaving a copy in freed memory.
    fn reserve(&mut self, more: usize) {
        if self.pending.capacity() - self.pending.len() >= more {
            return;
        }
        let mut larger = Vec::with_capacity((self.pending.len() + more) * 2);
        larger.extend_from_slice(&self.pending);
        std::mem::swap(&mut larger, &mut self.pending);
        larger.zeroize();
    }

    fn push_wrapped(&mut self, patterns: &PatternAutomaton, byte: u8) {
        if byte == b'\n' || byte == b'\r' {
            return self.push_line_end(byte);
        }
        self.line_end_run = (0, false);
        self.wrapped = patterns.next(self.wrapped, byte);
        if let Some(length) = patterns.longest_match(self.wrapped) {
            self.mask_from(self.start_of_wrapped(length));
        }
    }

    /// A line end inside of an encoding does not count, an empty line ends it.
    fn push_line_end(&mut self, byte: u8) {
        if self.patterns.wrapped.depth(self.wrapped) == 0 {
            return;
        }
        let (run, after_lf) = self.line_end_run;
        if run == LINE_END_BYTES_MAX || (after_lf && byte == b'\n') {
            return self.forget_wrapped();
        }
        self.line_end_run = (run + 1, byte == b'\n');
        self.line_ends.push_back(self.end - 1);
    }

    fn forget_wrapped(&mut self) {
        self.wrapped = self.patterns.wrapped.start();
        self.line_ends.clear();
        self.line_end_run = (0, false);
    }

    /// Where the last `length` bytes begin that are no line ends, in what `wrapped` has read.
    fn start_of_wrapped(&self, length: usize) -> u64 {
        let mut start = self.end - length as u64;
        for &line_end in self.line_ends.iter().rev() {
            if line_end < start {
                break;
            }
            start -= 1;
        }
        start
    }

    /// Masks everything from this position on, as far as it is not taken.
    fn mask_from(&mut self, start: u64) {
        let end = self.end;
        if start > self.masked.end {
            self.mask(start..end);
            self.masked = start..end;
            return;
        }
        // It joins the last run: only what is new is written, however often it is extended.
        let before = start..self.masked.start;
        let after = self.masked.end..end;
        self.mask(before);
        self.mask(after);
        self.masked = start.min(self.masked.start)..end;
    }

    fn mask(&mut self, range: Range<u64>) {
        let index = |position: u64| position.saturating_sub(self.base) as usize;
        let (from, to) = (index(range.start), index(range.end));
        for byte in self.pending.get_mut(from..to).into_iter().flatten() {
            if *byte != b'\n' {
                *byte = MASK;
            }
        }
    }

    /// Releases what no form can begin in any more.
    fn release(&mut self) {
        let exact = self.patterns.exact.depth(self.exact);
        let wrapped = self.patterns.wrapped.depth(self.wrapped);
        let wrapped_from = self.start_of_wrapped(wrapped);
        while self.line_ends.front().is_some_and(|at| *at < wrapped_from) {
            self.line_ends.pop_front();
        }
        let mut held_from = self.end;
        if exact >= HELD_BYTES_MIN {
            held_from = held_from.min(self.end - exact as u64);
        }
        if wrapped >= HELD_BYTES_MIN {
            held_from = held_from.min(wrapped_from);
        }
        // What is masked already need not wait.
        if self.masked.contains(&held_from) {
            held_from = self.masked.end;
        }
        let released = held_from.saturating_sub(self.base) as usize;
        self.released = self.released.max(released);
    }
}

impl Drop for StreamMask {
    fn drop(&mut self) {
        self.pending.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out after each of these parts, and after the end.
    fn masked(values: &[&str], parts: &[&str]) -> Vec<String> {
        let forms = Forms::of(values.iter().copied());
        let patterns = SecretPatterns::of(&forms).expect("patterns");
        let mut mask = StreamMask::new(Arc::new(patterns));
        let mut all = vec![0; 1 << 16];
        let mut taken = |mask: &mut StreamMask| {
            let length = mask.take(&mut all);
            String::from_utf8(all[..length].to_vec()).expect("UTF-8")
        };
        let mut out = Vec::new();
        for part in parts {
            mask.push(part.as_bytes());
            out.push(taken(&mut mask));
        }
        mask.finish();
        out.push(taken(&mut mask));
        out
    }

    #[test]
    fn a_value_is_masked_and_all_else_is_passed_on_at_once() {
        let out = masked(&["s3cret!"], &["a s3cret! b\n", "Password: "]);
        assert_eq!(out, ["a ******* b\n", "Password: ", ""]);
    }

    #[test]
    fn a_beginning_is_held_back_until_it_is_decided() {
        let out = masked(&["s3cret!"], &["a s3cr", "et!", "s3cr", "ab", "x s3cre"]);
        assert_eq!(out, ["a ", "*******", "", "s3crab", "x ", "s3cre"]);
        // Up to three bytes are passed on, and the rest is masked.
        let bytes: Vec<String> = "s3cret!".chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        let out = masked(&["s3cret!"], &bytes);
        assert_eq!(out.concat(), "s3c****");
        assert_eq!(out[..6], ["s", "3", "c", "", "", ""]);
    }

    #[test]
    fn matches_that_overlap_are_masked_together() {
        assert_eq!(
            masked(&["abcdef", "efghij"], &["abcdefghij k"]).concat(),
            "********** k"
        );
        assert_eq!(
            masked(&["aaaa"], &["aaaaaaaaaaaaab"]),
            ["*************b", ""]
        );
        // The longer one wins over the shorter in it.
        assert_eq!(
            masked(&["bcde", "abcdefgh"], &["abcd", "efgh", "x"]).concat(),
            "********x"
        );
        assert_eq!(
            masked(&["bcde", "abcdefgh"], &["abcd", "ef", "x"]).concat(),
            "a****fx"
        );
    }

    #[test]
    fn line_ends_stay_and_may_be_inside_of_an_encoding() {
        let value = "line one\nline two";
        assert_eq!(
            masked(&[value], &[value, "\n"]),
            ["********\n********", "\n", ""]
        );
        let encoded = "bGluZSBvbmUKbGluZSB0d28=";
        for line_end in ["\n", "\r\n"] {
            let wrapped = format!("x {}{line_end}{} y", &encoded[..10], &encoded[10..]);
            let expected = line_end.replace('\r', "*");
            let expected = format!("x {}{expected}{}= y", "*".repeat(10), "*".repeat(13));
            let out = masked(&[value], &[&wrapped[..14], &wrapped[14..]]).concat();
            assert_eq!(out, expected);
        }
        // An empty line is no part of one.
        let apart = format!("{}\n\n{}", &encoded[..6], &encoded[6..10]);
        assert_eq!(masked(&["line one"], &[&apart]).concat(), apart);
    }

    #[test]
    fn line_ends_that_follow_a_beginning_are_not_collected() {
        let forms = Forms::of(["s3cret!"].into_iter());
        let patterns = SecretPatterns::of(&forms).expect("patterns");
        let mut mask = StreamMask::new(Arc::new(patterns));
        let mut into = vec![0; 1 << 16];
        mask.push(b"c3Nj");
        mask.push(b"czNjc");
        for _ in 0..1000 {
            mask.push(&b"\n".repeat(1000));
            while mask.has_released() {
                mask.take(&mut into);
            }
        }
        assert!(mask.pending.is_empty() && mask.line_ends.is_empty());
    }
}
