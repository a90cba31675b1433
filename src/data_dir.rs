//! A data directory that only our user can change. It is checked once, with all directories above it,
//! and its files are opened relative to its descriptor. The server and every verb open it here.
//!
//! `spool::Layout` names the files in it.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};

mod error;
mod file;
mod resolve;
mod trust;

pub use error::{DataDirError, Flaw};
pub use file::Access;
pub use trust::ProcessUser;

use crate::sys::long_path;

/// How often a file is opened or created again while other processes create and remove it.
const TRIES_MAX: u32 = 16;

/// A directory that belongs to our effective user, and that no other user can write in or replace.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct OwnDir {
    directory: Arc<File>,
    path: PathBuf,
}

impl OwnDir {
    /// The directory at this path; `None` where there is none.
    ///
    /// # Errors
    ///
    /// It is not ours, or others could write in it or replace it; the error says what to do.
    pub fn open(path: &Path) -> Result<Option<Self>, DataDirError> {
        Self::find(path, resolve::Missing::ReturnNone)
    }

    /// The same; creates it, and missing directories above it, with mode 0700.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`]; it cannot be created.
    pub fn make(path: &Path) -> Result<Self, DataDirError> {
        let made = Self::find(path, resolve::Missing::Create)?;
        made.ok_or_else(|| DataDirError::io(path, Errno::NOENT.into()))
    }

    fn find(path: &Path, missing: resolve::Missing) -> Result<Option<Self>, DataDirError> {
        let found = resolve::resolve(path, missing, ProcessUser::current())?;
        Ok(found.map(|(directory, path)| Self {
            directory: Arc::new(directory),
            path,
        }))
    }

    /// Its absolute path, with all links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor, open for reading.
    pub fn file(&self) -> &File {
        &self.directory
    }

    /// A short path to `name` in it, through `/proc/self/fd`, for sockets: their paths have up to 107
    /// bytes (unix(7)). Valid while this lives.
    pub fn short_path(&self, name: &str) -> PathBuf {
        long_path::within(&self.directory, name)
    }

    /// The last name of a path, if the path's parent is this directory.
    pub fn name_of<'a>(&self, path: &'a Path) -> Option<&'a str> {
        let parent = match path.parent()? {
            here if here.as_os_str().is_empty() => Path::new("."),
            parent => parent,
        };
        let theirs = rustix::fs::stat(parent).ok()?;
        let ours = rustix::fs::fstat(self).ok()?;
        let is_here = (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino);
        path.file_name()?.to_str().filter(|_| is_here)
    }

    /// Opens a file that only our programs write; `None` where there is none. Does not block.
    ///
    /// # Errors
    ///
    /// It is a link, not a regular file, another user's, writable by others, or has a second hard link.
    pub fn open_file(&self, name: &str, access: Access) -> Result<Option<File>, DataDirError> {
        file::open(self, name, access).map_err(|why| why.at(&self.path.join(name)))
    }

    /// Creates a new file (0600).
    ///
    /// # Errors
    ///
    /// The name is taken (`AlreadyExists`), or the file cannot be created.
    pub fn create_file(&self, name: &str, access: Access) -> Result<File, DataDirError> {
        file::create(self, name, access).map_err(|why| why.at(&self.path.join(name)))
    }

    /// Opens a file that only our programs write, or creates it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open_file`]; it cannot be created.
    pub fn open_or_create_file(&self, name: &str, access: Access) -> Result<File, DataDirError> {
        for _ in 0..TRIES_MAX {
            if let Some(file) = self.open_file(name, access)? {
                return Ok(file);
            }
            match self.create_file(name, access) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
        Err(DataDirError::io(&self.path.join(name), Errno::AGAIN.into()))
    }

    /// Opens a file that a user may have put here, such as the settings. It may also belong to root, or
    /// be a link that belongs to root or to our user.
    ///
    /// # Errors
    ///
    /// Another user could change its content.
    pub fn read_given(&self, name: &str) -> Result<Option<File>, DataDirError> {
        file::open_given(self, name).map_err(|why| why.at(&self.path.join(name)))
    }

    /// Replaces the file `name` by a new one with this content: writes and syncs the file `draft`, then
    /// renames it. No reader sees half of it, and a file or link that had either name is not written to.
    ///
    /// # Errors
    ///
    /// The file cannot be created or written.
    pub fn replace_file(&self, name: &str, draft: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let at = |error| DataDirError::io(&self.path.join(draft), error);
        self.remove(draft).map_err(at)?;
        let mut file = self.create_file(draft, Access::Write)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(at)?;
        self.rename(draft, name).map_err(at)
    }

    /// Renames a file; one that has the new name is replaced.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(self, from, self, to)?)
    }

    /// Removes a file or link, if it is there. The target of a link stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(self, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a directory in it; creates it with mode 0700 if it is missing.
    ///
    /// # Errors
    ///
    /// It is a link, belongs to another user, or others may write in it.
    pub fn subdirectory(&self, name: &str) -> Result<File, DataDirError> {
        let path = self.path.join(name);
        match mkdirat(self, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(DataDirError::io(&path, errno.into())),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = openat(self, name, flags, Mode::empty());
        let directory = opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => Flaw::NotADirectory.at(&path),
            errno => DataDirError::io(&path, errno.into()),
        })?;
        let stat = rustix::fs::fstat(&directory);
        let stat = stat.map_err(|errno| DataDirError::io(&path, errno.into()))?;
        trust::check_own(&stat, ProcessUser::current()).map_err(|flaw| flaw.at(&path))?;
        Ok(directory.into())
    }
}

/// The path of a directory with all links resolved, after a check that no other user can replace what
/// we create in it (root and the sticky bit are allowed). It need not belong to our user.
///
/// # Errors
///
/// It is missing, or others may write in it or replace it; the error says what to do.
pub fn safe_place(path: &Path) -> Result<PathBuf, DataDirError> {
    resolve::safe(path, ProcessUser::current())
}

impl AsFd for OwnDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

#[cfg(test)]
mod tests;
