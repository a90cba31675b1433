//! The directory of a backup: made under another name beside its path, and renamed when everything
//! in it is on disk. A directory with the final name is complete.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{config, data_dir, spool::Layout};

/// The suffix of its name while it is made.
const PARTIAL: &str = ".partial";

/// Longest configuration file that is copied, bytes: a server would not read a longer one.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Why no backup can be made there.
#[derive(Debug, thiserror::Error)]
pub(super) enum DraftRefused {
    /// The path is unsuitable.
    #[error("{0}")]
    Invalid(String),
    /// Something is there already.
    #[error("{0}")]
    Conflict(String),
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A backup that is being made.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    to: PathBuf,
    layout: Layout,
}

impl Draft {
    /// Creates the empty directories, accessible to our user only.
    pub fn begin(to: &Path, data_dir: &Path) -> Result<Self, DraftRefused> {
        let to = resolve_target(to)?;
        if to.starts_with(data_dir) {
            let message = format!(
                "{} lies in the data directory; name a place outside of it",
                to.display()
            );
            return Err(DraftRefused::Invalid(message));
        }
        if fs::symlink_metadata(&to).is_ok() {
            return Err(is_there(&to));
        }
        let mut partial = OsString::from(&to);
        partial.push(PARTIAL);
        let layout = Layout::new(partial);
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        if let Err(error) = builder.create(layout.root()) {
            return Err(cannot_make(layout.root(), error));
        }
        let draft = Self { to, layout };
        for dir in [draft.layout.spool(), draft.layout.shims()] {
            if let Err(error) = builder.create(dir) {
                draft.discard()?;
                return Err(error.into());
            }
        }
        Ok(draft)
    }

    /// The paths in it.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Copies the configuration and what says which policy is in force from `data_dir`, if they are there, and
    /// syncs everything except the spool, which is synced already. Returns the length of these files, bytes.
    pub fn complete(&self, data_dir: &Path) -> io::Result<u64> {
        let copy = |name| copy_config(&data_dir.join(name), &self.layout.root().join(name));
        let bytes = copy(config::FILE_NAME)? + copy(Layout::IN_FORCE)?;
        let ledger = File::open(self.layout.database())?;
        ledger.sync_all()?;
        for dir in [self.layout.shims(), self.layout.root().to_owned()] {
            File::open(dir)?.sync_all()?;
        }
        Ok(bytes + ledger.metadata()?.len())
    }

    /// Gives it its final name and returns its path. Replaces nothing.
    pub fn publish(self) -> Result<PathBuf, DraftRefused> {
        let renamed = match renameat_with(
            CWD,
            self.layout.root(),
            CWD,
            &self.to,
            RenameFlags::NOREPLACE,
        ) {
            // Not every file system supports that. A check before the rename has to do there.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS)
                if fs::symlink_metadata(&self.to).is_err() =>
            {
                fs::rename(self.layout.root(), &self.to)
            }
            renamed => renamed.map_err(io::Error::from),
        };
        let synced = renamed.and_then(|()| {
            let parent = self.to.parent().unwrap_or(Path::new("/"));
            File::open(parent)?.sync_all()
        });
        match synced {
            Ok(()) => Ok(self.to),
            Err(error) => {
                let to = self.to.clone();
                self.discard()?;
                match error.kind() {
                    io::ErrorKind::AlreadyExists => Err(is_there(&to)),
                    _ => Err(error.into()),
                }
            }
        }
    }

