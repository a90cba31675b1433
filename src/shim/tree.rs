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
}

impl Process {
    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether it was stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        self.state == b'T'
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

    /// Direct children, zombies too.
    pub fn children(&self) -> Vec<i32> {
        let mut text = vec![0; 4096];
        let mut length = 0;
        // A number never straddles two reads of one call, but the list may be long.
        while let Ok(n) = self.children.read_at(&mut text[length..], length as u64) {
            if n == 0 {
                break;
            }
            length += n;
            if length == text.len() {
                text.resize(2 * length, 0);
            }
        }
        numbers(&text[..length])
    }

    /// Everything below the shim that has not been reaped.
    pub fn everyone(&self) -> Vec<Process> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut open = self.children();
        while let Some(pid) = open.pop() {
            if !seen.insert(pid) {
                continue;
            }
            if let Some(process) = look_up(pid) {
                found.push(process);
                open.extend(children_of(pid));
            }
        }
        found
    }

    /// Everything alive below the shim but the leader.
    pub fn others(&self, leader: i32) -> Vec<Process> {
        let mut all = self.everyone();
        all.retain(|p| p.pid != leader && p.is_alive());
        all
    }

    /// Sends a signal to everybody below the shim: to the `group` at once (its leader must not
    /// have been reaped), to everybody else one by one.
    pub fn signal(&self, group: Option<i32>, signal: i32) {
        self.signal_group(group, signal);
        for process in self.everyone() {
            if Some(process.group) != group {
                self.signal_one(process.pid, signal);
            }
        }
    }

    /// The same, again and again until a round finds nobody new: for signals after which a
    /// process cannot fork any more.
    pub fn signal_until_quiet(&self, group: Option<i32>, signal: i32) {
        self.signal_group(group, signal);
        let mut reached = HashSet::new();
        for _round in 0..ROUNDS_MAX {
            let before = reached.len();
            for process in self.everyone() {
                let new = process.is_alive() && reached.insert(process.pid);
                if new && Some(process.group) != group {
                    self.signal_one(process.pid, signal);
                }
            }
            if reached.len() == before {
                return;
            }
        }
    }

    /// Sends a signal to the leader's group alone.
    pub fn signal_group(&self, group: Option<i32>, signal: i32) {
        if let Some(leader) = group {
            // ESRCH: the child has not begun its session yet, or all of them are gone.
            let _ = fork::kill(-leader, signal);
        }
    }

    fn signal_one(&self, pid: i32, signal: i32) {
        let Some(target) = Pid::from_raw(pid) else {
            return;
        };
        // ESRCH and the like: it is gone, which is what every signal of ours leads to anyway.
        if let Ok(pidfd) = pidfd_open(target, PidfdFlags::empty())
            && self.is_ours(pid)
        {
            let _ = fork::pidfd_kill(pidfd.as_raw_fd(), signal);
        }
    }

    /// Whether the chain of parents leads to the shim.
    fn is_ours(&self, pid: i32) -> bool {
        let mut at = pid;
        for _ in 0..DEPTH_MAX {
            match look_up(at) {
                Some(process) if process.parent == self.shim => return true,
                Some(process) if process.parent > 1 => at = process.parent,
                _ => return false,
            }
        }
        false
    }
}

/// How many rounds one call makes; the caller comes again.
const ROUNDS_MAX: u32 = 50;

/// How long a chain of parents may be.
const DEPTH_MAX: u32 = 100_000;

/// Processes by name, for people.
pub fn name_all(processes: &[Process]) -> Vec<Survivor> {
    let comm = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm"));
    processes
        .iter()
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

fn look_up(pid: i32) -> Option<Process> {
    parse_stat(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
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
    })
}

fn children_of(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for thread in threads.flatten() {
        if let Ok(text) = fs::read(thread.path().join("children")) {
            all.extend(numbers(&text));
        }
    }
    all
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
        let process = parse_stat(7, b"7 (a) R 1 (b)) T 3 4 5 0 -1").expect("parsed");
        assert_eq!((process.parent, process.group), (3, 4));
        assert!(process.is_stopped() && process.is_alive());
    }
}
