//! What `/proc` says of one process. An error other than "it is gone" is returned as unknown.
//!
//! `orphans/mark` decides to which job a process belongs.

use std::{fs, io, os::fd::OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::looked::Looked;
use crate::sys::proc::{self, Stat};

/// A pidfd: it names this process even after the process id is used again.
pub fn open(pid: i32) -> Looked<OwnedFd> {
    let Some(number) = Pid::from_raw(pid) else {
        return Looked::Gone;
    };
    let opened = pidfd_open(number, PidfdFlags::empty()).map_err(io::Error::from);
    Looked::at_process(format_args!("pidfd_open of process {pid}"), opened)
}

/// The children of a process, by all its threads, as far as they can be listed.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let mut children = Vec::new();
    for thread in threads.into_iter().flatten().flatten() {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(proc::numbers(list.as_bytes()));
    }
    children
}

/// The environment with which a process was started.
#[derive(Debug)]
pub enum Environment {
    /// Its bytes: `NAME=value` entries, separated by NUL.
    Is(Vec<u8>),
    /// The kernel does not show it to us: the process is another user's, or hides itself.
    Hidden,
}

/// The environment of a process.
pub fn environment(pid: i32, stat: &Stat) -> Looked<Environment> {
    let read = match stat.has_lost_its_first_thread() {
        false => fs::read(format!("/proc/{pid}/environ")),
        true => environment_of_threads(pid),
    };
    let read = match read {
        Err(error) if is_forbidden(&error) => Ok(Environment::Hidden),
        read => read.map(Environment::Is),
    };
    Looked::at_process(format_args!("the environment of process {pid}"), read)
}

/// Reads the environment through another thread: a first thread that has ended has given the memory
/// up in which it is, and the others still have it.
fn environment_of_threads(pid: i32) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read(thread?.path().join("environ")) {
            Ok(environment) => found = environment,
            // This one has ended meanwhile.
            Err(error) if proc::is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// The soft limit of time under real-time scheduling, µs; `None` if it is unlimited. The kernel
/// shows it to every user, for every process.
pub fn realtime_limit(pid: i32) -> Looked<Option<u64>> {
    let read = fs::read_to_string(format!("/proc/{pid}/limits")).and_then(|text| {
        parse_realtime_limit(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    });
    Looked::at_process(format_args!("the limits of process {pid}"), read)
}

fn parse_realtime_limit(text: &str) -> Option<Option<u64>> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// Whether one of a process's user ids (real, effective, saved, file system) is ours.
pub fn is_of_our_user(pid: i32) -> Looked<bool> {
    let ours = proc::status(pid).map(|status| {
        let me = nix::unistd::geteuid().as_raw().to_string();
        let ids = proc::status_field(&status, "Uid");
        // Without the field the process is not ruled out.
        ids.is_none_or(|ids| ids.split_whitespace().any(|id| id == me))
    });
    Looked::at_process(format_args!("the status of process {pid}"), ours)
}

/// The state of a process.
pub fn stat(pid: i32) -> Looked<Stat> {
    Looked::at_process(format_args!("the state of process {pid}"), Stat::read(pid))
}

/// The state of a process, and its name.
pub fn named_stat(pid: i32) -> Looked<(Stat, String)> {
    let read = Stat::read_named(pid);
    Looked::at_process(format_args!("the state of process {pid}"), read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_found_in_its_line() {
        let text = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max realtime priority     0                    0                    \n\
                 Max realtime timeout      {soft}            unlimited            us        \n"
            )
        };
        assert_eq!(parse_realtime_limit(&text("unlimited")), Some(None));
        assert_eq!(parse_realtime_limit(&text("4611")), Some(Some(4611)));
        assert_eq!(parse_realtime_limit("Limit"), None);
        let own = realtime_limit(std::process::id() as i32);
        assert!(matches!(own, Looked::There(_)), "{own:?}");
    }
}
