//! The settings of the audit trail, and what is told of its checkpoints.

use serde::Serialize;

use crate::{config::CheckpointSink, job::Micros};

/// What is done with the audit trail. Each is a setting of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// Where checkpoints go.
    pub sink: CheckpointSink,
    /// Time between two checkpoints, seconds.
    pub checkpoint_s: u64,
    /// How long a key signs, seconds.
    pub key_s: u64,
    /// How long entries are kept, days; `None`: for ever.
    pub days: Option<u64>,
    /// Kinds of refusals that are counted apart.
    pub refusal_kinds_max: usize,
}

/// The last checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckpointHealth {
    /// How many entries it covers; `None`: there was none since the start.
    pub entries: Option<u64>,
    /// When it was made.
    pub at: Option<Micros>,
    /// Why the newest one could not be made or delivered.
    pub error: Option<String>,
}
