//! The way to a data directory, one name after the other, each below the descriptor of the one before:
//! nobody can exchange what was looked at. Links are followed here, not by the kernel.
//!
//! Who is trusted is decided in `trust`.

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
    trust::{Who, check_above, check_link, check_own},
};

/// How many links are followed, as many as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// How a directory on the way is held: it need not be readable.
const ON_THE_WAY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What becomes of directories that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Then there is no data directory.
    IsNone,
    /// They are made for us alone.
    IsMade,
}

/// Opens the directory at this path, and tells where it really is.
pub fn resolve(
    path: &Path,
    missing: Missing,
    who: Who,
) -> Result<Option<(File, PathBuf)>, DataDirError> {
    match Resolution::to(path, missing, who)? {
        Some(way) => way.arrive(who).map(Some),
        None => Ok(None),
    }
}

/// Where the directory at this path really is, in which something of ours is to be made; it need not be
/// ours.
pub fn safe(path: &Path, who: Who) -> Result<PathBuf, DataDirError> {
    let way = Resolution::to(path, Missing::IsNone, who)?;
    let way = way.ok_or_else(|| DataDirError::io(path, Errno::NOENT.into()))?;
    way.check(who)?;
    Ok(way.path)
}

/// Where we are, and what is still ahead.
struct Resolution {
    at: OwnedFd,
    path: PathBuf,
    ahead: VecDeque<OsString>,
    links: usize,
}

impl Resolution {
    fn from_root() -> Result<Self, DataDirError> {
        let path = PathBuf::from("/");
        let at = open("/", ON_THE_WAY, Mode::empty());
        Ok(Self {
            at: at.map_err(|errno| DataDirError::io(&path, errno.into()))?,
            path,
            ahead: VecDeque::new(),
            links: 0,
        })
    }

    /// At the end of the way to this path; `None` where something on it is missing.
    fn to(path: &Path, missing: Missing, who: Who) -> Result<Option<Self>, DataDirError> {
        let absolute = std::path::absolute(path).map_err(|error| DataDirError::io(path, error))?;
        let mut way = Self::from_root()?;
        way.ahead = names(&absolute);
        while let Some(name) = way.ahead.pop_front() {
            if !way.step(&name, missing, who)? {
                return Ok(None);
            }
        }
        Ok(Some(way))
    }

    /// Whether what is below can be replaced by us alone.
    fn check(&self, who: Who) -> Result<(), DataDirError> {
        let stat = fstat(&self.at).map_err(|errno| self.refused(errno))?;
        check_above(&stat, who).map_err(|flaw| flaw.at(&self.path))
    }

    /// Goes on to what has this name; whether it is there.
    fn step(&mut self, name: &OsString, missing: Missing, who: Who) -> Result<bool, DataDirError> {
        self.check(who)?;
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
                check_link(&stat, who).map_err(|flaw| flaw.at(&self.path.join(name)))?;
                self.follow(name)?;
            }
            FileType::Directory => {
                self.at = self.open(name)?;
                self.path.push(name);
            }
            _ => return Err(Flaw::NoDirectory.at(&self.path.join(name))),
        }
        Ok(true)
    }

    /// What has this name, made where it is missing and wanted.
    fn look(&self, name: &OsString, missing: Missing) -> Result<Option<Stat>, DataDirError> {
        let path = || self.path.join(name);
        let look = || statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = match (look(), missing) {
            (Err(Errno::NOENT), Missing::IsNone) => return Ok(None),
            (Err(Errno::NOENT), Missing::IsMade) => {
                match mkdirat(&self.at, name, Mode::RWXU) {
                    // Who was faster is looked at next.
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
            self.ahead.push_front(name);
        }
        Ok(())
    }

    fn open(&self, name: &OsString) -> Result<OwnedFd, DataDirError> {
        openat(&self.at, name, ON_THE_WAY, Mode::empty())
            .map_err(|errno| DataDirError::io(&self.path.join(name), errno.into()))
    }

    /// Where the way ends is the directory itself: it has to be ours. Only then it is opened for reading.
    fn arrive(self, who: Who) -> Result<(File, PathBuf), DataDirError> {
        let stat = fstat(&self.at).map_err(|errno| self.refused(errno))?;
        check_own(&stat, who).map_err(|flaw| flaw.at(&self.path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&self.at, ".", flags, Mode::empty());
        let opened = opened.map_err(|errno| self.refused(errno))?;
        Ok((opened.into(), self.path))
    }

    fn refused(&self, errno: Errno) -> DataDirError {
        DataDirError::io(&self.path, errno.into())
    }
}

/// The names of a path, `..` among them: where that leads depends on links, so it is not taken away.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
