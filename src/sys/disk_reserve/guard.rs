//! The lock of the reserve's file: a process that changes what the file holds takes it for that
//! moment. No process waits long for it, because its holder may be a stopped process.

use std::{os::fd::OwnedFd, thread, time::Duration};

use rustix::{
    fs::{FlockOperation, flock, fstat},
    io::Errno,
};

/// How often [`ReserveLock::patient`] tries.
const TRIES: u32 = 200;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(1);

/// The lock; released when dropped.
#[derive(Debug)]
pub(super) struct ReserveLock {
    file: OwnedFd,
}

impl ReserveLock {
    /// The lock of an open file; `None`: another process holds it, or the file has lost its name
    /// and is not the reserve any more.
    pub(super) fn now(file: OwnedFd) -> rustix::io::Result<Option<Self>> {
        match try_lock(&file)? {
            true => Self::named(file),
            false => Ok(None),
        }
    }

    /// The same, tried for a fifth of a second: a holder needs it for one call or two.
    pub(super) fn patient(file: OwnedFd) -> rustix::io::Result<Option<Self>> {
        for _ in 0..TRIES {
            if try_lock(&file)? {
                return Self::named(file);
            }
            #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
            thread::sleep(PAUSE);
        }
        Ok(None)
    }

    fn named(file: OwnedFd) -> rustix::io::Result<Option<Self>> {
        let guard = Self { file };
        let has_name = fstat(&guard.file)?.st_nlink > 0;
        Ok(has_name.then_some(guard))
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }
}

impl Drop for ReserveLock {
    fn drop(&mut self) {
        // A child between fork and exec has a copy of the descriptor, so closing ours would not
        // release the lock.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn try_lock(file: &OwnedFd) -> rustix::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(error) => Err(error),
    }
}
