//! Reads `/proc` of one process. Errors other than "the process is gone" are returned.

use std::{
    fs::{self, File},
    io::{self, Read},
};

use nix::errno::Errno;

use crate::sys::proc::{self, Stat};

/// How many bytes of a file are read in one call. `/proc/PID/stat` is shorter: 52 numbers and a
/// name of 16 bytes (proc_pid_stat(5)).
const FILE_BYTES_MAX: usize = 2048;

/// A process below the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descendant {
    /// Its process id.
    pub pid: i32,
    /// Its state, parent and start time, from `/proc/PID/stat`.
    pub stat: Stat,
}

pub use crate::sys::proc::Identity;

impl Descendant {
    /// A running process, for tests.
    #[cfg(test)]
    pub fn sample(pid: i32, group: i32) -> Self {
        let stat = Stat {
            state: b'R',
            parent: 1,
            group,
            session: group,
            threads: 1,
            start_ticks: 7,
        };
        Self { pid, stat }
    }

    /// Its process id and start time.
    pub fn identity(&self) -> Identity {
        (self.pid, self.stat.start_ticks)
    }

    /// Whether it can still run. Where only its first thread has ended, the state letter is that
    /// thread's.
    pub fn is_alive(&self) -> bool {
        !self.stat.is_dead()
    }

    /// Whether it was stopped by a signal. Where its first thread has ended, another thread shows
    /// it.
    pub fn is_stopped(&self) -> bool {
        match self.stat.first_thread_has_ended() {
            false => self.stat.is_stopped(),
            true => self.stat.threads > 1 && other_thread_is_stopped(self.pid),
        }
    }
}

/// Whether all threads of a process that was sent SIGSTOP have stopped. Until then it may be in the
/// middle of a fork, whose child does not get that signal. A thread in an uninterruptible wait may
/// be so for a lock within the fork, or for a disk or the end of a vfork, which can take for ever:
/// `waits_count` says whether such a wait counts as rest.
pub fn has_come_to_rest(process: &Descendant, waits_count: bool) -> bool {
    let rests = |letter| stands_still(letter) || (waits_count && letter == b'D');
    match process.stat.threads {
        1 => rests(process.stat.state),
        _ => threads(process.pid).into_iter().all(rests),
    }
}

/// The process with this id; `None` where there is none. After an error it is unknown whether it
/// exists.
pub fn process(pid: i32) -> Result<Option<Descendant>, Errno> {
    match read(&format!("/proc/{pid}/stat")) {
        Ok(stat) => parse(pid, &stat).map(Some).ok_or(Errno::EIO),
        Err(error) if proc::is_gone(&error) => Ok(None),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
    }
}

/// The children of a process, over all its threads; empty where it is gone.
pub fn children(process: &Descendant) -> io::Result<Vec<i32>> {
    let pid = process.pid;
    if process.stat.threads == 1 {
        // If it has got a second thread since, the next scan lists the children of both.
        return children_of_thread(&format!("/proc/{pid}/task/{pid}/children"));
    }
    let mut all = Vec::new();
    let threads = unless_gone(fs::read_dir(format!("/proc/{pid}/task")))?;
    for thread in threads.into_iter().flatten() {
        let Some(thread) = unless_gone(thread)? else {
            break;
        };
        let list = thread.path().join("children");
        all.extend(children_of_thread(&list.to_string_lossy())?);
    }
    Ok(all)
}

fn children_of_thread(list: &str) -> io::Result<Vec<i32>> {
    let mut text = unless_gone(read(list))?.unwrap_or_default();
    // Below this length another number would have fit, so the list is complete.
    if text.len() > FILE_BYTES_MAX / 2 {
        text = unless_gone(fs::read(list))?.unwrap_or_default();
    }
    Ok(proc::numbers(&text))
}

/// The start time of a process that has not been reaped, clock ticks since boot.
pub fn start_ticks(pid: i32) -> Option<u64> {
    Stat::read(pid).ok().map(|stat| stat.start_ticks)
}

/// Its name, for people; empty where it cannot be read.
pub fn name(pid: i32) -> String {
    proc::name(pid).unwrap_or_default()
}

/// The beginning of a file, from one read, so that it shows one moment.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let length = File::open(path)?.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether a thread other than the first one is stopped: a stop signal stops all of them.
fn other_thread_is_stopped(pid: i32) -> bool {
    threads(pid).contains(&b'T')
}

/// The state letters of all threads of a process, as far as they can be read.
fn threads(pid: i32) -> Vec<u8> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let letter = |thread: fs::DirEntry| {
        let stat = read(&thread.path().join("stat").to_string_lossy()).ok()?;
        Stat::parse(&stat).map(|thread| thread.state)
    };
    let threads = threads.into_iter().flatten().flatten();
    threads.filter_map(letter).collect()
}

/// Whether a thread with this state letter does nothing that a stop would still have to end: it is
/// stopped, held by its tracer, or has ended.
fn stands_still(letter: u8) -> bool {
    matches!(letter, b'T' | b't' | b'Z' | b'X' | b'x')
}

/// `None` where the process or thread is gone.
fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if proc::is_gone(&error) => Ok(None),
        read => read.map(Some),
    }
}

fn parse(pid: i32, line: &[u8]) -> Option<Descendant> {
    let stat = Stat::parse(line)?;
    Some(Descendant { pid, stat })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let rest = "3 4 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0";
        let parsed = |state: &str, threads: u32| {
            let stat = format!("7 (a) R 1 (b)) {state} {rest} {threads} 0 4711 99 1");
            parse(7, stat.as_bytes()).expect("parsed")
        };
        let process = parsed("T", 1);
        assert_eq!((process.stat.parent, process.stat.group), (3, 4));
        assert_eq!(process.identity(), (7, 4711));
        assert!(process.is_stopped() && process.is_alive());
        assert!(!parsed("Z", 1).is_alive());
        assert!(parsed("Z", 2).is_alive(), "its other threads run");
    }
}
