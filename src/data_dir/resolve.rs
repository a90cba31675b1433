//! Resolves the path of a data directory name by name, each relative to the descriptor of the one
//! before, so that no other user can exchange a directory after its check. Links are followed here,
//! not by the kernel. `trust` has the rules.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, mkdirat, open, openat, readlinkat, statat},
    io::Errno,
};

use super::{
    error::{DataDirError, Flaw},
    trust::{ProcessUser, check_above, check_link, check_own},
};

/// Most links that are followed, as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How a directory above is opened: it need not be readable.
const ABOVE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What to do when a directory is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Return `None`: there is no data directory.
    ReturnNone,
    /// Create it with mode 0700.
    Create,
}

/// Opens the directory at this path; also returns its absolute path with all links resolved.
pub fn resolve(
    path: &Path,
    missing: Missing,
    user: ProcessUser,
) -> Result<Option<(File, PathBuf)>, DataDirError> {
    match Resolution::to(path, missing, user)? {
        Some(resolution) => resolution.open_directory(user).map(Some),
        None => Ok(None),
    }
}

/// The path, with all links resolved, of a directory in which no other user can replace what we
/// create. It need not belong to our user.
pub fn safe(path: &Path, user: ProcessUser) -> Result<PathBuf, DataDirError> {
    let resolution = Resolution::to(path, Missing::ReturnNone, user)?;
    let resolution = resolution.ok_or_else(|| DataDirError::io(path, Errno::NOENT.into()))?;
    resolution.check(user)?;
    Ok(resolution.path)
}

/// A resolution in progress.
struct Resolution {
    /// The directory that was reached, and its path.
    at: OwnedFd,
    path: PathBuf,
    /// The names that are still to be resolved.
    remaining: VecDeque<OsString>,
    /// How many links were followed.
    links: usize,
}

impl Resolution {
    fn from_root() -> Result<Self, DataDirError> {
        let path = PathBuf::from("/");
        let at = open("/", ABOVE, Mode::empty());
        Ok(Self {
            at: at.map_err(|errno| DataDirError::io(&path, errno.into()))?,
            path,
            remaining: VecDeque::new(),
            links: 0,
        })
    }

    /// Resolves the whole path; `None` where a name of it is missing.
    fn to(path: &Path, missing: Missing, user: ProcessUser) -> Result<Option<Self>, DataDirError> {
        let absolute = std::path::absolute(path).map_err(|error| DataDirError::io(path, error))?;
        let mut resolution = Self::from_root()?;
        resolution.remaining = names(&absolute);
        while let Some(name) = resolution.remaining.pop_front() {
            if !resolution.step(&name, missing, user)? {
                return Ok(None);
            }
        }
        Ok(Some(resolution))
    }

    /// Checks that no other user can replace what is below the current directory.
    fn check(&self, user: ProcessUser) -> Result<(), DataDirError> {
        let stat = fstat(&self.at).map_err(|errno| self.refused(errno))?;
        check_above(&stat, user).map_err(|flaw| flaw.at(&self.path))
    }

    /// Resolves one more name; `false` if it is missing.
    fn step(
        &mut self,
        name: &OsString,
        missing: Missing,
        user: ProcessUser,
    ) -> Result<bool, DataDirError> {
        self.check(user)?;
        if name == ".." {
            self.at = self.open(name)?;
            self.path.pop();
            return Ok(true);
        }
        let Some(stat) = self.look(name, missing)? else {
            return Ok(false);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                check_link(&stat, user).map_err(|flaw| flaw.at(&self.path.join(name)))?;
                self.follow(name)?;
            }
            FileType::Directory => {
                self.at = self.open(name)?;
                self.path.push(name);
            }
            _ => return Err(Flaw::NotADirectory.at(&self.path.join(name))),
        }
        Ok(true)
    }

    /// The status of what has this name, after creating a missing directory if `missing` says so.
    fn look(&self, name: &OsString, missing: Missing) -> Result<Option<Stat>, DataDirError> {
        let path = || self.path.join(name);
        let look = || statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = match (look(), missing) {
            (Err(Errno::NOENT), Missing::ReturnNone) => return Ok(None),
            (Err(Errno::NOENT), Missing::Create) => {
                match mkdirat(&self.at, name, Mode::RWXU) {
                    // If another process has created it meanwhile, the next stat checks that.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(DataDirError::io(&path(), errno.into())),
                }
                look()
            }
            (found, _) => found,
        };
        found
            .map(Some)
            .map_err(|errno| DataDirError::io(&path(), errno.into()))
    }

    fn follow(&mut self, name: &OsString) -> Result<(), DataDirError> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(DataDirError::io(&self.path.join(name), Errno::LOOP.into()));
        }
        let target = readlinkat(&self.at, name, Vec::new());
        let target =
            target.map_err(|errno| DataDirError::io(&self.path.join(name), errno.into()))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            let root = Self::from_root()?;
            (self.at, self.path) = (root.at, root.path);
        }
        for name in names(&target).into_iter().rev() {
            self.remaining.push_front(name);
        }
        Ok(())
    }

    fn open(&self, name: &OsString) -> Result<OwnedFd, DataDirError> {
        openat(&self.at, name, ABOVE, Mode::empty())
            .map_err(|errno| DataDirError::io(&self.path.join(name), errno.into()))
    }

    /// Checks that the directory that was reached belongs to our user, and opens it for reading.
    fn open_directory(self, user: ProcessUser) -> Result<(File, PathBuf), DataDirError> {
        let stat = fstat(&self.at).map_err(|errno| self.refused(errno))?;
        check_own(&stat, user).map_err(|flaw| flaw.at(&self.path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&self.at, ".", flags, Mode::empty());
        let opened = opened.map_err(|errno| self.refused(errno))?;
        Ok((opened.into(), self.path))
    }

    fn refused(&self, errno: Errno) -> DataDirError {
        DataDirError::io(&self.path, errno.into())
    }
}

/// The names of a path. `..` is kept: where it leads depends on the links before it.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
