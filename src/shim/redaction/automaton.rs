//! An Aho-Corasick automaton that is driven byte by byte: which pattern ends here, and how much of the text
//! is the beginning of one.
//!
//! `aho-corasick` builds it. Where it is small, its transitions become one table, which is several times as
//! fast.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::{
    Anchored, BuildError, MatchError, MatchKind,
    automaton::{Automaton, StateID},
    nfa::noncontiguous::NFA,
};

/// The largest table of transitions, bytes.
const TABLE_BYTES_MAX: usize = 2 << 20;

/// There is no automaton for these patterns.
#[derive(Debug, thiserror::Error)]
pub enum AutomatonError {
    /// There are too many bytes in all patterns together.
    #[error("the patterns are too long: {0}")]
    Build(#[from] BuildError),
    /// It has no state to begin in.
    #[error("the automaton cannot begin: {0}")]
    Start(#[from] MatchError),
}

/// What an automaton has read, as far as it matters. In the first state nothing has been read.
pub type PatternState = u32;

/// Patterns that are looked for at once.
pub struct PatternAutomaton {
    steps: Steps,
    /// By state: how many bytes of a pattern have been read.
    depths: Vec<u32>,
    /// By state: the length of the longest pattern that ends there; 0: none does.
    lengths: Vec<u32>,
    /// The state in which nothing has been read.
    start: PatternState,
    /// Whether this byte is the first of a pattern.
    begins: [bool; 256],
}

enum Steps {
    Table(TransitionTable),
    Nfa(NFA),
}

/// The next state for each state and each byte.
struct TransitionTable {
    /// Bytes that are in no pattern are all one class.
    classes: [u8; 256],
    width: usize,
    next: Vec<PatternState>,
}

impl PatternAutomaton {
    /// An automaton for these patterns, none of which is empty.
    pub fn new(patterns: &BTreeSet<Vec<u8>>) -> Result<Self, AutomatonError> {
        // All matches count, the overlapping ones, too.
        let mut builder = NFA::builder();
        builder.match_kind(MatchKind::Standard).prefilter(false);
        let nfa = builder.build(patterns)?;
        let start = nfa.start_state(Anchored::No)?;
        let mut begins = [false; 256];
        let (mut depths, mut lengths) = (Vec::new(), Vec::new());
        let mut note = |state: StateID, depth: usize| {
            let index = state.as_usize();
            let length = depths.len().max(index + 1);
            depths.resize(length, 0);
            lengths.resize(length, 0);
            depths[index] = depth as u32;
            lengths[index] = longest_match(&nfa, state);
        };
        note(start, 0);
        for pattern in patterns {
            let mut state = start;
            begins[usize::from(pattern[0])] = true;
            for (at, &byte) in pattern.iter().enumerate() {
                state = nfa.next_state(Anchored::No, state, byte);
                note(state, at + 1);
            }
        }
        let automaton = Self {
            steps: Steps::Nfa(nfa),
            depths,
            lengths,
            start: start.as_u32(),
            begins,
        };
        Ok(automaton.with_table(patterns))
    }

    /// The same with a table, if that is small.
    fn with_table(self, patterns: &BTreeSet<Vec<u8>>) -> Self {
        let Steps::Nfa(nfa) = &self.steps else {
            return self;
        };
        let bytes: BTreeSet<u8> = patterns.iter().flatten().copied().collect();
        let states = self.numbers();
        let width = bytes.len() + 1;
        if states.len() * width * size_of::<PatternState>() > TABLE_BYTES_MAX {
            return self;
        }
        let mut classes = [0; 256];
        for (class, byte) in (1..=255).zip(&bytes) {
            classes[usize::from(*byte)] = class;
        }
        let mut next = Vec::with_capacity(states.len() * width);
        let [mut depths, mut lengths] = [Vec::new(), Vec::new()];
        for &state in states.keys() {
            depths.push(self.depths[state as usize]);
            lengths.push(self.lengths[state as usize]);
            // A byte that is in no pattern leads to the beginning.
            next.push(states[&self.start]);
            let state = StateID::new_unchecked(state as usize);
            next.extend(bytes.iter().map(|&byte| {
                let next = nfa.next_state(Anchored::No, state, byte);
                states[&next.as_u32()]
            }));
        }
        Self {
            start: states[&self.start],
            steps: Steps::Table(TransitionTable {
                classes,
                width,
                next,
            }),
            depths,
            lengths,
            begins: self.begins,
        }
    }

    /// New numbers for all states that can be reached, without holes.
    fn numbers(&self) -> BTreeMap<PatternState, PatternState> {
        let depths = self.depths.iter().enumerate();
        let reached = depths.filter(|(state, depth)| **depth > 0 || *state == self.start as usize);
        let numbered = reached.zip(0..);
        numbered
            .map(|((state, _), number)| (state as PatternState, number))
            .collect()
    }

    /// The state in which nothing has been read.
    pub fn start(&self) -> PatternState {
        self.start
    }

    /// The state after this byte.
    pub fn next(&self, state: PatternState, byte: u8) -> PatternState {
        if state == self.start && !self.begins[usize::from(byte)] {
            return state;
        }
        match &self.steps {
            Steps::Table(table) => {
                let class = usize::from(table.classes[usize::from(byte)]);
                table.next[state as usize * table.width + class]
            }
            Steps::Nfa(nfa) => {
                let state = StateID::new_unchecked(state as usize);
                nfa.next_state(Anchored::No, state, byte).as_u32()
            }
        }
    }

    /// How many of the bytes read last are the beginning of a pattern: as many as there can be.
    pub fn depth(&self, state: PatternState) -> usize {
        self.depths[state as usize] as usize
    }

    /// The length of the longest pattern that ends here.
    pub fn longest_match(&self, state: PatternState) -> Option<usize> {
        match self.lengths[state as usize] {
            0 => None,
            length => Some(length as usize),
        }
    }
}

/// The length of the longest pattern that ends in a state; 0: none does.
fn longest_match(nfa: &NFA, state: StateID) -> u32 {
    if !nfa.is_match(state) {
        return 0;
    }
    let matches = 0..nfa.match_len(state);
    let lengths = matches.map(|index| nfa.pattern_len(nfa.match_pattern(state, index)));
    lengths.max().unwrap_or_default() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Depth and longest match after each byte of a text.
    fn run(automaton: &PatternAutomaton, text: &[u8]) -> Vec<(usize, Option<usize>)> {
        let mut state = automaton.start();
        let step = |byte: &u8| {
            state = automaton.next(state, *byte);
            (automaton.depth(state), automaton.longest_match(state))
        };
        text.iter().map(step).collect()
    }

    #[test]
    fn the_table_and_the_automaton_agree_and_know_how_much_was_read() {
        let patterns = ["abcd", "bc", "cde", "xx"].map(|text| text.as_bytes().to_vec());
        let patterns = BTreeSet::from(patterns);
        let small = PatternAutomaton::new(&patterns).expect("an automaton");
        assert!(matches!(small.steps, Steps::Table(_)));
        let expected = [
            (1, None),
            (2, None),
            (3, Some(2)),
            (4, Some(4)),
            (3, Some(3)),
            (0, None),
            (1, None),
            (2, Some(2)),
            (2, Some(2)),
        ];
        assert_eq!(run(&small, b"abcde.xxx"), expected);
        // So long that it has no table.
        let mut long = patterns;
        long.insert((0..=255).cycle().take(20_000).collect());
        let large = PatternAutomaton::new(&long).expect("an automaton");
        assert!(matches!(large.steps, Steps::Nfa(_)));
        let mut found = run(&large, b"abcde.xxx");
        found
            .iter_mut()
            .zip(expected)
            .for_each(|(found, (depth, _))| {
                // The long pattern begins with 0, which the text does not have.
                assert_eq!(found.0, depth);
            });
        assert_eq!(found, expected);
    }
}
