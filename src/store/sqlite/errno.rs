//! Which error the system gave SQLite when it failed: its own codes call a quota that is used up, a
//! process without descriptors and a broken disk the same.
//!
//! What follows from it is not decided here.
#![allow(unsafe_code)] // SQLite tells it through its C interface alone.

use std::io;

use libsqlite3_sys::sqlite3_system_errno;
use sqlx::SqliteConnection;

/// The system's error of the newest failure to open, read or write a file; `None` where there was
/// none.
pub(super) async fn of_last_failure(conn: &mut SqliteConnection) -> Option<io::Error> {
    let mut handle = conn.lock_handle().await.ok()?;
    let connection = handle.as_raw_handle().as_ptr();
    // SAFETY: the connection is open and nobody else uses it as long as its handle is locked.
    let errno = unsafe { sqlite3_system_errno(connection) };
    (errno != 0).then(|| io::Error::from_raw_os_error(errno))
}
