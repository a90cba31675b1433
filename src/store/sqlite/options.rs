//! What all connections to the database have in common.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::sqlite::SqliteConnectOptions;

/// How long a statement waits for another process's lock (such as `sqlite3`).
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of every connection.
pub(super) fn options(name: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(name)
        .foreign_keys(true)
        // Sorting and rollback then need no file, and so no descriptor.
        .pragma("temp_store", "MEMORY")
        .busy_timeout(BUSY_TIMEOUT)
}

/// `path` with `suffix` at its end.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
