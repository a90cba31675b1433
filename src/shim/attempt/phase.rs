//! The phase of an attempt; each phase holds the facts that only it has. `attempt` and its parts
//! decide which step comes next.

use std::{os::fd::OwnedFd, time::Instant};

use super::{backoff::Backoff, pause_state::PauseState};
use crate::{
    job::{ExitFacts, SpawnError, Survivor},
    spool::record::StartPayload,
};

/// The phase of an attempt.
#[derive(Debug)]
pub(in crate::shim) enum Phase {
    /// Its first segment exists; its program does not run yet.
    Starting(Starting),
    /// Its process tree may still have processes.
    Living(Living),
    /// Its tree is gone (survivors not counted); what is left in the pipes is being stored.
    Draining(Draining),
    /// Its facts are complete.
    Ended(Ended),
}

/// An attempt whose program does not run yet.
#[derive(Debug, Default)]
pub(in crate::shim) struct Starting {
    pub(super) step: StartStep,
    /// What was requested and is done once the program runs.
    pub(super) deferred: Deferred,
    /// The pauses between tries to start the process.
    pub(super) backoff: Backoff,
    /// Since when its exec has failed for a reason that may pass, but need not.
    pub(super) exec_fails_since: Option<Instant>,
}

/// The step of a start.
#[derive(Debug, Default)]
pub(super) enum StartStep {
    /// There is no process; the next step forks one.
    #[default]
    Fork,
    /// Its process is between fork and exec.
    Exec(Forked),
    /// Its process has failed before its exec, for a reason that may pass. Once it is reaped the
    /// next one is started.
    Failed {
        error: SpawnError,
        /// Its process id, until it is reaped.
        leader: Option<i32>,
    },
}

/// A process between fork and exec.
#[derive(Debug)]
pub(super) struct Forked {
    pub(super) leader: i32,
    pub(super) report: OwnedFd,
    /// Our end of its stdin: nothing is written before its program runs, because the bytes in the
    /// pipe of a child that fails are lost.
    pub(super) stdin: Option<OwnedFd>,
}

/// What the server requested before there was a process to do it to.
#[derive(Debug, Default)]
pub(in crate::shim) struct Deferred {
    pub(super) pause: bool,
    pub(super) term: bool,
    pub(super) signals: Vec<i32>,
}

/// Result of the start of the program.
#[derive(Debug, Clone)]
pub(super) enum Program {
    /// It could not be started, and is not tried again.
    Failed(SpawnError),
    /// It was started as this process, at this wall clock (µs since 1970).
    Started { process: StartPayload, at_us: i64 },
}

/// The first process of the tree, whose id is also the id of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaderProcess {
    /// This process id: it runs, or has exited and keeps its number.
    Unreaped(i32),
    /// It has exited with this status (as wait(2) encodes it).
    Reaped(i32),
}

/// A process tree.
#[derive(Debug)]
pub(in crate::shim) struct Living {
    pub(super) leader: LeaderProcess,
    pub(super) program: Program,
    pub(super) pause: PauseState,
    pub(super) stage: TreeStage,
}

/// The stage of a process tree.
#[derive(Debug)]
pub(super) enum TreeStage {
    /// Its leader runs, or its exit is not noticed yet.
    Running,
    /// Its leader has exited, other processes live: `leaked` of them have outlived it.
    Ending { leaked: u32 },
}

/// What is known of a process tree at its end.
#[derive(Debug)]
pub(super) struct TreeEnd {
    pub(super) program: Program,
    /// The leader's exit status, as wait(2) encodes it; 0 where there was none.
    pub(super) status: i32,
    pub(super) leaked: u32,
    pub(super) survivors: Vec<Survivor>,
    /// No process is left.
    pub(super) gone: bool,
}

/// An attempt whose processes are gone and whose last bytes are being stored.
#[derive(Debug)]
pub(in crate::shim) struct Draining {
    pub(super) tree: TreeEnd,
    pub(super) ended_at_us: i64,
    /// The disk took no more output: the rest is only counted.
    pub(super) is_truncated: bool,
}

/// An attempt whose facts are complete.
#[derive(Debug)]
pub(in crate::shim) struct Ended {
    pub(super) facts: Box<ExitFacts>,
    /// No process is left.
    pub(super) gone: bool,
    pub(super) step: EndStep,
}

/// The step of the end of an attempt.
#[derive(Debug)]
pub(super) enum EndStep {
    /// The exit record is to be written.
    Recording,
    /// It is written, and everything is being synced before the exit is reported.
    Syncing,
    /// The exit has been reported to the server.
    Reported(Reported),
}

/// A reported exit.
#[derive(Debug)]
pub(super) struct Reported {
    pub(super) record: ExitRecord,
    /// Whether the shim takes work again, as reported. It stays so, whatever happens to the
    /// processes later: the server gives work to a reusable shim and none to another.
    pub(super) reusable: bool,
    /// The final commit is durable.
    pub(super) acknowledged: bool,
}

