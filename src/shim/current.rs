//! What a shim works on: nothing, an attempt that waits for its first segment, or a started
//! attempt.

use std::time::Instant;

use super::attempt::{Attempt, pending::Pending};
use crate::{job::JobNumber, spool::ShimState};

/// The shim's current work.
#[derive(Default)]
pub(super) enum Current {
    #[default]
    Nothing,
    /// An attempt without a segment; it may also have ended before it got one.
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

    /// The same, mutable.
    pub(super) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match self {
            Self::Attempt(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// When to try again to create the first segment of a pending attempt.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Pending(pending) => pending.retry_at(),
            _ => None,
        }
    }

    /// Job number and attempt number, if there is an attempt.
    pub(super) fn attempt_id(&self) -> Option<(JobNumber, u32)> {
        match self {
            Self::Nothing => None,
            Self::Pending(pending) => Some(pending.attempt_id()),
            Self::Attempt(attempt) => Some(attempt.attempt_id()),
        }
    }

    /// The state for the `welcome` message.
    pub(super) fn state(&self) -> ShimState {
        match self {
            Self::Nothing => ShimState::Idle,
            Self::Pending(pending) => pending.state(),
            Self::Attempt(attempt) => attempt.state(),
        }
    }
}
