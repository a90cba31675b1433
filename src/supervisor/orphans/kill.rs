//! How a process is ended that is proven to be ours: held by a descriptor, stopped, and killed with its
//! group, which no fork escapes.
//!
//! Whether it is ours is not known here.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal, getpgrp, kill_process_group, pidfd_send_signal};

use super::{Leader, mark::SeenProcess};
use crate::supervisor::{looked::Looked, process};

/// A leader that is still there, and with it the proof whose session it leads: no other process can
/// get its number before it is gone.
#[derive(Debug)]
pub(super) struct HeldLeader {
    pub leader: Leader,
    process: OwnedFd,
}

impl HeldLeader {
    /// Finds the leader and stops it.
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

    /// Ends it.
    pub fn kill(self) {
        // ESRCH: it is gone. Whatever else is seen by the next look, which finds it again.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

/// Kills a process, and its group where all of that is ours. A signal to a group reaches what a member
/// is forking at that moment, too; and while the process is stopped and there, the group's number is
/// nobody else's.
pub(super) fn kill_process(process: &OwnedFd, seen: &SeenProcess, group: Option<i32>) {
    if let Some(group) = group.and_then(Pid::from_raw)
        && group != getpgrp()
        && pidfd_send_signal(process, Signal::STOP).is_ok()
        && is_still_in(seen, group)
    {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // ESRCH: it is gone. Whatever else is seen by the next look, which finds it again.
    let _ = pidfd_send_signal(process, Signal::KILL);
}

fn is_still_in(seen: &SeenProcess, group: Pid) -> bool {
    let now = process::stat(seen.pid);
    matches!(now, Looked::There(now) if !now.is_dead()
        && now.start_ticks == seen.stat.start_ticks
        && now.group == group.as_raw_nonzero().get())
}
