//! A process tree whose shim is dead: its leader, and what is left of it.

use crate::job::Survivor;

/// The leader: the first process of a job, as the database names it.
#[derive(Debug, Clone, Copy)]
pub struct Leader {
    /// Its process id, also its session.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// What is left of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrphanTree {
    /// Processes that could not be proven gone.
    pub survivors: Vec<Survivor>,
    /// Why there may be others.
    pub unknown: Option<String>,
}
