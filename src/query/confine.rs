//! What the kernel does not let a query process do, whatever SQLite is made to do.
//!
//! What it may ask SQLite for is `connection`'s business.
#![allow(unsafe_code)] // The signal that a file limit sends is ignored through C alone.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::ask::QueryLimits;

/// It opens the database with its log, and one segment at a time.
const FILES_MAX: u64 = 64;
/// By how much it is nicer than the server: others come first.
const NICER: i32 = 10;
/// Seconds beyond its time after which the kernel ends it, if no server has.
const LATER_S: u64 = 2;

/// Gives up everything that reading does not need. From here on it can create no file, write to none
/// (stdout is a pipe), and take no more memory, time and descriptors than `bounds` say.
///
/// # Errors
///
/// The kernel refuses; nothing may run then.
pub fn confine(bounds: &QueryLimits) -> io::Result<()> {
    let seconds = bounds.timeout_s + LATER_S;
    let limits = [
        (Resource::Cpu, seconds),
        // Private memory that can be written; what the program itself maps is not counted twice.
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
    // Whoever writes a file anyway gets an error and not a signal.
    // SAFETY: no handler is installed, and there is one thread.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::nice(NICER)?;
    // By the clock, should the server be gone.
    nix::unistd::alarm::set(u32::try_from(seconds).unwrap_or(u32::MAX));
    Ok(())
}
