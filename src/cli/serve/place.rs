//! The data directory of a server: made, owned, and locked.
//!
//! What lies in it is known by the layout.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    data_dir::{Access, DataDirError, OwnDir},
    spool::Layout,
};

/// How long a start tries for a lock that is taken: a child of a dead server, between fork and
/// exec, still holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why a server cannot have its data directory.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be made or looked at.
    #[error("cannot use the data directory {}: {source}", path.display())]
    Io {
        /// The directory, or the place in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not ours alone, or cannot be made.
    #[error(transparent)]
    NotOurs(#[from] DataDirError),
    /// Another server has it.
    #[error(
        "another server{pid} runs on {}; stop it first (cc-executor stop), or name another \
         directory with --data-dir",
        path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// ` (process 42)`, where known.
        pid: String,
    },
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDirClaim {
    /// Where things lie in it; absolute.
    pub layout: Layout,
    /// The directory itself, locked: what is locked can then not be removed under us.
    pub directory: OwnDir,
    /// The lock file, which servers of earlier versions look at; made again when it is removed.
    lock: Mutex<File>,
}

impl DataDirClaim {
    /// Makes the directory (0700) where it is missing, looks whether it is ours alone, and takes its lock.
    pub async fn take(dir: &Path) -> Result<Self, PlaceError> {
        let directory = OwnDir::make(dir)?;
        let layout = Layout::new(directory.path());
        let lock = directory.open_or_create_file(Layout::LOCK, Access::Write)?;
        wait_for_lock(&lock, &layout).await?;
        wait_for_lock(directory.file(), &layout).await?;
        write_down(&lock).map_err(|source| PlaceError::Io {
            path: layout.lock(),
            source,
        })?;
        for name in [Layout::SPOOL, Layout::SHIMS] {
            directory.subdirectory(name)?;
        }
        Ok(Self {
            layout,
            directory,
            lock: Mutex::new(lock),
        })
    }

    /// Whether our directory still has its name.
    pub fn is_there(&self) -> bool {
        is_same(self.directory.file(), self.layout.root())
    }

    /// Makes the lock file again where it was removed. Another process that holds it is a server that
    /// starts, and will find the directory taken.
    pub fn keep_lock(&self) -> io::Result<()> {
        let Ok(mut held) = self.lock.lock() else {
            return Ok(());
        };
        if is_same(&held, &self.layout.lock()) {
            return Ok(());
        }
        let file = self
            .directory
            .open_or_create_file(Layout::LOCK, Access::Write)?;
        if file.try_lock().is_ok() {
            write_down(&file)?;
            *held = file;
        }
        Ok(())
    }

    /// Adds to why a start failed what the error alone does not tell: of a file that cannot be made
    /// SQLite says only that it cannot open it, and the system that the disk is full, which it is not.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let dir = self.layout.root();
        if takes_files(dir) {
            return error;
        }
        error.context(format!(
            "there is no room for another file on the file system of {} (df -i); remove some and \
             start again",
            dir.display()
        ))
    }
}

/// Whether another file can be made there. A file system that does not count its inodes says 0 of 0.
fn takes_files(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).map_or(true, |fs| fs.f_files == 0 || fs.f_favail > 0)
}

async fn wait_for_lock(file: &File, layout: &Layout) -> Result<(), PlaceError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // Network file systems do not lock what is open for reading: there the file has to do.
            Err(TryLockError::Error(_)) if file.metadata().is_ok_and(|file| file.is_dir()) => {
                return Ok(());
            }
            Err(TryLockError::Error(source)) => {
                return Err(PlaceError::Io {
                    path: layout.lock(),
                    source,
                });
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                let pid = holder(layout);
                return Err(PlaceError::Taken {
                    path: layout.root().to_owned(),
                    pid: pid.map_or_else(String::new, |pid| format!(" (process {pid})")),
                });
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "a lock that is let go tells nobody"
            )]
            Err(TryLockError::WouldBlock) => sleep(LOCK_RETRY).await,
        }
    }
}

/// Who holds the directory, as the kernel tells or as it has written down.
fn holder(layout: &Layout) -> Option<i32> {
    use crate::cli::connect::holder;
    holder::holder(layout).or_else(|| holder::written_down(layout))
}

/// Writes down who has the lock.
fn write_down(mut file: &File) -> io::Result<()> {
    let written = file
        .set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()));
    match written {
        // A full disk must not keep a server from ending jobs.
        Err(full) if full.kind() == io::ErrorKind::StorageFull => Ok(()),
        written => written,
    }
}

/// Whether an open file is still what has this name.
fn is_same(file: &File, path: &Path) -> bool {
    let place = |file: fs::Metadata| (file.dev(), file.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(named)) => place(file) == place(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_made_for_us_alone() {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = root.path().join("a/b");
        let place = DataDirClaim::take(&dir).await.expect("taken");
        for dir in [dir, place.layout.spool(), place.layout.shims()] {
            let mode = fs::metadata(dir).expect("a directory").permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        assert!(place.layout.root().is_absolute());
    }

    #[tokio::test]
    async fn a_second_server_is_refused_with_the_name_of_the_first() {
        let root = tempfile::tempdir().expect("tempdir");
        let first = DataDirClaim::take(root.path()).await.expect("taken");
        let begun = Instant::now();
        let error = DataDirClaim::take(root.path()).await.expect_err("refused");
        assert!(begun.elapsed() >= LOCK_PATIENCE);
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(first);
        assert!(DataDirClaim::take(root.path()).await.is_ok());
    }

    #[tokio::test]
    async fn a_removed_lock_lets_no_second_server_in_and_is_made_again() {
        let root = tempfile::tempdir().expect("tempdir");
        let first = DataDirClaim::take(root.path()).await.expect("taken");
        fs::remove_file(first.layout.lock()).expect("removed");
        assert!(DataDirClaim::take(root.path()).await.is_err());
        first.keep_lock().expect("made again");
        let text = fs::read_to_string(first.layout.lock()).expect("a lock");
        assert_eq!(text, std::process::id().to_string());
        assert!(first.is_there());
        fs::rename(root.path(), root.path().with_extension("old")).expect("moved");
        assert!(!first.is_there());
        fs::remove_dir_all(root.path().with_extension("old")).expect("removed");
    }

    #[tokio::test]
    async fn a_lock_that_is_left_in_time_is_taken() {
        let root = tempfile::tempdir().expect("tempdir");
        let first = DataDirClaim::take(root.path()).await.expect("taken");
        let (second, ()) = tokio::join!(DataDirClaim::take(root.path()), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert!(second.is_ok());
    }
}
