//! Why a data directory, or a file in it, is refused: what is wrong with it, and what to do. `trust`
//! and `file` do the checks.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};

/// Why a file or directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A system call failed.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// Another user could use it to act as our user.
    #[error("{}", describe(path, flaw))]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// What is wrong with a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The data directory belongs to the user with this id.
    OwnerOfDirectory(u32),
    /// The data directory has this mode, with which others may write in it.
    ModeOfDirectory(u32),
    /// A directory above it belongs to the user with this id.
    OwnerAbove(u32),
    /// A directory above it has this mode, with which others may write in it.
    ModeAbove(u32),
    /// A link on the path belongs to the user with this id.
    OwnerOfLink(u32),
    /// It is not a directory.
    NotADirectory,
    /// A link, where a file was expected.
    Link,
    /// Something else than a regular file, such as a pipe or a device.
    NotAFile,
    /// A file belongs to the user with this id.
    OwnerOfFile(u32),
    /// A file has this mode, with which others may write to it.
    ModeOfFile(u32),
    /// A file has this number of hard links, more than one.
    HardLinks(u64),
}

impl Flaw {
    /// The error about the file or directory with this path.
    pub(super) fn at(self, path: &Path) -> DataDirError {
        DataDirError::Unsafe {
            path: path.to_owned(),
            flaw: self,
        }
    }
}

impl DataDirError {
    /// The error of a system call.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// The kind of the system call's error; `PermissionDenied` for a flaw.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } => source.kind(),
            Self::Unsafe { .. } => io::ErrorKind::PermissionDenied,
        }
    }
}

impl From<DataDirError> for io::Error {
    fn from(error: DataDirError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn describe(path: &Path, flaw: &Flaw) -> String {
    let shown = path.display();
    match flaw {
        Flaw::OwnerOfDirectory(uid) => format!(
            "the data directory {shown} belongs to {}, not to {}: {}, or name another directory with \
             --data-dir",
            UserName(*uid),
            UserName::us(),
            as_user(*uid)
        ),
        Flaw::ModeOfDirectory(mode) => format!(
            "others may write into the data directory {shown} (mode {mode:04o}); check what is in it, \
             then: chmod go-w {shown}"
        ),
        Flaw::OwnerAbove(uid) => format!(
            "{shown}, which is on the way, belongs to {}; that user could replace what is below it; {}, or \
             name another directory",
            UserName(*uid),
            as_user(*uid)
        ),
        Flaw::ModeAbove(mode) => format!(
            "others may write into {shown} (mode {mode:04o}), which is on the way, and could replace what \
             is below it; use chmod go-w {shown}, or name another directory"
        ),
        Flaw::OwnerOfLink(uid) => format!(
            "{shown}, which is on the way, is a link that belongs to {}; that user could change its \
             target: name the directory that it leads to",
            UserName(*uid)
        ),
        Flaw::NotADirectory => format!("{shown} must be a directory and not a link; move it away"),
        Flaw::Link => format!("{shown} must not be a link; remove it"),
        Flaw::NotAFile => format!("{shown} is not a regular file; remove it"),
        Flaw::OwnerOfFile(uid) => format!(
            "{shown} belongs to {}, not to {}; remove it, or give it back with chown",
            UserName(*uid),
            UserName::us()
        ),
        Flaw::ModeOfFile(mode) => format!(
            "others may write to {shown} (mode {mode:04o}); check its content, then: chmod go-w {shown}"
        ),
        Flaw::HardLinks(names) => format!(
            "{shown} has {names} hard links, so it is also a file elsewhere; replace it by a copy, or \
             remove it"
        ),
    }
}

/// A user as shown in messages: with its name if the system knows one.
struct UserName(u32);

impl UserName {
    fn us() -> Self {
        Self(nix::unistd::geteuid().as_raw())
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match name(self.0) {
            Some(name) => write!(f, "user {name} ({})", self.0),
            None => write!(f, "user {}", self.0),
        }
    }
}

fn name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

/// The advice to run a command as that user (sudo(8)).
fn as_user(uid: u32) -> String {
    let user = name(uid).unwrap_or_else(|| format!("'#{uid}'"));
    format!("use it as that user: sudo -u {user} cc-executor …")
}
