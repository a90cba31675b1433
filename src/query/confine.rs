//! Resource limits of a query process, which the kernel enforces whatever SQLite does. `fence` limits
//! files and system calls.
#![allow(unsafe_code)] // The signal that a file limit sends is ignored through C alone.

use std::{io, time::Duration};

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    time::ClockId,
};

use super::messages::QueryLimits;

/// Most open files: the process needs the database, its log, and one segment at a time.
const FILES_MAX: u64 = 64;
/// How much lower its CPU priority is than the server's (nice(2)).
const NICER: i32 = 10;
/// The CPU time after which a query gets only what nobody else wants. On busy processors that priority
/// gives it about as much within the default time limit.
const SHARE: Duration = Duration::from_millis(500);
/// How long after its time limit the kernel kills the process if the server has not, seconds.
const LATER_S: u64 = 2;

/// Gives up everything that reading does not need. From here on the process cannot write to a file
/// (stdout is a pipe), nor use more memory, time and descriptors than `bounds` and the constants say.
///
/// # Errors
///
/// The kernel refuses a limit; the statement must not run then.
pub fn confine(bounds: &QueryLimits) -> io::Result<()> {
    let seconds = bounds.timeout_s + LATER_S;
    let limits = [
        (Resource::Cpu, seconds),
        // Private writable memory (setrlimit(2)); the mapped program does not count.
        (Resource::Data, bounds.memory_bytes),
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES_MAX),
        (Resource::Core, 0),
    ];
    for (resource, limit) in limits {
        let both = Some(limit);
        setrlimit(
            resource,
            Rlimit {
                current: both,
                maximum: both,
            },
        )?;
    }
    // A write beyond RLIMIT_FSIZE then fails with EFBIG and does not end the process by a signal.
    // SAFETY: no handler is installed, and there is one thread.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::nice(NICER)?;
    // The limit of wall-clock time, in case the server is gone.
    nix::unistd::alarm::set(u32::try_from(seconds).unwrap_or(u32::MAX));
    Ok(())
}

/// Leaves the processors to others once this process has used up its share (`SCHED_IDLE`, sched(7)): a
/// wake-up of the server then does not wait for the query's time slice.
pub fn yield_after_share() {
    let used = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    if Duration::try_from(used).is_ok_and(|used| used > SHARE) {
        let lowest = libc::sched_param { sched_priority: 0 };
        // SAFETY: the parameter lives during the call. It may fail, and then the priority stays.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const lowest) };
    }
}
