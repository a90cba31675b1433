//! Room that is kept for what must be stored on a full disk: a preallocated file in the data
//! directory, given back to the file system when nothing else is left, and taken again later.
//!
//! Who may use that room is decided by those who ask here before they write.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, Stat, fallocate, fstat, fstatvfs, ftruncate, open,
    openat, statat, unlinkat,
};
use rustix::io::{Errno, pwrite};

/// What the file is called in a data directory.
pub const FILE_NAME: &str = "cc-executor.ballast";

/// The file with which is tried whether more may be written.
const PROBE_NAME: &str = "cc-executor.probe";

/// So much it takes then, bytes: more than any single write of SQLite, which are pages.
const PROBE_BYTES: usize = 64 << 10;

/// So much more must be free before the room is taken again, bytes: who takes the last byte would
/// have to give it back at once.
const SPARE_BYTES: u64 = 256 << 10;

/// It is given back in so many portions.
const PORTIONS: u64 = 8;

/// The file. It tells by itself how it stands: its length is what it is to hold, its blocks are
/// what it holds, and whoever can see it, a shim without a server too, knows what it lacks.
#[derive(Debug, Clone)]
pub struct Ballast {
    dir: Arc<OwnedFd>,
}

impl Ballast {
    /// That of a data directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened.
    pub fn of_data_dir(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = open(dir, flags, Mode::empty())?;
        Ok(Self { dir: Arc::new(dir) })
    }

    /// What it lacks, bytes; 0 where none is kept.
    pub fn missing(&self) -> u64 {
        let stat = statat(&*self.dir, FILE_NAME, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(0, |stat| lacking(&stat))
    }

    /// Keeps so many bytes from now on; 0: none. They are taken as soon as they are free, so
    /// afterwards some may be missing.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn keep(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return self.remove();
        }
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&*self.dir, FILE_NAME, flags, Mode::RUSR | Mode::WUSR)?;
        // Whole blocks: a last one that is only begun would never count as held.
        ftruncate(&file, bytes.next_multiple_of(BLOCK_BYTES))?;
        self.refill();
        Ok(())
    }

    /// Takes what is missing, if there is room for it. Whether nothing is missing any more; where
    /// the file system cannot keep room for a file, none is kept from then on.
    pub fn refill(&self) -> bool {
        let missing = self.missing();
        if missing == 0 {
            return true;
        }
        match self.fill(missing) {
            Ok(filled) => filled,
            Err(Errno::NOSPC | Errno::DQUOT) => {
                // What an attempt in vain has left behind is no ballast, and others may need it.
                let _ = self.give_back(1);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "this file system keeps no room for the ballast; there is none");
                self.remove().is_ok()
            }
        }
    }

    fn fill(&self, missing: u64) -> rustix::io::Result<bool> {
        if free_bytes(&*self.dir)? < missing + SPARE_BYTES {
            return Ok(false);
        }
        let file = self.open()?;
        let length = fstat(&file)?.st_size.unsigned_abs();
        fallocate(&file, FallocateFlags::empty(), 0, length)?;
        match lacking(&fstat(&file)?) {
            0 => Ok(true),
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    /// Gives a portion of it back to the file system, no more: on a busy disk others are quick to
    /// take what is free. Whether there was anything to give.
    pub fn release(&self) -> bool {
        self.give_back(PORTIONS).unwrap_or(false)
    }

    /// Whether no more may be written beside it, tried with a file: also where the disk has room and
    /// the quota of our user has none, which nobody tells by a number.
    pub fn is_out_of_room(&self) -> bool {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let written = openat(&*self.dir, PROBE_NAME, flags, Mode::RUSR | Mode::WUSR)
            .and_then(|file| pwrite(&file, &[0; PROBE_BYTES], 0));
        let _ = unlinkat(&*self.dir, PROBE_NAME, AtFlags::empty());
        match written {
            Ok(bytes) => bytes < PROBE_BYTES,
            Err(error) => matches!(error, Errno::NOSPC | Errno::DQUOT),
        }
    }

    /// Gives back as much as it takes to have so much free. Whether it had to give any.
    pub fn release_below(&self, free_min: u64) -> bool {
        let mut released = false;
        while free_bytes(&*self.dir).is_ok_and(|free| free < free_min) && self.release() {
            released = true;
        }
        released
    }

    /// Gives one of so many equal portions back.
    fn give_back(&self, portions: u64) -> rustix::io::Result<bool> {
        let file = self.open()?;
        let stat = fstat(&file)?;
        let (length, held) = (stat.st_size.unsigned_abs(), held(&stat));
        let portion = (length / portions).next_multiple_of(BLOCK_BYTES);
        // What is held is its beginning: it is always taken whole and given back from the end.
        ftruncate(&file, held.saturating_sub(portion).min(length))?;
        ftruncate(&file, length)?;
        Ok(held > 0)
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&*self.dir, FILE_NAME, flags, Mode::empty())
    }

    fn remove(&self) -> io::Result<()> {
        match unlinkat(&*self.dir, FILE_NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The size of the blocks that are asked for, bytes.
const BLOCK_BYTES: u64 = 4096;

fn held(stat: &Stat) -> u64 {
    // 512 whatever the file system's own blocks are: stat(2).
    stat.st_blocks.unsigned_abs() * 512
}

fn lacking(stat: &Stat) -> u64 {
    stat.st_size.unsigned_abs().saturating_sub(held(stat))
}

/// What is free on the file system of a directory, bytes.
fn free_bytes(dir: impl AsFd) -> rustix::io::Result<u64> {
    let stats = fstatvfs(dir)?;
    Ok(stats.f_bavail * stats.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballast() -> (tempfile::TempDir, Ballast) {
        let dir = tempfile::tempdir().expect("a directory");
        let ballast = Ballast::of_data_dir(dir.path()).expect("opened");
        (dir, ballast)
    }

    #[test]
    fn what_is_given_back_is_missing_until_it_is_taken_again() {
        let (dir, ballast) = ballast();
        let seen = Ballast::of_data_dir(dir.path()).expect("opened");
        assert_eq!(seen.missing(), 0, "nothing is kept");
        ballast.keep(1_000_000).expect("made");
        assert_eq!(ballast.missing(), 0);
        assert!(ballast.release());
        assert_eq!(seen.missing(), 126_976, "an eighth, in whole blocks");
        let more = (0..100).take_while(|_| seen.release()).count();
        assert_eq!((more, ballast.missing()), (7, 1_003_520));
        assert!(seen.refill());
        assert_eq!(ballast.missing(), 0);
        assert!(!ballast.release_below(1), "there is room without it");
        assert!(seen.release());
        ballast.keep(0).expect("removed");
        assert_eq!((ballast.missing(), ballast.release()), (0, false));
    }

    #[test]
    fn more_than_there_is_stays_missing() {
        let (_dir, ballast) = ballast();
        ballast.keep(1 << 43).expect("made");
        assert_eq!(ballast.missing(), 1 << 43);
        assert!(!ballast.refill());
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let (dir, ballast) = ballast();
        assert!(!ballast.is_out_of_room());
        assert_eq!(std::fs::read_dir(&dir).expect("listed").count(), 0);
    }

    #[test]
    fn a_link_of_that_name_leads_nowhere() {
        let (dir, ballast) = ballast();
        let other = dir.path().join("other");
        std::fs::write(&other, "precious").expect("written");
        std::os::unix::fs::symlink(&other, dir.path().join(FILE_NAME)).expect("linked");
        assert!(ballast.keep(4096).is_err());
        assert!(!ballast.release());
        assert_eq!(std::fs::read(&other).expect("read"), b"precious");
    }
}
