//! How many jobs there are in each state and each queue, as of the last commit, for everything that
//! reads. Reading them costs no query.
//!
//! The writer keeps its own counts in `tally` and publishes them here, before it answers a write.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::fair_queues::{QueueCounts, QueueName};
use crate::{job::JobState, store::types::Counts};

/// How many jobs are in each state, in the order of `JobState::ALL`.
pub(super) type StateCounts = [u64; JobState::ALL.len()];

/// The counts after the last commit.
#[derive(Debug, Default)]
pub(in crate::store) struct PublishedCounts {
    inner: Mutex<CountsNow>,
}

#[derive(Debug, Default)]
pub(super) struct CountsNow {
    pub states: StateCounts,
    /// Queues without jobs may be missing.
    pub queues: HashMap<QueueName, QueueCounts>,
}

impl PublishedCounts {
    /// How many jobs are in each state; states without jobs are missing.
    pub fn states(&self) -> Counts {
        let states = self.lock().states;
        let counted = JobState::ALL.into_iter().zip(states);
        counted.filter(|(_, jobs)| *jobs > 0).collect()
    }

    /// The jobs of all queues that are not final.
    pub fn queues(&self) -> HashMap<QueueName, QueueCounts> {
        self.lock().queues.clone()
    }

    /// For the writer. It holds the lock for a few assignments.
    pub(super) fn lock(&self) -> MutexGuard<'_, CountsNow> {
        // Each value is valid by itself, also where a panic kept the next from being written.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
