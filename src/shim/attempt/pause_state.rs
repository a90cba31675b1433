//! How a pause of an attempt stands: whether its processes are held, and which step comes next.

use std::time::Instant;

use super::halt::Halt;

/// A pause of a process tree.
#[derive(Debug, Default)]
pub(super) struct PauseState {
    pub(super) hold: Hold,
    /// That it is paused was told.
    pub(super) reported: bool,
    /// What is done next about it by itself.
    pub(super) next: Option<PauseStep>,
}

/// Whom a pause holds.
#[derive(Debug, Default)]
pub(super) enum Hold {
    #[default]
    Nothing,
    /// Those that it has stopped; the clocks stand still.
    Stopped(Box<Halt>),
    /// The pause is over, but some of those do not go on yet.
    Released(Box<Halt>),
}

/// A step of a pause, and when it is due.
#[derive(Debug, Clone, Copy)]
pub(super) enum PauseStep {
    /// The pause has not reached everybody.
    Hold(Instant),
    /// Its end has not reached everybody.
    Continue(Instant),
    /// It is looked whether everybody still stands still, as at `looked_at`.
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
    /// Whether the clocks stand still.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.hold, Hold::Stopped(_))
    }

    /// Whether somebody stands still because of it, or may.
    pub(super) fn holds_any(&self) -> bool {
        !matches!(self.hold, Hold::Nothing)
    }

    /// When its next step is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.next.map(PauseStep::at)
    }

    /// Whether it has reached everybody and that was told.
    pub(super) fn is_reached(&self) -> bool {
        self.reported && self.next.is_none_or(PauseStep::is_watch)
    }

    pub(super) fn take_halt(&mut self) -> Option<Box<Halt>> {
        match std::mem::take(&mut self.hold) {
            Hold::Nothing => None,
            Hold::Stopped(halt) | Hold::Released(halt) => Some(halt),
        }
    }
}
