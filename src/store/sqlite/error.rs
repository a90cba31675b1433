//! What SQLite's errors mean: for a caller, and for the task that writes.

use std::{
    error::Error,
    io::{self, ErrorKind},
    mem::discriminant,
    path::Path,
    sync::Arc,
};

use crate::{
    store::types::{OpenError, StoreError},
    sys::descriptors::is_shortage,
};

/// Primary result codes of SQLite (the lowest byte of an extended one).
mod code {
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const NOMEM: i32 = 7;
    pub const READONLY: i32 = 8;
    pub const INTERRUPT: i32 = 9;
    pub const IOERR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
    pub const NOTADB: i32 = 26;
    /// Extended: a write failed, for whatever reason but a full disk.
    pub const IOERR_WRITE: i32 = 778;
    /// Extended: the shared memory file could not grow, which is how a full disk looks there.
    pub const IOERR_SHMSIZE: i32 = 4874;
}

/// What a failed transaction means for the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureAction {
    /// Nothing was written; there may be disk space again later.
    DiskFull,
    /// Another process holds the file's lock, or there are no descriptors or no memory. Nothing was
    /// written.
    Busy,
    /// The file cannot be trusted any more: nothing may be acknowledged from here on.
    Broken,
    /// One write of the batch was refused; the others may be fine.
    Refused,
}

/// What `error` means for the writer.
pub(super) fn failure_action(error: &sqlx::Error) -> FailureAction {
    let Some(extended) = sqlite_code(error) else {
        return match error {
            sqlx::Error::Io(e) if is_out_of_room(e) => FailureAction::DiskFull,
            sqlx::Error::Io(e) if is_shortage(e) => FailureAction::Busy,
            sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) => FailureAction::Broken,
            _ => FailureAction::Refused,
        };
    };
    match extended & 0xff {
        code::BUSY | code::LOCKED => FailureAction::Busy,
        code::FULL => FailureAction::DiskFull,
        code::IOERR if extended == code::IOERR_SHMSIZE => FailureAction::DiskFull,
        code::READONLY | code::IOERR | code::CORRUPT | code::NOTADB => FailureAction::Broken,
        // No descriptor was left, for example: nothing was written. Whether the file still has its
        // name is checked separately (`Presence`).
        code::CANTOPEN => FailureAction::Refused,
        _ => FailureAction::Refused,
    }
}

/// Whether a write failed. SQLite reports a used-up quota like a broken disk.
pub(super) fn is_failed_write(error: &sqlx::Error) -> bool {
    sqlite_code(error) == Some(code::IOERR_WRITE)
}

/// Whether the same call may succeed when it is repeated: nothing is wrong with the call, and the
/// file itself is not known to be damaged.
fn is_transient(error: &sqlx::Error) -> bool {
    match sqlite_code(error).map(|extended| extended & 0xff) {
        Some(primary) => matches!(
            primary,
            code::BUSY
                | code::LOCKED
                | code::NOMEM
                | code::INTERRUPT
                | code::IOERR
                | code::CANTOPEN
        ),
        None => matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed
        ),
    }
}

/// Whether SQLite has found that the file is damaged. A read that failed proves nothing.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    let primary = sqlite_code(error).map(|extended| extended & 0xff);
    matches!(primary, Some(code::CORRUPT | code::NOTADB))
}

/// Whether this program has ended the statement.
pub(super) fn is_interrupt(error: &sqlx::Error) -> bool {
    sqlite_code(error).map(|extended| extended & 0xff) == Some(code::INTERRUPT)
}

/// Whether a file could not be opened, read or written, so that the system has an error number for
/// it.
pub(super) fn is_file_error(error: &sqlx::Error) -> bool {
    let primary = sqlite_code(error).map(|extended| extended & 0xff);
    matches!(primary, Some(code::IOERR | code::CANTOPEN))
}

/// Whether there is no space, on the disk or in a quota.
pub(super) fn is_out_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// The extended result code, if the error is SQLite's.
fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match (&error, failure_action(&error)) {
            (sqlx::Error::PoolClosed, _) => Self::Stopping,
            (_, FailureAction::DiskFull) => Self::DiskFull,
            _ if is_transient(&error) => Self::Unavailable(Arc::new(error)),
            _ => Self::Database(Arc::new(error)),
        }
    }
}

/// SQLite's errors cannot be compared: two are equal that are of one kind and have the same
/// message.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other) && self.to_string() == other.to_string()
    }
}

impl Eq for StoreError {}

impl OpenError {
    /// No connection to `path` could be made.
    pub(super) fn no_connection(path: &Path, error: sqlx::Error) -> Self {
        match failure_action(&error) {
            FailureAction::DiskFull => Self::about(
                path,
                "cannot be opened: the disk is full; make room and start again",
            ),
            _ => Self::failed(path, "cannot be opened", error),
        }
    }

    /// What is wrong with the database at `path`.
    pub(super) fn about(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Unusable(format!("the database {} {what}", path.display()))
    }

    /// The same, with another error as its cause.
    pub(in crate::store) fn failed(
        path: &Path,
        what: &str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            what: format!("the database {} {what}", path.display()),
            source: source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::columns::malformed, *};

    #[test]
    fn only_what_casts_doubt_on_the_file_breaks_the_writer() {
        assert_eq!(
            failure_action(&sqlx::Error::WorkerCrashed),
            FailureAction::Broken
        );
        assert_eq!(
            failure_action(&sqlx::Error::RowNotFound),
            FailureAction::Refused
        );
        assert_eq!(failure_action(&malformed("x")), FailureAction::Refused);
        for (kind, expected) in [
            (ErrorKind::QuotaExceeded, FailureAction::DiskFull),
            (ErrorKind::Other, FailureAction::Broken),
        ] {
            let error = sqlx::Error::Io(kind.into());
            assert_eq!(failure_action(&error), expected, "{kind}");
        }
    }

    #[test]
    fn a_shortage_is_no_broken_disk() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let error = sqlx::Error::Io(io::Error::from_raw_os_error(errno));
            assert_eq!(failure_action(&error), FailureAction::Busy, "{error}");
        }
        let error = sqlx::Error::Io(io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(failure_action(&error), FailureAction::Broken);
    }

    #[test]
    fn the_cause_of_an_error_is_kept() {
        let error = StoreError::from(sqlx::Error::PoolTimedOut);
        let cause = error.source().expect("a cause").to_string();
        assert_eq!(
            error.to_string(),
            format!("the database cannot be used now: {cause}")
        );
        let io = io::Error::from_raw_os_error(libc::EACCES);
        let error = OpenError::failed(Path::new("/d/x.db"), "cannot be opened", io);
        let cause = error.source().expect("a cause").to_string();
        assert_eq!(
            error.to_string(),
            format!("the database /d/x.db cannot be opened: {cause}")
        );
    }

    #[test]
    fn a_shortage_is_told_as_one_that_may_pass() {
        for error in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::WorkerCrashed,
            sqlx::Error::Io(io::Error::from_raw_os_error(libc::EMFILE)),
        ] {
            let error = StoreError::from(error);
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        }
        for error in [sqlx::Error::RowNotFound, malformed("x")] {
            let error = StoreError::from(error);
            assert!(matches!(error, StoreError::Database(_)), "{error}");
        }
    }
}
