//! The processes below this one, and handles to them that cannot reach any other process.
//!
//! A direct child keeps its number until we reap it, and the leader's group keeps its number until
//! we reap the leader: those two may be signalled by number. For any other process a pidfd is
//! opened first and its parents are checked after that: if the number was reused in between, either
//! the parents are not ours, or the pidfd belongs to a dead process.
//!
//! A process that was found below the shim stays below it, so a scan from parents to children only
//! has to check one step: whether the parent is a process that was found before.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{
    fork,
    inspect::{self, Descendant, Identity},
};
use crate::{job::Survivor, sys::proc};

/// Result of a scan of the processes below the shim. A process that could not be looked at may
/// still exist.
#[derive(Debug, Default)]
pub struct TreeScan {
    /// The processes that were seen, parents before their children; exited ones included.
    pub found: Vec<Descendant>,
    /// Processes that exist, or may, and could not be looked at; what is below them was not seen
    /// either.
    unseen: Vec<i32>,
    /// A listed process was gone before it was looked at: it may have left children.
    pub any_gone: bool,
    /// A list of children could not be read.
    list_unread: bool,
}

impl TreeScan {
    /// Whether every process was seen.
    pub fn is_complete(&self) -> bool {
        !self.list_unread && self.unseen.is_empty()
    }
}

/// A handle to one process.
#[derive(Debug)]
pub enum ProcessHandle {
    /// A direct child, by its process id.
    Child(i32),
    /// Any other process.
    Pidfd(OwnedFd),
    /// A process that was found below us before; a pidfd is opened when it is needed.
    Known(Identity),
}

impl ProcessHandle {
    /// Sends a signal, or (0) asks whether one may be sent. ESRCH and EPERM are answers; after any
    /// other error it is unknown whether the process exists.
    pub fn send(&self, signal: i32) -> Result<(), Errno> {
        match self {
            Self::Child(pid) => fork::kill(*pid, signal),
            Self::Pidfd(pidfd) => fork::pidfd_kill(pidfd.as_raw_fd(), signal),
            Self::Known((pid, start_ticks)) => {
                let pidfd = open(*pid)?;
                match inspect::process(*pid)? {
                    Some(now) if now.stat.start_ticks == *start_ticks => {
                        fork::pidfd_kill(pidfd.as_raw_fd(), signal)
                    }
                    _ => Err(Errno::ESRCH),
                }
            }
        }
    }
}

/// Processes that were found below the shim, with their start times: a reused number is not taken
/// for the process before.
#[derive(Debug, Default)]
pub struct Known(HashMap<i32, u64>);

impl Known {
    fn add(&mut self, process: &Descendant) {
        self.0.insert(process.pid, process.stat.start_ticks);
    }

    /// Whether this number still belongs to the process that was found.
    fn is_still(&self, pid: i32) -> Result<bool, Errno> {
        let Some(start_ticks) = self.0.get(&pid) else {
            return Ok(false);
        };
        let now = inspect::process(pid)?;
        Ok(now.is_some_and(|now| now.stat.start_ticks == *start_ticks))
    }
}

/// The shim as the root of a process tree.
#[derive(Debug)]
pub struct Tree {
    shim: i32,
    /// `/proc/self/task/MAIN/children`: orphans are given to the first living thread, and that
    /// is always the main one.
    children: File,
}

impl Tree {
    /// The tree below this process. Fails where the kernel has no `children` files.
    pub fn of_this_process() -> io::Result<Self> {
        let shim = std::process::id() as i32;
        let children = File::open(format!("/proc/{shim}/task/{shim}/children"))?;
        Ok(Self { shim, children })
    }

    /// Direct children, zombies too. After an error it is unknown whether there are any.
    pub fn children(&self) -> io::Result<Vec<i32>> {
        let mut text = vec![0; 4096];
        let mut length = 0;
        // A number never straddles two reads, but the list may be longer than one.
        loop {
            let n = self.children.read_at(&mut text[length..], length as u64)?;
            if n == 0 {
                return Ok(proc::numbers(&text[..length]));
            }
            length += n;
            if length == text.len() {
                text.resize(2 * length, 0);
            }
        }
    }

    /// Every process below the shim that has not been reaped.
    pub fn scan(&self) -> TreeScan {
        let inspect = |pid, _| Ok(inspect::process(pid)?.map(|process| (process, ())));
        self.walk(inspect, |_, ()| {})
    }

    /// Every living process below the shim, without the leader.
    pub fn others(&self, leader: i32) -> TreeScan {
        let mut all = self.scan();
        all.found.retain(|p| p.pid != leader && p.is_alive());
        all
    }

