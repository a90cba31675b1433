//! The mark of an attempt whose output could not be synced: a file beside its segments. A process
//! that gets an I/O error creates it, because the kernel reports such an error once and forgets it.

use std::{io, os::fd::AsFd, path::Path};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use crate::job::JobNumber;

/// File name of the mark.
pub fn file_name(job: JobNumber, attempt: u32) -> String {
    format!("{job}.{attempt}.unsynced")
}

/// The attempt that a file of this name marks; `None` for other names.
pub fn parse(file_name: &str) -> Option<(JobNumber, u32)> {
    let (job, attempt) = file_name.strip_suffix(".unsynced")?.split_once('.')?;
    Some((job.parse().ok()?, attempt.parse().ok()?))
}

/// Creates the mark in the directory `spool`. It need not be synced: a power loss that loses it
/// loses the output as well, and the boot id shows that.
pub fn mark(spool: impl AsFd, job: JobNumber, attempt: u32) -> io::Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let name = file_name(job, attempt);
    match openat(spool, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the attempt has the mark. Blocking.
pub fn is_marked(spool: &Path, job: JobNumber, attempt: u32) -> io::Result<bool> {
    spool.join(file_name(job, attempt)).try_exists()
}
