//! Claims the data directory for a server: makes it, checks that it is ours alone, and locks it.

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

/// How long a start waits for the lock: a child of a dead server holds it for a moment, between
/// fork and exec.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Time between two tries.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why a server cannot have its data directory.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The lock file cannot be locked or written.
    #[error("cannot use the data directory {}: {source}", path.display())]
    Io {
        /// The path of the lock file.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The directory is not ours alone, or cannot be made.
    #[error(transparent)]
    NotOurs(#[from] DataDirError),
    /// Another server holds it.
    #[error(
        "another server{pid} runs on {}; stop it first (cc-executor stop), or give another \
         directory with --data-dir",
        path.display()
    )]
    Taken {
        /// The data directory.
        path: PathBuf,
        /// ` (process 42)`, or empty if the process is unknown.
        pid: String,
    },
}

/// A data directory that this process holds until the drop.
#[derive(Debug)]
pub struct DataDirClaim {
    /// The paths in it; absolute.
    pub layout: Layout,
    /// The directory itself, locked: unlike a lock file, it keeps its lock when its entries are
    /// removed.
    pub directory: OwnDir,
    /// The lock file, which servers of earlier versions check; made again when it was removed.
    lock: Mutex<File>,
}

impl DataDirClaim {
    /// Makes the directory (0700) if it is missing, checks that it is ours alone, and takes its
    /// lock.
    pub async fn take(dir: &Path) -> Result<Self, ClaimError> {
        let directory = OwnDir::make(dir)?;
        let layout = Layout::new(directory.path());
        let lock = directory.open_or_create_file(Layout::LOCK, Access::Write)?;
        wait_for_lock(&lock, &layout).await?;
        wait_for_lock(directory.file(), &layout).await?;
        write_pid(&lock).map_err(|source| ClaimError::Io {
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

    /// Whether our directory is still at its path.
    pub fn is_in_place(&self) -> bool {
        is_same(self.directory.file(), self.layout.root())
    }

    /// Makes the lock file again if it was removed. If another process holds the new one, that is a
    /// server that starts; it will find the directory locked and end.
    pub fn restore_lock_file(&self) -> io::Result<()> {
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
            write_pid(&file)?;
            *held = file;
        }
        Ok(())
    }

    /// Adds to the error of a failed start that the file system has no free inodes, if that is so.
    /// The errors are misleading then: SQLite says that it cannot open the file, the system that
    /// the disk is full.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let dir = self.layout.root();
        if has_free_inodes(dir) {
            return error;
        }
        error.context(format!(
            "the file system of {} has no free inodes (df -i); remove some files and start \
             again",
            dir.display()
        ))
    }
}

/// Whether the file system has free inodes. One that does not count them reports 0 of 0.
fn has_free_inodes(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).map_or(true, |fs| fs.f_files == 0 || fs.f_favail > 0)
}

async fn wait_for_lock(file: &File, layout: &Layout) -> Result<(), ClaimError> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            // NFS does not lock a descriptor that is open for reading only, which a directory's
            // always is: there the lock file is enough.
            Err(TryLockError::Error(_)) if file.metadata().is_ok_and(|file| file.is_dir()) => {
                return Ok(());
            }
            Err(TryLockError::Error(source)) => {
                return Err(ClaimError::Io {
                    path: layout.lock(),
                    source,
                });
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                let pid = holder(layout);
                return Err(ClaimError::Taken {
                    path: layout.root().to_owned(),
                    pid: pid.map_or_else(String::new, |pid| format!(" (process {pid})")),
                });
            }
            #[expect(clippy::disallowed_methods, reason = "flock has no asynchronous wait")]
            Err(TryLockError::WouldBlock) => sleep(LOCK_RETRY).await,
        }
    }
}

/// The process id of the holder, from the kernel or from the lock file.
fn holder(layout: &Layout) -> Option<i32> {
    use crate::cli::connect::holder;
    holder::holder(layout).or_else(|| holder::recorded_pid(layout))
}

/// Writes our process id into the lock file.
fn write_pid(mut file: &File) -> io::Result<()> {
    let written = file
        .set_len(0)
        .and_then(|()| write!(file, "{}", std::process::id()));
    match written {
        // A server must start on a full disk, too, to end jobs.
        Err(full) if full.kind() == io::ErrorKind::StorageFull => Ok(()),
        written => written,
    }
}

/// Whether a path still leads to this open file.
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
        assert!(begun.elapsed() >= LOCK_WAIT_MAX);
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
        first.restore_lock_file().expect("made again");
        let text = fs::read_to_string(first.layout.lock()).expect("a lock");
        assert_eq!(text, std::process::id().to_string());
        assert!(first.is_in_place());
        fs::rename(root.path(), root.path().with_extension("old")).expect("moved");
        assert!(!first.is_in_place());
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
