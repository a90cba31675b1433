//! What `/proc` says of one process. An error that is not "it is gone" is told as such.
//!
//! Whose a process is, is not known here.

use std::{fs, io, os::fd::OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::looked::{Looked, is_gone};

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

/// The children of a process, by all its threads, as far as they can be listed.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let mut children = Vec::new();
    for thread in threads.into_iter().flatten().flatten() {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let numbers = list.split_ascii_whitespace().map(str::parse);
        children.extend(numbers.filter_map(Result::<i32, _>::ok));
    }
    children
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

/// The first thread has given the memory up in which the environment is; the others still have it.
fn environment_of_threads(pid: i32) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read(thread?.path().join("environ")) {
            Ok(environment) => found = environment,
            // This one has ended meanwhile.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// The soft limit of time under real-time scheduling, µs; `None` where it is not bound. The kernel
/// shows it of every process to everybody.
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
    /// The letter of its first thread.
    state: char,
    /// How many threads it has.
    threads: u32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
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

    /// A zombie, or less; not where only its first thread has ended and others go on.
    pub fn is_dead(&self) -> bool {
        self.is_ended() && self.threads <= 1
    }

    /// Whether its first thread has ended and others go on (pthread_exit(3) in `main`).
    pub fn has_lost_its_first_thread(&self) -> bool {
        self.is_ended() && self.threads > 1
    }

    /// Whether a signal has stopped it.
    pub fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    fn is_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// The name stands in parentheses and may contain any byte, also parentheses.
    fn parse(text: &str) -> Option<Self> {
        let open = text.find('(')?;
        let close = text.rfind(')')?;
        let fields: Vec<&str> = text.get(close + 2..)?.split(' ').collect();
        Some(Self {
            comm: text.get(open + 1..close)?.to_owned(),
            state: fields.first()?.chars().next()?,
            threads: fields.get(17)?.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(state: &str, threads: u32) -> Stat {
        let rest = "1 7 8 0 -1 4194560 1 2 3 4 5 6 7 8 20 0";
        let text = format!("7 (a) b (c) {state} {rest} {threads} 0 4711 0 0");
        Stat::parse(&text).expect("valid")
    }

    #[test]
    fn a_name_with_parentheses_confuses_nobody() {
        let expected = Stat {
            comm: "a) b (c".to_owned(),
            state: 'S',
            threads: 1,
            parent: 1,
            group: 7,
            session: 8,
            start_ticks: 4711,
        };
        assert_eq!(parsed("S", 1), expected);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_alive() {
        for (state, threads, is_dead) in [
            ("S", 1, false),
            ("Z", 1, true),
            ("X", 1, true),
            ("Z", 0, true),
            ("Z", 2, false),
            ("S", 2, false),
        ] {
            assert_eq!(
                parsed(state, threads).is_dead(),
                is_dead,
                "{state} {threads}"
            );
        }
        assert!(parsed("Z", 2).has_lost_its_first_thread());
        assert!(!parsed("S", 2).has_lost_its_first_thread());
        assert!(parsed("T", 1).is_stopped() && !parsed("S", 1).is_stopped());
    }

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
