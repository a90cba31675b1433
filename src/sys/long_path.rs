//! Paths of any length, for interfaces that only take short ones: a socket's name has up to 107
//! bytes (unix(7)), a database's 512.

use std::{
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

/// The path to `name` in an open directory, through this process's descriptor of it (proc(5)). It
/// is short however long the directory's own path is, and valid as long as the descriptor is open.
pub fn within(directory: &impl AsFd, name: impl AsRef<Path>) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(directory.as_fd().as_raw_fd().to_string())
        .join(name)
}
