//! Ends a process that is proven to be the job's: it is held by a pidfd, stopped, and killed with
//! its group, so that no fork escapes. `mark` and `tree_search` prove that it is the job's.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal, getpgrp, kill_process_group, pidfd_send_signal};

use super::{Leader, mark::SeenProcess};
use crate::supervisor::{looked::Looked, process};

/// A leader that is still there. Its session is the job's: no other process can get its id before
/// it is gone.
#[derive(Debug)]
pub(super) struct HeldLeader {
    pub leader: Leader,
    process: OwnedFd,
}

impl HeldLeader {
    /// Finds the leader and stops it (SIGSTOP).
    pub fn stop(leader: Leader) -> Looked<Self> {
        // The descriptor first, the check second: what it names cannot change any more.
        let process = match process::open(leader.pid) {
            Looked::There(process) => process,
            Looked::Gone => return Looked::Gone,
            Looked::Unknown(why) => return Looked::Unknown(why),
        };
        let living = Self { leader, process };
        match living.is_there() {
            Looked::There(()) => {
                let _ = pidfd_send_signal(&living.process, Signal::STOP);
                Looked::There(living)
            }
            Looked::Gone => Looked::Gone,
            Looked::Unknown(why) => Looked::Unknown(why),
        }
    }

    /// Whether the process with the leader's number is the leader.
    pub fn is_there(&self) -> Looked {
        match process::stat(self.leader.pid) {
            Looked::There(stat) if stat.start_ticks == self.leader.start_ticks => Looked::There(()),
            Looked::There(_) | Looked::Gone => Looked::Gone,
            Looked::Unknown(why) => Looked::Unknown(why),
        }
    }

    /// Kills the leader.
    pub fn kill(self) {
        // ESRCH: it is gone. After any other error the next look finds it again.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

/// Kills a process, and its `group` if that is the job's as a whole. A signal to a group also
/// reaches what a member forks at that moment. While the process is stopped and there, the group's
/// id cannot be used again.
pub(super) fn kill_process(process: &OwnedFd, seen: &SeenProcess, group: Option<i32>) {
    if let Some(group) = group.and_then(Pid::from_raw)
        && group != getpgrp()
        && pidfd_send_signal(process, Signal::STOP).is_ok()
        && is_still_in(seen, group)
    {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // ESRCH: it is gone. After any other error the next look finds it again.
    let _ = pidfd_send_signal(process, Signal::KILL);
}

fn is_still_in(seen: &SeenProcess, group: Pid) -> bool {
    let now = process::stat(seen.pid);
    matches!(now, Looked::There(now) if !now.is_dead()
        && now.start_ticks == seen.stat.start_ticks
        && now.group == group.as_raw_nonzero().get())
}
