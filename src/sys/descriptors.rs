//! How many files this process may open: raised for the server, and put back for the processes
//! that it starts, so that a job sees the limit that the server was started with; and how many of
//! them the server itself needs.
//!
//! How its clients and its shims share the rest is their business.

use std::{
    io,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// How long a program that begins waits for what it needs.
const WAIT: Duration = Duration::from_secs(2);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// Descriptors that a server has open before it talks to any shim: standard streams, the runtime's,
/// listeners, locks and directories, the database's files under all their connections.
const OPEN_ALWAYS: u64 = 28;

/// Descriptors that are opened for a moment: for starting a shim, looking at locks and at `/proc`,
/// reading and unlinking segments.
const OPEN_BRIEFLY: u64 = 8;

static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Remembers the limit that holds now as the one to put back.
pub fn remember() {
    let _ = BEFORE.set(getrlimit(Resource::Nofile));
}

/// Raises the soft limit to the hard one. A soft limit of 1024 is usual, because select(2) cannot
/// count further: good for jobs, too few for a server.
pub fn raise() -> io::Result<()> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    setrlimit(Resource::Nofile, raised)?;
    // Raised twice: the first limit is the one to put back.
    let _ = BEFORE.set(before);
    Ok(())
}

/// Makes something; where that fails, it is tried again for two seconds. For a program that begins:
/// nothing else runs meanwhile.
pub fn retry_briefly<T>(make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    loop {
        match make() {
            Err(_) if began.elapsed() < WAIT => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "between two tries of what nobody announces"
                )]
                thread::sleep(TRY_EVERY);
            }
            made => return made,
        }
    }
}

/// How many there may be now; `None`: any number.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// What is left of a limit of open files behind the server's own needs, to be shared by its clients
/// and its shims.
pub fn left_of(open_files_max: u64) -> u64 {
    open_files_max.saturating_sub(OPEN_ALWAYS + OPEN_BRIEFLY)
}

/// Whether an error says that this process or the machine has too little of something now:
/// descriptors, memory, processes. Trying again later may help.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::ENOBUFS)
    )
}

/// Gives a child of ours the limit that held before [`raise`]. Nothing to do where it was not
/// raised, or where the child has ended (`None`).
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