    /// Removes everything that was made.
    pub fn discard(self) -> io::Result<()> {
        match fs::remove_dir_all(self.layout.root()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The path with its parent's links resolved. Only we or root may write in the parent, or it is
/// sticky.
fn resolve_target(to: &Path) -> Result<PathBuf, DraftRefused> {
    let invalid = |message: String| DraftRefused::Invalid(message);
    if !to.is_absolute() {
        return Err(invalid(format!("{} is not an absolute path", to.display())));
    }
    let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
        return Err(invalid(format!(
            "{} does not end in the name of a directory to be made",
            to.display()
        )));
    };
    // The copy contains secrets: no other user may replace the directory while it is made.
    let real = data_dir::safe_place(parent).map_err(|error| {
        let parent = parent.display();
        invalid(format!("the directory {parent} cannot be used: {error}"))
    })?;
    Ok(real.join(name))
}

fn is_there(path: &Path) -> DraftRefused {
    DraftRefused::Conflict(format!(
        "{} is there already; name a new place, nothing is replaced",
        path.display()
    ))
}

fn cannot_make(partial: &Path, error: io::Error) -> DraftRefused {
    let shown = partial.display();
    match error.kind() {
        io::ErrorKind::AlreadyExists => DraftRefused::Conflict(format!(
            "{shown} is there: a backup that was broken off has left it, unless another server is \
             making one; remove it, or name another place"
        )),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error.into(),
        _ => DraftRefused::Invalid(format!("the directory {shown} cannot be made: {error}")),
    }
}

/// Copies the configuration. Returns its length, bytes; 0 if there is none.
fn copy_config(from: &Path, to: &Path) -> io::Result<u64> {
    let mut open = OpenOptions::new();
    // An open of a pipe must not block.
    let open = open.read(true).custom_flags(libc::O_NONBLOCK);
    let from = match open.open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        from => from?,
    };
    let mut text = Vec::new();
    if !from.metadata()?.is_file() {
        return Ok(0);
    }
    from.take(CONFIG_BYTES_MAX).read_to_end(&mut text)?;
    let mut options = OpenOptions::new();
    let mut copy = options.write(true).create_new(true).mode(0o600).open(to)?;
    copy.write_all(&text)?;
    copy.sync_all()?;
    Ok(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_will_not_do_are_refused_with_a_word() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("data")).expect("made");
        fs::write(path("file"), "x").expect("written");
        std::os::unix::fs::symlink(path("data"), path("link")).expect("linked");
        std::os::unix::fs::symlink("nowhere", path("dangling")).expect("linked");
        fs::create_dir(path("open")).expect("made");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(path("open"), open).expect("a mode");
        let data = path("data").canonicalize().expect("real");
        let refused = |to: &Path| Draft::begin(to, &data).expect_err("refused");
        for to in [
            PathBuf::from("relative"),
            PathBuf::from("/"),
            path("missing/place"),
            path("file/place"),
            path("data"),
            path("data/inside"),
            path("link/inside"),
            path(".."),
            path("open/place"),
        ] {
            assert!(matches!(refused(&to), DraftRefused::Invalid(_)), "{to:?}");
        }
        for name in ["file", "link", "dangling"] {
            assert!(
                matches!(refused(&path(name)), DraftRefused::Conflict(_)),
                "{name}"
            );
        }
        let left = fs::read_dir(root.path()).expect("listed").count();
        assert_eq!(left, 5, "nothing was made");
    }

    #[test]
    fn it_has_its_name_only_when_nobody_else_has() {
        let root = tempfile::tempdir().expect("a directory");
        let (to, data) = (root.path().join("copy"), root.path().join("data"));
        let draft = Draft::begin(&to, &data).expect("begun");
        assert!(matches!(
            Draft::begin(&to, &data),
            Err(DraftRefused::Conflict(_))
        ));
        fs::create_dir(&to).expect("somebody was faster");
        assert!(matches!(draft.publish(), Err(DraftRefused::Conflict(_))));
        fs::remove_dir(&to).expect("empty");
        assert_eq!(fs::read_dir(root.path()).expect("listed").count(), 0);
        let draft = Draft::begin(&to, &data).expect("begun");
        let real = draft.publish().expect("published");
        assert!(real.join("spool").is_dir() && real.join("shims").is_dir());
    }
}
