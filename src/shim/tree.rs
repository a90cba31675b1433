//! The processes below this one, found in `/proc`, and signals to them that can reach nobody
//! else. Why a signal is sent, and when, is the attempt's business.
//!
//! A direct child keeps its number until we reap it, and the leader's group keeps its number
//! until we reap the leader: those two may be signalled by number. For everybody else a pidfd is
//! opened first and the descent checked behind it: a number that was recycled in between then
//! either shows a stranger's descent, or the pidfd is a dead process's.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::fork;
use crate::job::Survivor;

/// A process below the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's number.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// The letter of proc(5): `R`, `S`, `T`, `Z`, …
    pub state: u8,
    /// How many threads it has.
    threads: u32,
}

impl Process {
    fn is_alive(&self) -> bool {
        // Where only its first thread has ended the letter is that thread's.
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }

    /// Whether it was stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        self.state == b'T'
    }
}

/// What a look at the processes below the shim has brought. A process that could not be looked at
/// is not one that is gone.
#[derive(Debug, Default)]
pub struct Looked {
    /// Those that were seen.
    pub found: Vec<Process>,
    /// Those that are there, or may be, and could not be looked at; what is below them was not seen
    /// either.
    unseen: Vec<i32>,
    /// Some list of children could not be read.
    torn: bool,
}

impl Looked {
    /// Whether nobody is missing.
    pub fn is_whole(&self) -> bool {
        !self.torn && self.unseen.is_empty()
    }
}

/// What came of a signal to everybody.
#[derive(Debug)]
pub struct Reached {
    /// Those that the kernel did not let us signal.
    pub refused: Vec<i32>,
    /// Whether everybody was looked at and signalled, those aside.
    pub whole: bool,
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

    /// Direct children, zombies too. An error says nothing about whether there are any.
    pub fn children(&self) -> io::Result<Vec<i32>> {
        let mut text = vec![0; 4096];
        let mut length = 0;
        // A number never straddles two reads of one call, but the list may be long.
        loop {
            let n = self.children.read_at(&mut text[length..], length as u64)?;
            if n == 0 {
                return Ok(numbers(&text[..length]));
            }
            length += n;
            if length == text.len() {
                text.resize(2 * length, 0);
            }
        }
    }

    /// Everything below the shim that has not been reaped.
    pub fn everyone(&self) -> Looked {
        let mut looked = Looked::default();
        let mut seen = HashSet::new();
        let mut open = self.children().unwrap_or_else(|_| {
            looked.torn = true;
            Vec::new()
        });
        while let Some(pid) = open.pop() {
            if !seen.insert(pid) {
                continue;
            }
            match look_up(pid) {
                Ok(None) => {}
                Ok(Some(process)) => {
                    looked.found.push(process);
                    let children = children_of(pid);
                    looked.torn |= children.is_err();
                    open.extend(children.unwrap_or_default());
                }
                Err(_) => looked.unseen.push(pid),
            }
        }
        looked
    }

    /// Everything alive below the shim but the leader.
    pub fn others(&self, leader: i32) -> Looked {
        let mut all = self.everyone();
        all.found.retain(|p| p.pid != leader && p.is_alive());
        all
    }

    /// Sends a signal to everybody below the shim: to the `group` at once (its leader must not
    /// have been reaped), to everybody else one by one. Whether everybody could be looked at.
    pub fn signal(&self, group: Option<i32>, signal: i32) -> bool {
        self.signal_group(group, signal);
        let everyone = self.everyone();
        let mut whole = everyone.is_whole();
        for process in &everyone.found {
            if Some(process.group) != group {
                whole &= !is_unknown(self.signal_one(process.pid, signal));
            }
        }
        whole
    }

    /// The same, again and again until nobody new is found: for signals after which a process
    /// cannot fork any more, and which do no harm twice.
    pub fn signal_until_quiet(&self, group: Option<i32>, signal: i32) -> Reached {
        self.signal_group(group, signal);
        let mut signalled = HashSet::new();
        let mut refused = Vec::new();
        let mut whole = true;
        let mut quiet_rounds = 0;
        for _round in 0..ROUNDS_MAX {
            let before = signalled.len();
            let everyone = self.everyone();
            whole = everyone.is_whole();
            for process in everyone.found.iter().filter(|p| p.is_alive()) {
                if signalled.contains(&process.pid) {
                    continue;
                }
                let sent = self.signal_one(process.pid, signal);
                if is_unknown(sent) {
                    whole = false;
                    continue;
                }
                signalled.insert(process.pid);
                if sent == Err(Errno::EPERM) {
                    refused.push(process.pid);
                }
            }
            if !whole {
                self.signal_children(signal);
            }
            quiet_rounds = if signalled.len() == before {
                quiet_rounds + 1
            } else {
                0
            };
            // The kernel's list of children may miss one while another exits: once more.
            if quiet_rounds == 2 {
                break;
            }
        }
        Reached { refused, whole }
    }

