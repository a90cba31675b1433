//! An Aho-Corasick automaton that is driven byte by byte: which pattern ends here, and how much of the text
//! is the beginning of one.

use std::collections::BTreeSet;

use aho_corasick::{
    Anchored, BuildError, MatchError, MatchKind,
    automaton::{Automaton, StateID},
    nfa::noncontiguous::NFA,
};

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

/// Patterns that are looked for at once.
pub struct PatternAutomaton {
    nfa: NFA,
    start: StateID,
    /// How many bytes of a pattern have been read in each state.
    depths: Vec<u32>,
}

impl PatternAutomaton {
    /// An automaton for these patterns, none of which is empty.
    pub fn new(patterns: &BTreeSet<Vec<u8>>) -> Result<Self, AutomatonError> {
        // All matches count, the overlapping ones, too.
        let mut builder = NFA::builder();
        builder.match_kind(MatchKind::Standard).prefilter(false);
        let nfa = builder.build(patterns)?;
        let start = nfa.start_state(Anchored::No)?;
        let mut depths = Vec::new();
        for pattern in patterns {
            let mut state = start;
            for (at, &byte) in pattern.iter().enumerate() {
                state = nfa.next_state(Anchored::No, state, byte);
                let index = state.as_usize();
                depths.resize(depths.len().max(index + 1), 0);
                depths[index] = at as u32 + 1;
            }
        }
        Ok(Self { nfa, start, depths })
    }

    /// The state in which nothing has been read.
    pub fn start(&self) -> StateID {
        self.start
    }

    /// The state after this byte.
    pub fn next(&self, state: StateID, byte: u8) -> StateID {
        self.nfa.next_state(Anchored::No, state, byte)
    }

    /// How many of the bytes read last are the beginning of a pattern: as many as there can be.
    pub fn depth(&self, state: StateID) -> usize {
        let depth = self.depths.get(state.as_usize());
        depth.copied().unwrap_or_default() as usize
    }

    /// The length of the longest pattern that ends here.
    pub fn longest_match(&self, state: StateID) -> Option<usize> {
        if !self.nfa.is_match(state) {
            return None;
        }
        let matches = 0..self.nfa.match_len(state);
        let lengths = matches.map(|index| {
            let pattern = self.nfa.match_pattern(state, index);
            self.nfa.pattern_len(pattern)
        });
        lengths.max()
    }
}
