//! Where an attempt is, and what waits for its next step.

use std::{os::fd::OwnedFd, time::Instant};

use crate::job::SpawnError;

/// Where an attempt is.
#[derive(Debug)]
pub(in crate::shim) enum Phase {
    /// Its first segment exists; nothing was started yet.
    Opening,
    /// Its process is between fork and exec.
    Starting {
        report: OwnedFd,
        /// Our end of its stdin: nothing is fed before its program runs, for what a child that fails
        /// has in its pipe is lost.
        stdin: Option<OwnedFd>,
    },
    /// Its process has failed before its exec, for a reason that may pass. Once it is reaped the
    /// next one is started.
    Failing(SpawnError),
    /// Its leader runs.
    Running,
    /// Its leader has exited, other processes live.
    Ending,
    /// Its tree is gone (survivors aside); what is in the pipes is stored.
    Draining,
    /// Its facts are complete; the exit record is to be written.
    Recording,
    /// Everything is being synced before the exit is told.
    Syncing,
    /// The exit was told.
    Told,
}

/// What was asked before it could be done.
#[derive(Debug, Default)]
pub(in crate::shim) struct Later {
    pub(in crate::shim) pause: bool,
    pub(in crate::shim) term: bool,
    pub(in crate::shim) signals: Vec<i32>,
}

/// That the attempt cannot go on, and when to try again (`None`: when the sync thread says so).
#[derive(Debug)]
pub(in crate::shim) struct Blocked {
    pub(in crate::shim) retry_at: Option<Instant>,
}