    /// Sends a signal to the leader's group alone.
    pub fn signal_group(&self, group: Option<i32>, signal: i32) {
        if let Some(leader) = group {
            // ESRCH: the child has not begun its session yet, or all of them are gone.
            let _ = fork::kill(-leader, signal);
        }
    }

    /// Where there is no descriptor to look at anybody, direct children can be signalled by number:
    /// it stays theirs until we reap them. What a killed one leaves is given to us, so that the next
    /// round finds it here.
    fn signal_children(&self, signal: i32) {
        for pid in self.children().unwrap_or_default() {
            // A zombie does not mind, and whoever may not be signalled is met by the next round.
            let _ = fork::kill(pid, signal);
        }
    }

    /// ESRCH and EPERM are answers; after any other error nobody knows whether it is there.
    fn signal_one(&self, pid: i32, signal: i32) -> Result<(), Errno> {
        let target = Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
        let pidfd = pidfd_open(target, PidfdFlags::empty())
            .map_err(|error| Errno::from_raw(error.raw_os_error()))?;
        if !self.is_ours(pid)? {
            return Err(Errno::ESRCH);
        }
        fork::pidfd_kill(pidfd.as_raw_fd(), signal)
    }

    /// Whether the chain of parents leads to the shim.
    pub fn is_ours(&self, pid: i32) -> Result<bool, Errno> {
        let mut at = pid;
        for _ in 0..DEPTH_MAX {
            match look_up(at)? {
                Some(process) if process.parent == self.shim => return Ok(true),
                Some(process) if process.parent > 1 => at = process.parent,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }
}

fn is_unknown(sent: Result<(), Errno>) -> bool {
    !matches!(sent, Ok(()) | Err(Errno::ESRCH | Errno::EPERM))
}

/// How many rounds one call makes; the caller comes again.
const ROUNDS_MAX: u32 = 50;

/// How long a chain of parents may be.
const DEPTH_MAX: u32 = 100_000;

/// How many survivors are named at most: their names have to fit into a record.
const NAMED_MAX: usize = 1000;

/// Processes by name, for people.
pub fn name_all(processes: &[Process]) -> Vec<Survivor> {
    let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm"));
    processes
        .iter()
        .take(NAMED_MAX)
        .map(|p| Survivor {
            pid: p.pid,
            comm: comm(p.pid).unwrap_or_default().trim_end().to_owned(),
        })
        .collect()
}

/// The start time of a process that has not been reaped, clock ticks since boot.
pub fn start_ticks(pid: i32) -> Option<u64> {
    fork::start_ticks(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// `None` where there is no such process. An error says nothing about it.
fn look_up(pid: i32) -> Result<Option<Process>, Errno> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_stat(pid, &stat).map(Some).ok_or(Errno::EIO),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
    }
}

/// What `/proc` says of a process that has been reaped: before the file is opened, or behind it.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ESRCH)
    )
}

/// What is there of it, where a process or one of its threads may be gone.
fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if is_gone(&error) => Ok(None),
        read => read.map(Some),
    }
}

fn parse_stat(pid: i32, stat: &[u8]) -> Option<Process> {
    let behind = stat.iter().rposition(|b| *b == b')')? + 1;
    let text = std::str::from_utf8(&stat[behind..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    Some(Process {
        pid,
        state: *fields.next()?.as_bytes().first()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        // Field 20; the group is field 5.
        threads: fields.nth(14)?.parse().ok()?,
    })
}

/// The children of a process, by all its threads; nobody where it is gone.
fn children_of(pid: i32) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    let threads = unless_gone(fs::read_dir(format!("/proc/{pid}/task")))?;
    for thread in threads.into_iter().flatten() {
        let Some(thread) = unless_gone(thread)? else {
            break;
        };
        let text = unless_gone(fs::read(thread.path().join("children")))?;
        all.extend(numbers(&text.unwrap_or_default()));
    }
    Ok(all)
}

fn numbers(text: &[u8]) -> Vec<i32> {
    text.split(|b| b.is_ascii_whitespace())
        .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let rest = "3 4 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0";
        let parsed = |state: &str, threads: u32| {
            let stat = format!("7 (a) R 1 (b)) {state} {rest} {threads} 0 4711 99 1");
            parse_stat(7, stat.as_bytes()).expect("parsed")
        };
        let process = parsed("T", 1);
        assert_eq!((process.parent, process.group), (3, 4));
        assert!(process.is_stopped() && process.is_alive());
        assert!(!parsed("Z", 1).is_alive());
        assert!(parsed("Z", 2).is_alive(), "its other threads run");
    }
}
