//! What retention asks of the ledger, and what it gets, as plain types. The SQL is in
//! `sqlite/retention`.

use std::collections::BTreeMap;

use crate::job::{
    JobNumber, JobState, Micros, Offset, RetentionCandidate, RetentionRule, RetentionScope,
};

/// Which jobs may be removed. Only final jobs ever are.
#[derive(Debug, Clone, PartialEq)]
pub struct RemovableFilter {
    /// What would be removed; for outputs, only jobs that have some.
    pub scope: RetentionScope,
    /// Only these final states.
    pub states: Vec<JobState>,
    /// Only this queue.
    pub queue: Option<String>,
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// Submitted at or after.
    pub since: Option<Micros>,
    /// Ended before.
    pub ended_before: Option<Micros>,
}

/// How far a look at jobs in the order of their ends has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndedCursor {
    /// The end of the last job, as the index has it.
    pub ended: String,
    /// Its number.
    pub number: JobNumber,
}

/// A page of jobs that may be removed.
#[derive(Debug, Clone, PartialEq)]
pub struct RemovablePage<C> {
    /// The jobs; there may be none although others follow.
    pub jobs: Vec<RetentionCandidate>,
    /// How far the look has come; `None` if there was nothing to look at.
    pub reached: Option<C>,
    /// Whether nothing follows.
    pub is_last: bool,
}

/// A write of retention.
#[derive(Debug, Clone)]
pub enum RetentionWrite {
    /// Stores a rule, or replaces the one with its name.
    SetRule(RetentionRule),
    /// Deletes the rule with this name.
    DeleteRule(String),
    /// Removes the first of these jobs: as many as one transaction may.
    Remove(RetentionScope, Vec<JobNumber>),
    /// Returns up to so many free pages to the file system.
    Reclaim(u32),
}

/// The result of a write of retention, in the variant that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub enum RetentionWritten {
    /// Whether the rule is stored; if not, there are too many.
    RuleSet(bool),
    /// Whether there was such a rule.
    RuleDeleted(bool),
    /// What was removed.
    Removed(Removed),
    /// What is left to reclaim.
    Reclaimed(FreePages),
}

/// What one transaction has removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Removed {
    /// The jobs that are done.
    pub jobs: Vec<JobNumber>,
    /// Attempt and first offset of every segment that may have a file, by job; the caller unlinks
    /// them.
    pub segments: BTreeMap<JobNumber, Vec<(u32, Offset)>>,
    /// The jobs that are not done. The first of them may have lost the beginning of its output.
    pub left: Vec<JobNumber>,
}

/// How much of the database's file is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FreePages {
    /// Pages that hold nothing.
    pub free: u64,
    /// All pages.
    pub all: u64,
    /// Length of a page, bytes.
    pub page_bytes: u64,
    /// Whether free pages can be returned to the file system without copying the whole file.
    pub can_shrink: bool,
}

/// Stored output of several jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredSum {
    /// How many jobs there are.
    pub jobs: u64,
    /// Bytes of their output that are stored.
    pub bytes: u64,
}

/// A job with the output that is stored of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredJob {
    /// Its number.
    pub number: JobNumber,
    /// Its name.
    pub name: Option<String>,
    /// Its queue.
    pub queue: String,
    /// Its state.
    pub state: JobState,
    /// Bytes of its output that are stored.
    pub bytes: u64,
}

/// What the jobs of a range of numbers store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UsageStep {
    /// By queue.
    pub queues: Vec<(String, StoredSum)>,
    /// Those with the most, in descending order.
    pub jobs: Vec<StoredJob>,
}

/// How far a look at labels has come: key, value and job of the last one.
pub type LabelCursor = (String, String, JobNumber);

/// What the jobs of some labels store; the last label may go on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelStep {
    /// By key and value, in their order.
    pub labels: Vec<(String, String, StoredSum)>,
    /// Where the next step begins; `None`: this was the last one.
    pub next: Option<LabelCursor>,
}