/// The state of the exit record on its way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitRecord {
    /// Not written yet: the disk was full.
    Missing,
    Written,
    /// Written, and given to the sync thread with all other segments.
    Syncing,
}

impl Phase {
    /// The leader's process id, from the fork until it is reaped: as long as that number is
    /// certainly ours.
    pub(super) fn leader(&self) -> Option<i32> {
        match self {
            Self::Starting(starting) => match &starting.step {
                StartStep::Fork => None,
                StartStep::Exec(forked) => Some(forked.leader),
                StartStep::Failed { leader, .. } => *leader,
            },
            Self::Living(living) => living.leader.pid(),
            Self::Draining(_) | Self::Ended(_) => None,
        }
    }

    /// Records that a child was reaped, which may be the leader.
    pub(super) fn on_reaped(&mut self, pid: i32, status: i32) {
        match self {
            Self::Starting(starting) => {
                if let StartStep::Failed { leader, .. } = &mut starting.step {
                    leader.take_if(|leader| *leader == pid);
                }
            }
            Self::Living(living) if living.leader == LeaderProcess::Unreaped(pid) => {
                living.leader = LeaderProcess::Reaped(status);
            }
            _ => {}
        }
    }

    /// The process between fork and exec.
    pub(super) fn forked(&self) -> Option<&Forked> {
        match self {
            Self::Starting(Starting {
                step: StartStep::Exec(forked),
                ..
            }) => Some(forked),
            _ => None,
        }
    }

    /// The tree while its leader runs.
    pub(super) fn running(&mut self) -> Option<&mut Living> {
        match self {
            Self::Living(living) if living.is_running() => Some(living),
            _ => None,
        }
    }

    /// Whether the leader has exited and other processes live.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Living(living) if !living.is_running())
    }

    /// Whether the job's limits count: from the fork until the leader has exited.
    pub(super) fn has_limits(&self) -> bool {
        match self {
            Self::Starting(_) => self.forked().is_some(),
            Self::Living(living) => living.is_running(),
            Self::Draining(_) | Self::Ended(_) => false,
        }
    }

    /// The pause of a living tree.
    pub(super) fn pause(&self) -> Option<&PauseState> {
        match self {
            Self::Living(living) => Some(&living.pause),
            _ => None,
        }
    }

    /// Whether the facts are complete.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// The exit, once it has been reported.
    pub(super) fn reported(&self) -> Option<&Reported> {
        match self {
            Self::Ended(Ended {
                step: EndStep::Reported(reported),
                ..
            }) => Some(reported),
            _ => None,
        }
    }

    /// The same, mutable.
    pub(super) fn reported_mut(&mut self) -> Option<&mut Reported> {
        match self {
            Self::Ended(Ended {
                step: EndStep::Reported(reported),
                ..
            }) => Some(reported),
            _ => None,
        }
    }

    /// Whether the attempt has ended and no process of it is left.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Ended(ended) if ended.gone)
    }

    /// Which process runs the program, and since when (wall clock, µs), until the facts are complete.
    pub(super) fn started(&self) -> Option<(StartPayload, i64)> {
        let program = match self {
            Self::Living(living) => &living.program,
            Self::Draining(draining) => &draining.tree.program,
            Self::Starting(_) | Self::Ended(_) => return None,
        };
        match program {
            Program::Started { process, at_us } => Some((*process, *at_us)),
            Program::Failed(_) => None,
        }
    }

    /// When the program was started (wall clock, µs).
    pub(super) fn started_at_us(&self) -> Option<i64> {
        match self {
            Self::Ended(ended) => ended.facts.started_at_us,
            _ => self.started().map(|(_, at_us)| at_us),
        }
    }
}

impl Living {
    /// A tree that consists of its leader.
    pub(super) fn new(leader: i32, program: Program) -> Self {
        Self {
            leader: LeaderProcess::Unreaped(leader),
            program,
            pause: PauseState::default(),
            stage: TreeStage::Running,
        }
    }

    /// Whether its leader runs, or its exit is not noticed yet.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.stage, TreeStage::Running)
    }

    /// The facts at its end, if no process survives.
    pub(super) fn end(&self) -> TreeEnd {
        TreeEnd {
            program: self.program.clone(),
            status: match self.leader {
                LeaderProcess::Unreaped(_) => 0,
                LeaderProcess::Reaped(status) => status,
            },
            leaked: match self.stage {
                TreeStage::Running => 0,
                TreeStage::Ending { leaked } => leaked,
            },
            survivors: Vec::new(),
            gone: true,
        }
    }
}

impl LeaderProcess {
    /// Its process id, until it is reaped.
    pub(super) fn pid(self) -> Option<i32> {
        match self {
            Self::Unreaped(pid) => Some(pid),
            Self::Reaped(_) => None,
        }
    }
}

impl TreeEnd {
    /// There was no tree: the program could not be started.
    pub(super) fn never_started(error: SpawnError) -> Self {
        Self {
            program: Program::Failed(error),
            status: 0,
            leaked: 0,
            survivors: Vec::new(),
            gone: true,
        }
    }
}
