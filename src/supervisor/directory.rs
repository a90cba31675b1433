//! The directory of the shims' locks and sockets, opened once: one descriptor for all of them.
//!
//! `probe` decides by these files whether a shim lives.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use nix::{fcntl::OFlag, sys::stat::Mode};

use crate::sys::long_path;
use crate::{spool::safe_file, sys::lock};

/// `DATA/shims`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory(Arc<DirectoryInner>);

#[derive(Debug)]
struct DirectoryInner {
    path: PathBuf,
    open: Mutex<Option<Arc<File>>>,
}

/// A name in the directory that is short enough for a socket (unix(7)), for as long as this lives.
#[derive(Debug)]
pub struct Name {
    _directory: Arc<File>,
    path: PathBuf,
}

impl Name {
    /// The path by which the name is reached.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Directory {
    /// The directory at this path; it is opened when it is needed.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(DirectoryInner {
            path,
            open: Mutex::default(),
        }))
    }

    /// A short path to a file in the directory, however long the directory's own path is.
    pub fn name(&self, file: &str) -> io::Result<Name> {
        let directory = self.open()?;
        let path = long_path::within(&*directory, file);
        Ok(Name {
            _directory: directory,
            path,
        })
    }

    /// Opens a file in the directory for reading. Does not block on a pipe and follows no link.
    pub fn open_file(&self, file: &str) -> io::Result<File> {
        let directory = self.open()?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
        let opened = nix::fcntl::openat(&*directory, file, flags, Mode::empty())?;
        Ok(opened.into())
    }

    /// The directory that has this path now. If the open one was moved away, the path is opened
    /// anew.
    fn open(&self) -> io::Result<Arc<File>> {
        let now = fs::metadata(&self.0.path)?;
        // Every use is one assignment: a panic leaves nothing half-done.
        let mut held = lock(&self.0.open);
        if let Some(open) = &*held {
            let meta = open.metadata()?;
            if (meta.dev(), meta.ino()) == (now.dev(), now.ino()) {
                return Ok(Arc::clone(open));
            }
        }
        let opened = Arc::new(safe_file::open_directory(&self.0.path)?);
        *held = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_moved_away_is_opened_anew() {
        let home = tempfile::tempdir().expect("tempdir");
        let (path, away) = (home.path().join("shims"), home.path().join("away"));
        fs::create_dir(&path).expect("a directory");
        fs::write(path.join("a.lock"), "").expect("a file");
        let directory = Directory::new(path.clone());
        directory.open_file("a.lock").expect("is there");
        fs::rename(&path, &away).expect("renamed");
        let missing = directory.open_file("a.lock").expect_err("is not there");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        fs::create_dir(&path).expect("a directory");
        fs::write(path.join("b.lock"), "").expect("a file");
        directory.open_file("b.lock").expect("is there");
    }
}
