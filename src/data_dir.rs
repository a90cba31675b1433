//! A data directory that is ours alone: looked at once, on the way to it and in itself, and its files
//! are opened below its descriptor. The server and every verb come in here.
//!
//! What lies in it is not known here.

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
pub use trust::Who;

use crate::sys::long_path;
/// How often a file is looked for again that others make and remove just now.
const TRIES_MAX: u32 = 16;

/// A directory that belongs to our effective user, in which nobody else can write, and which nobody
/// else can replace by another one. Cheap to clone.
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
        Self::find(path, resolve::Missing::IsNone)
    }

    /// The same; where it is missing, it is made for us alone (0700), and what is missing above it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`]; it cannot be made.
    pub fn make(path: &Path) -> Result<Self, DataDirError> {
        let made = Self::find(path, resolve::Missing::IsMade)?;
        made.ok_or_else(|| DataDirError::io(path, Errno::NOENT.into()))
    }

    fn find(path: &Path, missing: resolve::Missing) -> Result<Option<Self>, DataDirError> {
        let found = resolve::resolve(path, missing, Who::we_are())?;
        Ok(found.map(|(directory, path)| Self {
            directory: Arc::new(directory),
            path,
        }))
    }

    /// Where it is: absolute, every link followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor, open for reading.
    pub fn file(&self) -> &File {
        &self.directory
    }

    /// A path to what has this name in it, of any length of its own path (a socket's must not be longer
    /// than 107 bytes, unix(7)), for as long as this lives.
    pub fn short_path(&self, name: &str) -> PathBuf {
        long_path::within(&self.directory, name)
    }

    /// The name in this directory that a path ends in, if it leads here.
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

    /// Opens a file of ours; `None` where there is none. Waits for nothing.
    ///
    /// # Errors
    ///
    /// What has the name is a link, no regular file, another user's, writable by others, or has a second
    /// name somewhere.
    pub fn open_file(&self, name: &str, access: Access) -> Result<Option<File>, DataDirError> {
        file::open(self, name, access).map_err(|why| why.at(&self.path.join(name)))
    }

    /// Makes a file (0600) that was not there.
    ///
    /// # Errors
    ///
    /// Something has the name.
    pub fn create_file(&self, name: &str, access: Access) -> Result<File, DataDirError> {
        file::create(self, name, access).map_err(|why| why.at(&self.path.join(name)))
    }

    /// Opens a file of ours, or makes it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open_file`].
    pub fn file_in_it(&self, name: &str, access: Access) -> Result<File, DataDirError> {
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

    /// A file that a person may have put here, such as the settings: it may also be root's, and a link of
    /// root or ours.
    ///
    /// # Errors
    ///
    /// Another user could change what it says.
    pub fn read_given(&self, name: &str) -> Result<Option<File>, DataDirError> {
        file::open_given(self, name).map_err(|why| why.at(&self.path.join(name)))
    }

    /// Gives `name` this content as a whole, on disk, by way of a new file `draft`: nobody reads half of
    /// it, and what had either name is not written to.
    ///
    /// # Errors
    ///
    /// The file cannot be made or written.
    pub fn replace_file(&self, name: &str, draft: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let at = |error| DataDirError::io(&self.path.join(draft), error);
        self.remove(draft).map_err(at)?;
        let mut file = self.create_file(draft, Access::Write)?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(at)?;
        self.rename(draft, name).map_err(at)
    }

    /// Gives what has one name the other, which what had it loses.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(self, from, self, to)?)
    }

    /// Removes a name, if it is there. What it leads to stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(self, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// A directory in it, made for us alone where it is missing.
    ///
    /// # Errors
    ///
    /// It is a link, or not ours alone.
    pub fn subdirectory(&self, name: &str) -> Result<File, DataDirError> {
        let path = self.path.join(name);
        match mkdirat(self, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(DataDirError::io(&path, errno.into())),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = openat(self, name, flags, Mode::empty());
        let directory = opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => Flaw::NoDirectory.at(&path),
            errno => DataDirError::io(&path, errno.into()),
        })?;
        let stat = rustix::fs::fstat(&directory);
        let stat = stat.map_err(|errno| DataDirError::io(&path, errno.into()))?;
        trust::check_own(&stat, Who::we_are()).map_err(|flaw| flaw.at(&path))?;
        Ok(directory.into())
    }
}

/// Where the directory at this path really is, every link followed: one in which something of ours can be
/// made that nobody else replaces while it is written. It need not be ours.
///
/// # Errors
///
/// It is missing, or others may write in it or replace it; the error says what to do.
pub fn safe_place(path: &Path) -> Result<PathBuf, DataDirError> {
    resolve::safe(path, Who::we_are())
}

impl AsFd for OwnDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

#[cfg(test)]
mod tests;
