//! Opens files of a data directory. A file is checked before it is opened, so that no pipe or device is
//! ever opened, and again when it is open. `trust` has the rules.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use super::{
    OwnDir,
    error::{DataDirError, Flaw},
    trust::{ProcessUser, check_file, check_given, check_link},
};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For writing at its end.
    Append,
    /// For reading and writing.
    Write,
}

/// Flags of every open: no link is followed, the call does not block, the file does not become a
/// controlling terminal, and no child inherits it.
const GUARDED: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

impl Access {
    fn flags(self) -> OFlags {
        match self {
            Self::Read => OFlags::RDONLY,
            Self::Append => OFlags::WRONLY | OFlags::APPEND,
            Self::Write => OFlags::RDWR,
        }
    }
}

/// Why a file is not opened, without its path.
pub enum FileRefused {
    System(Errno),
    Unsafe(Flaw),
}

impl FileRefused {
    /// The error about the file at this path.
    pub fn at(self, path: &Path) -> DataDirError {
        match self {
            Self::System(errno) => DataDirError::io(path, io::Error::from(errno)),
            Self::Unsafe(flaw) => flaw.at(path),
        }
    }
}

impl From<Errno> for FileRefused {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl From<Flaw> for FileRefused {
    fn from(flaw: Flaw) -> Self {
        Self::Unsafe(flaw)
    }
}

/// Opens a file; `None` where there is none.
pub fn open(dir: &OwnDir, name: &str, access: Access) -> Result<Option<File>, FileRefused> {
    let user = ProcessUser::current();
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => check_file(&found?, user)?,
    }
    match openat(dir, name, access.flags() | GUARDED, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(Flaw::Link.into()),
        opened => {
            let opened = opened?;
            check_file(&fstat(&opened)?, user)?;
            Ok(Some(opened.into()))
        }
    }
}

/// Creates a file (0600) that must not exist.
pub fn create(dir: &OwnDir, name: &str, access: Access) -> Result<File, FileRefused> {
    let flags = access.flags() | OFlags::CREATE | OFlags::EXCL | GUARDED;
    let made = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    check_file(&fstat(&made)?, ProcessUser::current())?;
    Ok(made.into())
}

/// Opens a file that a user has put there, for reading.
pub fn open_given(dir: &OwnDir, name: &str) -> Result<Option<File>, FileRefused> {
    let user = ProcessUser::current();
    let named = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => found?,
    };
    let directory = fstat(dir)?;
    let mut flags = OFlags::RDONLY | GUARDED;
    if FileType::from_raw_mode(named.st_mode) == FileType::Symlink {
        check_link(&named, user)?;
        flags.remove(OFlags::NOFOLLOW);
        // Check before opening: opening a device may already act on it.
        match statat(dir, name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            target => check_given(&target?, &directory, user)?,
        }
    } else {
        check_given(&named, &directory, user)?;
    }
    let opened = openat(dir, name, flags, Mode::empty())?;
    check_given(&fstat(&opened)?, &directory, user)?;
    Ok(Some(opened.into()))
}
