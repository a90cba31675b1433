//! The result of a look at something outside of this process. "Could not look" is a result of its
//! own: nothing may be ended, unlinked or run again because of it.
//!
//! For processes, this file says which errors mean "gone"; for other things their callers do.

use std::io;

use crate::sys::proc;

/// The result of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked<T = ()> {
    /// It is there.
    There(T),
    /// It is proven not to be there.
    Gone,
    /// It is unknown; a sentence why.
    Unknown(String),
}

impl<T> Looked<T> {
    /// The result of a look that failed for another reason than that the thing is not there.
    pub fn failed(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::Unknown(format!("{what}: {error}"))
    }

    /// The result of a look at a process or at one of its files in `/proc`: only ENOENT and ESRCH
    /// mean that it is gone.
    pub fn at_process(what: impl std::fmt::Display, looked: io::Result<T>) -> Self {
        match looked {
            Ok(found) => Self::There(found),
            Err(error) if proc::is_gone(&error) => Self::Gone,
            Err(error) => Self::failed(what, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_errors_say_that_a_process_is_gone() {
        let look = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            Looked::<()>::at_process("stat", Err(error))
        };
        for errno in [libc::ENOENT, libc::ESRCH] {
            assert_eq!(look(errno), Looked::Gone);
        }
        for errno in [
            libc::EMFILE,
            libc::ENFILE,
            libc::EIO,
            libc::ENOMEM,
            libc::EACCES,
            libc::EPERM,
            libc::EAGAIN,
        ] {
            assert!(matches!(look(errno), Looked::Unknown(_)), "{errno}");
        }
    }
}
