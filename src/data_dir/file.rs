//! Files of a data directory: looked at before they are opened, so that no pipe and no device ever is,
//! and again when they are open.
//!
//! What is right for a file is decided in `trust`.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use super::{
    OwnDir,
    error::{DataDirError, Flaw},
    trust::{Who, check_file, check_given, check_link},
};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing at its end.
    Append,
    /// Reading and writing.
    Write,
}

/// Nothing is followed, waited for, or handed on to a process that we start.
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
    Us(Flaw),
}

impl FileRefused {
    /// The error about the file at this path.
    pub fn at(self, path: &Path) -> DataDirError {
        match self {
            Self::System(errno) => DataDirError::io(path, io::Error::from(errno)),
            Self::Us(flaw) => flaw.at(path),
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
        Self::Us(flaw)
    }
}

/// Opens what has this name; `None` where nothing has it.
pub fn open(dir: &OwnDir, name: &str, access: Access) -> Result<Option<File>, FileRefused> {
    let who = Who::we_are();
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => check_file(&found?, who)?,
    }
    match openat(dir, name, access.flags() | GUARDED, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP) => Err(Flaw::Link.into()),
        opened => {
            let opened = opened?;
            check_file(&fstat(&opened)?, who)?;
            Ok(Some(opened.into()))
        }
    }
}

/// Makes a file.
pub fn create(dir: &OwnDir, name: &str, access: Access) -> Result<File, FileRefused> {
    let flags = access.flags() | OFlags::CREATE | OFlags::EXCL | GUARDED;
    let made = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    check_file(&fstat(&made)?, Who::we_are())?;
    Ok(made.into())
}

/// Opens a file that a person has put there, for reading.
pub fn open_given(dir: &OwnDir, name: &str) -> Result<Option<File>, FileRefused> {
    let who = Who::we_are();
    let named = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        found => found?,
    };
    let directory = fstat(dir)?;
    let mut flags = OFlags::RDONLY | GUARDED;
    if FileType::from_raw_mode(named.st_mode) == FileType::Symlink {
        check_link(&named, who)?;
        flags.remove(OFlags::NOFOLLOW);
        // Before it is opened: to open a device may be to use it.
        match statat(dir, name, AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            led => check_given(&led?, &directory, who)?,
        }
    } else {
        check_given(&named, &directory, who)?;
    }
    let opened = openat(dir, name, flags, Mode::empty())?;
    check_given(&fstat(&opened)?, &directory, who)?;
    Ok(Some(opened.into()))
}
