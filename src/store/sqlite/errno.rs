//! The system's error number after SQLite failed: SQLite's own codes do not distinguish a used-up
//! quota, a process without descriptors and a broken disk.
//!
//! `writer` decides what follows from it.
#![allow(unsafe_code)] // Only SQLite's C interface has it.

use std::io;

use libsqlite3_sys::sqlite3_system_errno;
use sqlx::SqliteConnection;

/// The system's error of the newest failure to open, read or write a file; `None` where there was
/// none.
pub(super) async fn of_last_failure(conn: &mut SqliteConnection) -> Option<io::Error> {
    let mut handle = conn.lock_handle().await.ok()?;
    let connection = handle.as_raw_handle().as_ptr();
    // SAFETY: the connection is open and no other code uses it while its handle is locked.
    let errno = unsafe { sqlite3_system_errno(connection) };
    (errno != 0).then(|| io::Error::from_raw_os_error(errno))
}
