//! What a shim works on: nothing, an attempt that waits for its first segment, or an attempt. What
//! is done with it is decided in the loop.

use std::time::Instant;

use super::attempt::{Attempt, pending::Pending};
use crate::{job::JobNumber, spool::ShimState};

/// What a shim works on.
#[derive(Default)]
pub(super) enum Current {
    #[default]
    Nothing,
    /// An attempt without a segment.
    Pending(Box<Pending>),
    Attempt(Box<Attempt>),
}

impl Current {
    /// The attempt, once it has a segment.
    pub(super) fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Attempt(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match self {
            Self::Attempt(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// When the first segment of a pending attempt is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Pending(pending) => pending.retry_at(),
            _ => None,
        }
    }

    /// Job and number of the attempt that is here.
    pub(super) fn attempt_id(&self) -> Option<(JobNumber, u32)> {
        match self {
            Self::Nothing => None,
            Self::Pending(pending) => Some(pending.attempt_id()),
            Self::Attempt(attempt) => Some(attempt.attempt_id()),
        }
    }

    /// What a server that connects now has to know.
    pub(super) fn state(&self) -> ShimState {
        match self {
            Self::Nothing => ShimState::Idle,
            Self::Pending(pending) => pending.state(),
            Self::Attempt(attempt) => attempt.state(),
        }
    }
}
