//! What is written and read of the audit trail, as plain types. The SQL is in `sqlite/audit`.

use crate::{
    audit::{AuditEntry, ChainHead, chain::ChainHash},
    job::{JobNumber, Micros},
};

/// A write of the audit trail alone.
#[derive(Debug, Clone)]
pub enum AuditWrite {
    /// Something that has no other row, such as a signal or a refusal.
    Add(Vec<AuditEntry>),
    /// Removes the oldest entries that were made before this, as many as one transaction may.
    Prune(Micros),
}

/// Entries that were pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrunedTrail {
    /// The last of them.
    pub through: u64,
    /// How many there were.
    pub entries: u64,
}

/// A row of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// The number of the entry.
    pub seq: u64,
    /// Its text.
    pub entry: String,
    /// Its hash.
    pub hash: ChainHash,
}

/// A verifier's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditKeyRow {
    /// The entry that put it in force.
    pub seq: u64,
    /// The key.
    pub key: String,
    /// The signature of it by the key before.
    pub signature: Option<String>,
}

/// A part of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The entry before the first of `rows`.
    pub after: ChainHead,
    /// The verifier's key that was in force there.
    pub key: Option<String>,
    /// The entries.
    pub rows: Vec<AuditRow>,
    /// The last entry of the trail.
    pub head: ChainHead,
}

/// What the row of a final job says, to be compared with the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedRow {
    /// Number of the job.
    pub number: JobNumber,
    /// What the entry of its end would say of it now.
    pub end: serde_json::Value,
    /// Length of its output, with gaps, bytes.
    pub output_bytes: u64,
}
