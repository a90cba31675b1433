//! What `/proc` says of one process. An error that is not "it is gone" is told as such.
//!
//! Whose a process is, is not known here.

use std::{fs, io, os::fd::OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::looked::Looked;

/// All processes there are.
///
/// # Errors
///
/// The list could not be read to its end.
pub fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok()),
        );
    }
    Ok(pids)
}

/// A descriptor of a process, which no recycled number changes.
pub fn open(pid: i32) -> Looked<OwnedFd> {
    let Some(number) = Pid::from_raw(pid) else {
        return Looked::Gone;
    };
    let opened = pidfd_open(number, PidfdFlags::empty()).map_err(io::Error::from);
    Looked::at_process(format_args!("pidfd_open of process {pid}"), opened)
}

/// The environment with which a process was started.
#[derive(Debug)]
pub enum Environment {
    /// Its bytes.
    Is(Vec<u8>),
    /// The kernel does not show it to us: the process is another user's, or hides itself.
    Hidden,
}

/// The environment of a process.
pub fn environment(pid: i32) -> Looked<Environment> {
    let read = match fs::read(format!("/proc/{pid}/environ")) {
        Err(error) if is_forbidden(&error) => Ok(Environment::Hidden),
        read => read.map(Environment::Is),
    };
    Looked::at_process(format_args!("the environment of process {pid}"), read)
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// Whether one of a process's user ids (real, effective, saved, file system) is ours.
pub fn is_of_our_user(pid: i32) -> Looked<bool> {
    let read = fs::read_to_string(format!("/proc/{pid}/status"));
    let ours = read.map(|status| {
        let me = nix::unistd::geteuid().as_raw().to_string();
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        // One that does not tell is not ruled out.
        ids.is_none_or(|ids| ids.split_whitespace().any(|id| id == me))
    });
    Looked::at_process(format_args!("the status of process {pid}"), ours)
}

/// What is needed of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its name.
    pub comm: String,
    /// A zombie, or less.
    pub is_dead: bool,
    /// Its parent.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// Clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// The state of a process.
    pub fn read(pid: i32) -> Looked<Self> {
        let read = fs::read(format!("/proc/{pid}/stat")).and_then(|text| {
            Self::parse(&String::from_utf8_lossy(&text))
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        });
        Looked::at_process(format_args!("the state of process {pid}"), read)
    }

    /// The name stands in parentheses and may contain any byte, also parentheses.
    fn parse(text: &str) -> Option<Self> {
        let open = text.find('(')?;
        let close = text.rfind(')')?;
        let fields: Vec<&str> = text.get(close + 2..)?.split(' ').collect();
        Some(Self {
            comm: text.get(open + 1..close)?.to_owned(),
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        let text = "7 (a) b (c) S 1 7 8 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 0 0";
        let stat = Stat::parse(text).expect("valid");
        let expected = Stat {
            comm: "a) b (c".to_owned(),
            is_dead: false,
            parent: 1,
            session: 8,
            start_ticks: 4711,
        };
        assert_eq!(stat, expected);
    }
}
