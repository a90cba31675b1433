//! The limit of open files: raised for the server, and restored for the processes that it starts,
//! so that a job has the limit that the server was started with. Also how many descriptors the
//! server itself needs; its clients and its shims share the rest.

use std::{
    io,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// How long a starting program waits for what it needs.
const WAIT: Duration = Duration::from_secs(2);
/// The pause between two tries.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// Descriptors that a server has open without any shim: standard streams, the runtime's, listeners,
/// locks and directories, the database's files in all their connections.
const OPEN_ALWAYS: u64 = 28;

/// Descriptors that are only opened briefly: to start a shim, to examine locks and `/proc`, to read
/// and unlink segments.
const OPEN_BRIEFLY: u64 = 8;

static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Remembers the current limit as the one to restore.
pub fn remember() {
    let _ = BEFORE.set(getrlimit(Resource::Nofile));
}

/// Raises the soft limit to the hard one. A soft limit of 1024 is usual, because select(2) cannot
/// handle more: good for jobs, too few for a server.
pub fn raise() -> io::Result<()> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    setrlimit(Resource::Nofile, raised)?;
    // Where it is raised twice, the first limit is the one to restore.
    let _ = BEFORE.set(before);
    Ok(())
}

/// Calls `make`, and calls it again for up to two seconds while it fails. It blocks the thread, so
/// it is only for the start of a program.
pub fn retry_briefly<T>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match make() {
            Err(_) if began.elapsed() < WAIT => {
                #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
                thread::sleep(TRY_EVERY);
            }
            made => return made,
        }
    }
}

/// The current limit; `None`: unlimited.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The part of a limit of open files that remains for clients and shims, after the server's own
/// needs.
pub fn left_of(open_files_max: u64) -> u64 {
    open_files_max.saturating_sub(OPEN_ALWAYS + OPEN_BRIEFLY)
}

/// Whether an error says that this process or the machine lacks something now: descriptors, memory,
/// processes. Trying again later may help.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::ENOBUFS)
    )
}

/// Closes every descriptor above stderr. Only for a process that has opened none itself.
pub fn close_all_but_standard() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // One of them was the descriptor of the listing, which is closed by now (EBADF).
        let _ = nix::unistd::close(fd);
    }
}

/// Gives a child process the limit that held before [`raise`]. Does nothing if it was not raised,
/// or if the child has ended (`None`).
pub fn restore_limit(child: Option<u32>) -> io::Result<()> {
    let (Some(before), Some(pid)) = (
        BEFORE.get(),
        child.and_then(|child| Pid::from_raw(i32::try_from(child).ok()?)),
    ) else {
        return Ok(());
    };
    prlimit(Some(pid), Resource::Nofile, *before)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_gets_the_limit_of_before() {
        let before = getrlimit(Resource::Nofile);
        raise().expect("raised");
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cat");
        restore_limit(Some(child.id())).expect("put back");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()));
        drop(child.stdin.take());
        child.wait().expect("cat ends");
        let limits = limits.expect("limits of a living child");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .expect("a line");
        let soft = before
            .current
            .map_or("unlimited".to_owned(), |soft| soft.to_string());
        assert_eq!(
            line.split_whitespace().nth(3),
            Some(soft.as_str()),
            "{line}"
        );
    }
}
