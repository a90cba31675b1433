//! Finds the first match in bytes: by automata as long as they are worth it, else by threads, in turns.

use std::ops::Range;

use regex_automata::{Input, hybrid::regex};

use super::{pattern::LinePattern, threads::MatchThreads};
use crate::output::search::SKIPPED_BYTES_PER_VISIT;

/// How much is searched at once after the automata have given up, bytes: a search that stops there loses
/// no more.
const SLOW_BYTES: usize = 4 << 10;

/// A pattern, and the memory that its search needs.
#[derive(Debug)]
pub(super) struct LineMatcher {
    pattern: LinePattern,
    cache: Option<regex::Cache>,
    /// The automata have given up on this piece of the output.
    gave_up: bool,
    /// A search that goes on in the next turn.
    paused: Option<MatchThreads>,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sought {
    Match(Range<usize>),
    Nothing,
    /// The turn is over, or the automata have just given up: call it again.
    Paused,
}

impl LineMatcher {
    pub(super) fn new(pattern: LinePattern) -> Self {
        Self {
            cache: pattern.automata().map(regex::Regex::create_cache),
            pattern,
            gave_up: false,
            paused: None,
        }
    }

    /// Another piece of the output follows: the automata may do better there.
    pub(super) fn begin_piece(&mut self) {
        self.gave_up = false;
    }

    /// Forgets a search that is paused: other bytes follow.
    pub(super) fn forget_paused(&mut self) {
        self.paused = None;
    }

    #[cfg(test)]
    pub(super) fn set_gave_up(&mut self, gave_up: bool) {
        self.gave_up = gave_up;
    }

    /// How much of `bytes`, which ends with a line end, is worth searching at once: whole lines.
    pub(super) fn piece_end(&self, bytes: &[u8]) -> usize {
        match self.gave_up {
            true => {
                let first = SLOW_BYTES.min(bytes.len()) - 1;
                let end = memchr::memchr(b'\n', &bytes[first..]);
                end.map_or(bytes.len(), |end| first + end + 1)
            }
            false => bytes.len(),
        }
    }

    /// Finds the first match in a range of `bytes`; the bytes around it are what it looks at before its
    /// beginning and after its end. Takes the cost from `visits`.
    pub(super) fn find(&mut self, bytes: &[u8], range: Range<usize>, visits: &mut u64) -> Sought {
        if self.paused.is_none()
            && !self.gave_up
            && let (Some(automata), Some(cache)) = (self.pattern.automata(), &mut self.cache)
        {
            let input = Input::new(bytes).range(range.clone());
            if let Ok(found) = automata.try_search(cache, &input) {
                let end = found.map_or(range.end, |found| found.end());
                let read = (end - range.start) as u64;
                *visits = visits.saturating_sub(1 + read / SKIPPED_BYTES_PER_VISIT);
                return found.map_or(Sought::Nothing, |found| Sought::Match(found.range()));
            }
            self.gave_up = true;
            return Sought::Paused;
        }
        let pattern = self.pattern.pattern();
        let begin = || MatchThreads::new(pattern, range.start);
        let threads = self.paused.get_or_insert_with(begin);
        let Some(found) = threads.run(pattern, bytes, range.end, visits) else {
            return Sought::Paused;
        };
        self.paused = None;
        found.map_or(Sought::Nothing, Sought::Match)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A random text of a and b: after each byte, other matches of `[ab]*a[ab]{200}c` may have begun.
    pub fn hard_letters(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut letter = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b"ab"[(state >> 40 & 1) as usize]
        };
        (0..length).map(|_| letter()).collect()
    }

    fn by_automata(pattern: &LinePattern, bytes: &[u8], range: Range<usize>) -> Sought {
        let mut matcher = LineMatcher::new(pattern.clone());
        let mut visits = u64::MAX;
        let found = matcher.find(bytes, range, &mut visits);
        assert!(!matcher.gave_up);
        found
    }

    /// With this many visits in a turn.
    fn by_threads(pattern: &LinePattern, bytes: &[u8], range: Range<usize>, turn: u64) -> Sought {
        let mut matcher = LineMatcher::new(pattern.clone());
        matcher.gave_up = true;
        loop {
            let mut visits = turn;
            match matcher.find(bytes, range.clone(), &mut visits) {
                Sought::Paused => {}
                found => return found,
            }
        }
    }

    const PATTERNS: [&str; 20] = [
        "ab",
        "a+b",
        "a+?b",
        "a|ab",
        "ab|a",
        "^b",
        "b$",
        r"\bab\b",
        r"\Ba",
        "(?s)a.{2}b",
        r"a\z",
        r"\Aa",
        "(a|b)*c",
        "(?R)^a$",
        "",
        "a??",
        "[^a]+",
        r"\s*c",
        "(?i)A[BC]",
        "ab|bc|ca",
    ];

    proptest! {
        #[test]
        fn threads_find_what_the_automata_find(
            which in 0..PATTERNS.len(),
            data in proptest::collection::vec(proptest::sample::select(b"abcA \n\r".to_vec()), 0..40),
            from in 0usize..20,
            short in 0usize..20,
            turn in 1u64..30,
        ) {
            let pattern = LinePattern::regex(PATTERNS[which], false).expect("valid");
            let end = data.len().saturating_sub(short);
            let range = from.min(end)..end;
            let found = by_automata(&pattern, &data, range.clone());
            prop_assert_eq!(by_threads(&pattern, &data, range, turn), found.clone());
            if let Sought::Match(found) = found {
                prop_assert!(!data[found].contains(&b'\n'));
            }
        }
    }

    #[test]
    fn a_pattern_for_which_automata_are_not_worth_it_is_found_all_the_same() {
        let pattern = LinePattern::regex("[ab]*a[ab]{200}c", false).expect("valid");
        let mut bytes = hard_letters(20_000);
        bytes.push(b'c');
        let mut matcher = LineMatcher::new(pattern);
        let mut turns = 0;
        let found = loop {
            turns += 1;
            let mut visits = 100_000;
            match matcher.find(&bytes, 0..bytes.len(), &mut visits) {
                Sought::Paused => assert!(turns < 1000),
                found => break found,
            }
        };
        assert!(matcher.gave_up && turns > 1, "{turns}");
        let is_a = bytes[bytes.len() - 202] == b'a';
        assert_eq!(found != Sought::Nothing, is_a);
    }
}
