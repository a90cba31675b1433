//! The state of a pause: which processes it holds, and which step comes next.

use std::time::Instant;

use super::halt::Halt;

/// A pause of a process tree.
#[derive(Debug, Default)]
pub(super) struct PauseState {
    pub(super) hold: HeldProcesses,
    /// Whether `paused` was sent.
    pub(super) reported: bool,
    /// The next step that the shim does without a message.
    pub(super) next: Option<PauseStep>,
}

/// Which processes a pause holds.
#[derive(Debug, Default)]
pub(super) enum HeldProcesses {
    #[default]
    Nothing,
    /// The processes that it has stopped; the stopwatches are held.
    Stopped(Box<Halt>),
    /// The pause is over, but some of its processes have not continued yet.
    Released(Box<Halt>),
}

/// A step of a pause, and when it is due.
#[derive(Debug, Clone, Copy)]
pub(super) enum PauseStep {
    /// Stop the processes that the pause has not reached.
    Hold(Instant),
    /// Continue the processes that its end has not reached.
    Continue(Instant),
    /// Check at `at` that every process is still stopped, as at `looked_at`.
    Watch { at: Instant, looked_at: Instant },
}

impl PauseStep {
    pub(super) fn at(self) -> Instant {
        match self {
            Self::Hold(at) | Self::Continue(at) | Self::Watch { at, .. } => at,
        }
    }

    pub(super) fn is_watch(self) -> bool {
        matches!(self, Self::Watch { .. })
    }
}

impl PauseState {
    /// Whether the pause holds the stopwatches.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.hold, HeldProcesses::Stopped(_))
    }

    /// Whether a process is stopped by it, or may be.
    pub(super) fn holds_any(&self) -> bool {
        !matches!(self.hold, HeldProcesses::Nothing)
    }

    /// When its next step is due; `None`: never.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next.map(PauseStep::at)
    }

    /// Whether it has reached every process and `paused` was sent.
    pub(super) fn is_reached(&self) -> bool {
        self.reported && self.next.is_none_or(PauseStep::is_watch)
    }

    pub(super) fn take_halt(&mut self) -> Option<Box<Halt>> {
        match std::mem::take(&mut self.hold) {
            HeldProcesses::Nothing => None,
            HeldProcesses::Stopped(halt) | HeldProcesses::Released(halt) => Some(halt),
        }
    }
}
