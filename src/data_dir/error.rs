//! Why a data directory, or a file in it, is not used: what is wrong with it, and what to do.
//!
//! What is looked at is decided in `trust` and `file`.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};

/// Why something is not used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refuses.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// What was to be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// We refuse, because others could act as us with it.
    #[error("{}", told(path, flaw))]
    Unsafe {
        /// What was to be used.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The data directory is this user's.
    OwnerOfIt(u32),
    /// The data directory has this mode, with which others may write in it.
    ModeOfIt(u32),
    /// A directory above it is this user's.
    OwnerAbove(u32),
    /// A directory above it has this mode.
    ModeAbove(u32),
    /// A link on the way is this user's.
    OwnerOfLink(u32),
    /// It is no directory.
    NoDirectory,
    /// A file is a link.
    Link,
    /// A file is something else, such as a pipe or a device.
    NoFile,
    /// A file is this user's.
    OwnerOfFile(u32),
    /// A file has this mode, with which others may write to it.
    ModeOfFile(u32),
    /// A file has so many names.
    Names(u64),
}

impl Flaw {
    /// The error about what has this path.
    pub(super) fn at(self, path: &Path) -> DataDirError {
        DataDirError::Unsafe {
            path: path.to_owned(),
            flaw: self,
        }
    }
}

impl DataDirError {
    /// The system's refusal.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// The kind of the system's refusal; of ours, that permission is denied.
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

fn told(path: &Path, flaw: &Flaw) -> String {
    let shown = path.display();
    match flaw {
        Flaw::OwnerOfIt(uid) => format!(
            "the data directory {shown} belongs to {}, not to {}: {}, or name another directory with \
             --data-dir",
            UserName(*uid),
            UserName::us(),
            as_user(*uid)
        ),
        Flaw::ModeOfIt(mode) => format!(
            "others may write into the data directory {shown} (mode {mode:04o}); close it, once you \
             know what is in it: chmod go-w {shown}"
        ),
        Flaw::OwnerAbove(uid) => format!(
            "{shown}, which is on the way, belongs to {}, who could replace what is below it; {}, or name \
             another directory",
            UserName(*uid),
            as_user(*uid)
        ),
        Flaw::ModeAbove(mode) => format!(
            "others may write into {shown} (mode {mode:04o}), which is on the way, and could replace what \
             is below it: chmod go-w {shown}, or name another directory"
        ),
        Flaw::OwnerOfLink(uid) => format!(
            "{shown}, which is on the way, is a link that belongs to {}, who could lead it elsewhere; name \
             the directory that it leads to",
            UserName(*uid)
        ),
        Flaw::NoDirectory => format!("{shown} is no directory, or a link to one; move it away"),
        Flaw::Link => format!("{shown} is a link, and none is followed here; remove it"),
        Flaw::NoFile => format!("{shown} is no regular file; remove it"),
        Flaw::OwnerOfFile(uid) => format!(
            "{shown} belongs to {}, not to {}; remove it, or give it back with chown",
            UserName(*uid),
            UserName::us()
        ),
        Flaw::ModeOfFile(mode) => format!(
            "others may write to {shown} (mode {mode:04o}); look at what it says, then: chmod go-w {shown}"
        ),
        Flaw::Names(names) => format!(
            "{shown} has {names} names (hard links), so it is also a file elsewhere; put a copy in its \
             place, or remove it"
        ),
    }
}

/// A user, for people: by name where the system knows one.
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

/// How a command is run as that user (sudo(8)).
fn as_user(uid: u32) -> String {
    let user = name(uid).unwrap_or_else(|| format!("'#{uid}'"));
    format!("use it as that user: sudo -u {user} cc-executor …")
}
