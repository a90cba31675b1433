//! What a trail is verified against, and what that says of it.

use std::collections::BTreeMap;

use super::{ChainHead, Checkpoint, TrailFinding, VerifierKey};

/// Origins of foreign checkpoints that are told apart.
const ORIGINS_MAX: usize = 10;

/// What a trail is verified against.
#[derive(Debug, Clone, Default)]
pub struct TrailEvidence {
    /// Checkpoints, in any order. Among them may be those of other trails, and notes that anybody made.
    pub checkpoints: Vec<Checkpoint>,
    /// Only these keys are accepted, and those that they lead to; where there are none, the first key of the trail is.
    pub keys: Vec<VerifierKey>,
    /// Whether a trail that says that it is a part is accepted as one.
    pub part: bool,
}

/// What checkpoints say of a trail.
#[derive(Debug, Default)]
pub struct Confirmation {
    /// How many checkpoints were given.
    pub given: usize,
    /// How many of them lie on the trail, and are signed by the key that was in force.
    pub confirming: usize,
    /// The last of those: it confirms all entries up to its own.
    pub last: Option<Checkpoint>,
    /// How many are signed by a key of the trail and are of entries before its first one.
    pub before: usize,
    /// How many are signed by none of its keys, by their origin: they say nothing about it.
    pub foreign: BTreeMap<String, usize>,
    /// How many of those have other origins than these.
    pub foreign_more: usize,
}

impl Confirmation {
    /// The last entry that is confirmed.
    pub fn through(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.head.seq)
    }

    /// Counts a checkpoint that no key of the trail has signed.
    pub(super) fn count_foreign(&mut self, checkpoint: &Checkpoint) {
        let is_known = self.foreign.contains_key(&checkpoint.instance);
        if is_known || self.foreign.len() < ORIGINS_MAX {
            *self.foreign.entry(checkpoint.instance.clone()).or_default() += 1;
        } else {
            self.foreign_more += 1;
        }
    }
}

/// How a trail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrailStart {
    /// With its first entry.
    Whole,
    /// After an entry, as its export was asked to.
    Part,
    /// After an entry, because those before were pruned; `by` is the entry that says so.
    Pruned {
        /// Its number.
        by: u64,
    },
    /// After an entry, and nothing says why.
    Missing,
}

/// What a verification says in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrailVerdict {
    /// Nothing is wrong. If checkpoints were given, they confirm it.
    Intact,
    /// Nothing is wrong with it by itself, and the checkpoints that were given do not confirm it.
    Unconfirmed,
    /// Something is wrong.
    Refuted,
}

impl TrailVerdict {
    /// As the report has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Unconfirmed => "not_confirmed",
            Self::Refuted => "not_intact",
        }
    }
}

/// What a verification has found.
#[derive(Debug)]
pub struct TrailReport {
    /// The entry before the first one.
    pub begin: ChainHead,
    /// Why it begins there.
    pub start: TrailStart,
    /// The last one.
    pub head: ChainHead,
    /// The first key of the trail.
    pub first_key: Option<VerifierKey>,
    /// Whether that follows from a key that was named; otherwise it is the trail's own word.
    pub is_key_named: bool,
    /// What the checkpoints say.
    pub confirmation: Confirmation,
    /// Why the checkpoints that were given do not confirm it.
    pub unconfirmed: Option<String>,
    /// What is wrong.
    pub findings: Vec<TrailFinding>,
    /// How many more findings there are.
    pub more: u64,
}

impl TrailReport {
    /// The report in one word.
    pub fn verdict(&self) -> TrailVerdict {
        match (self.findings.is_empty(), &self.unconfirmed) {
            (false, _) => TrailVerdict::Refuted,
            (true, Some(_)) => TrailVerdict::Unconfirmed,
            (true, None) => TrailVerdict::Intact,
        }
    }
}