    /// Calls `act` with a handle for every living process below the shim, parents before their
    /// children. Children are listed before `act` gets their parent: if `act` ends the parent, they
    /// are visited all the same.
    pub fn visit_all(
        &self,
        known: &mut Known,
        mut act: impl FnMut(&Descendant, &ProcessHandle),
    ) -> TreeScan {
        self.walk(
            |pid, is_child| self.visit(pid, is_child, known),
            |process, handle| {
                if process.is_alive() {
                    act(process, &handle);
                }
            },
        )
    }

    /// Opens a handle for one process; `None` where it is gone or not below the shim. `is_child`:
    /// it is in our own list of children, and is not reaped while the handle is used.
    pub fn visit(
        &self,
        pid: i32,
        is_child: bool,
        known: &mut Known,
    ) -> Result<Option<(Descendant, ProcessHandle)>, Errno> {
        if let Some(start_ticks) = known.0.get(&pid).filter(|_| !is_child)
            && let Some(process) = inspect::process(pid)?
            && process.stat.start_ticks == *start_ticks
        {
            return Ok(Some((process, ProcessHandle::Known(process.identity()))));
        }
        let handle = match is_child {
            true => ProcessHandle::Child(pid),
            false => match open(pid) {
                Err(Errno::ESRCH) => return Ok(None),
                opened => ProcessHandle::Pidfd(opened?),
            },
        };
        let Some(process) = inspect::process(pid)? else {
            return Ok(None);
        };
        let is_ours = is_child || self.is_below(&process, known)? == Some(true);
        if is_ours {
            known.add(&process);
        }
        Ok(is_ours.then_some((process, handle)))
    }

    /// Looks at every process, parents first, and calls `act` for each once its children are
    /// listed.
    fn walk<T>(
        &self,
        mut inspect: impl FnMut(i32, bool) -> Result<Option<(Descendant, T)>, Errno>,
        mut act: impl FnMut(&Descendant, T),
    ) -> TreeScan {
        let mut scan = TreeScan::default();
        let mut seen = HashSet::new();
        let children = self.children();
        scan.list_unread |= children.is_err();
        let children = children.unwrap_or_default().into_iter();
        let mut open: Vec<_> = children.map(|pid| (pid, true)).collect();
        while let Some((pid, is_child)) = open.pop() {
            if !seen.insert(pid) {
                continue;
            }
            match inspect(pid, is_child) {
                Ok(Some((process, found))) => {
                    if process.is_alive() {
                        let children = inspect::children(&process);
                        scan.list_unread |= children.is_err();
                        open.extend(children.unwrap_or_default().iter().map(|pid| (*pid, false)));
                    }
                    act(&process, found);
                    scan.found.push(process);
                }
                Ok(None) => scan.any_gone = true,
                Err(_) => scan.unseen.push(pid),
            }
        }
        scan
    }

    /// Whether the process with this number is below the shim. One with too many parents to check
    /// counts as below it.
    pub fn is_ours(&self, pid: i32) -> Result<bool, Errno> {
        match inspect::process(pid)? {
            Some(process) => Ok(self.is_below(&process, &Known::default())? != Some(false)),
            None => Ok(false),
        }
    }

    /// Whether the chain of parents leads to the shim, or to a process that is known to be below
    /// it; `None` where the chain is too long to say.
    fn is_below(&self, process: &Descendant, known: &Known) -> Result<Option<bool>, Errno> {
        let mut parent = process.stat.parent;
        for _ in 0..CLIMB_MAX {
            if parent == self.shim || known.is_still(parent)? {
                return Ok(Some(true));
            }
            match inspect::process(parent)? {
                Some(process) if process.stat.parent > 0 => parent = process.stat.parent,
                _ => return Ok(Some(false)),
            }
        }
        Ok(None)
    }
}

fn open(pid: i32) -> Result<OwnedFd, Errno> {
    let target = Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
    pidfd_open(target, PidfdFlags::empty()).map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// How many parents are checked for one process. In a scan the first one is known; a client of the
/// socket can be far below, and the next client waits meanwhile.
const CLIMB_MAX: u32 = 256;

/// How many survivors are named at most: their names must fit into a record.
const NAMED_MAX: usize = 1000;

/// Processes by name, for people.
pub fn name_all(processes: &[Descendant]) -> Vec<Survivor> {
    let named = processes.iter().take(NAMED_MAX).map(|process| Survivor {
        pid: process.pid,
        comm: inspect::name(process.pid),
    });
    named.collect()
}
