//! Syncs segments to the disk, and distinguishes a failed sync from all other I/O errors: after a
//! failed sync the bytes may never reach the disk, so the caller must not go on as if they had.
//!
//! The kernel reports such an error once (fsync(2)). From then on it may treat the unwritten pages as
//! written, so syncing the same file again proves nothing: [`write_anew`] writes it as another file.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use crate::{
    job::JobNumber,
    spool::{SegmentName, dropped_range, safe_file, unsynced},
};

/// How much is copied at once, bytes.
const COPY_BYTES: usize = 256 << 10;

/// What was written may not be on the disk, and may never reach it.
#[derive(Debug, thiserror::Error)]
#[error("{name} could not be synced: {error}")]
struct SyncFailed {
    name: String,
    #[source]
    error: io::Error,
}

/// Whether an error means that a sync has failed.
pub fn is_sync_failure(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<SyncFailed>())
}

/// Syncs one segment and the directory's entries. If that fails, it marks the attempt as unsynced
/// (`spool/unsynced`). Blocking.
///
/// # Errors
///
/// See [`is_sync_failure`].
pub fn sync_segment(spool: &Path, name: SegmentName) -> io::Result<()> {
    sync(spool, name.job, name.attempt, &[name])
}

/// Syncs all segments of an attempt, also those that have rows: the shim that was to sync them may
/// have died before. For a file that is on disk this costs next to nothing. Blocking.
///
/// # Errors
///
/// See [`is_sync_failure`].
pub fn sync_attempt(spool: &Path, job: JobNumber, attempt: u32) -> io::Result<()> {
    sync(
        spool,
        job,
        attempt,
        &dropped_range::segments(spool, job, attempt)?,
    )
}

fn sync(spool: &Path, job: JobNumber, attempt: u32, names: &[SegmentName]) -> io::Result<()> {
    let synced = sync_all(spool, names);
    if matches!(&synced, Err(error) if is_sync_failure(error)) {
        unsynced::mark(File::open(spool)?, job, attempt)?;
    }
    synced
}

fn sync_all(spool: &Path, names: &[SegmentName]) -> io::Result<()> {
    for name in names {
        let file = safe_file::open(&spool.join(name.to_string()))?;
        file.sync_data().map_err(|e| failed(name, e))?;
    }
    File::open(spool)?
        .sync_all()
        .map_err(|e| failed("the spool", e))
}

fn failed(name: impl ToString, error: io::Error) -> io::Error {
    let name = name.to_string();
    io::Error::other(SyncFailed { name, error })
}

/// Writes all segments of an attempt anew, and syncs them. No process may write them meanwhile.
/// Blocking.
///
/// # Errors
///
/// If a copy cannot be synced, the original stays, since the copy is no better.
pub fn write_anew(spool: &Path, job: JobNumber, attempt: u32) -> io::Result<()> {
    for name in dropped_range::segments(spool, job, attempt)? {
        let path = spool.join(name.to_string());
        let draft = spool.join(format!("{name}.draft"));
        let copy = copy(&path, &draft)?;
        copy.sync_all().map_err(|e| failed(name, e))?;
        fs::rename(&draft, &path)?;
    }
    File::open(spool)?
        .sync_all()
        .map_err(|e| failed("the spool", e))
}

/// Copies with read and write, never with copy_file_range(2) or a reflink: those could share the bad
/// blocks between the two files.
fn copy(from: &Path, to: &Path) -> io::Result<File> {
    let (mut from, mut to) = (safe_file::open(from)?, safe_file::create_anew(to)?);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(to),
            length => to.write_all(&buffer[..length])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_anew_is_another_file_with_the_same_bytes() {
        use std::os::unix::fs::MetadataExt;
        let spool = tempfile::tempdir().expect("a directory");
        let bytes: Vec<u8> = (0..COPY_BYTES + 7).map(|at| at as u8).collect();
        let names = ["7.1.0.seg", "7.1.9.seg", "7.2.0.seg"];
        for name in names {
            fs::write(spool.path().join(name), &bytes).expect("written");
        }
        let inode = |name: &str| fs::metadata(spool.path().join(name)).expect("there").ino();
        let before = names.map(inode);
        write_anew(spool.path(), 7, 1).expect("written anew");
        let after = names.map(inode);
        assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
        assert_eq!(
            fs::read(spool.path().join("7.1.9.seg")).expect("read"),
            bytes
        );
        assert_eq!(fs::read_dir(spool.path()).expect("listed").count(), 3);
    }

    #[test]
    fn only_a_failed_sync_is_one() {
        assert!(is_sync_failure(&failed(
            "x",
            io::Error::from_raw_os_error(5)
        )));
        assert!(!is_sync_failure(&io::Error::from_raw_os_error(5)));
    }
}
