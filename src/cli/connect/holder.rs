//! Finds the server process that holds a data directory's lock, from the kernel: works even if the
//! socket or the lock file was removed.

use std::{
    fs::{self, File},
    io::Read,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use rustix::fs::{FlockOperation, flock, major, minor};

use super::proc;
use crate::{
    data_dir::{Access, OwnDir},
    spool::Layout,
    sys::proc::command_line,
};

/// Longest process id in a lock file, bytes.
const NUMBER_BYTES_MAX: u64 = 20;

/// Whether a server holds the data directory. Takes a shared lock for a moment to find out; a
/// server that starts at that moment retries longer than that. False for a directory that is not
/// ours alone.
pub fn is_locked(layout: &Layout) -> bool {
    let Ok(Some(dir)) = OwnDir::open(layout.root()) else {
        return false;
    };
    // A server holds both. One of an earlier version holds the file alone, and the file can be
    // removed while a server runs.
    is_held(dir.file()) || lock_of(&dir).is_some_and(|lock| is_held(&lock))
}

fn lock_of(dir: &OwnDir) -> Option<File> {
    dir.open_file(Layout::LOCK, Access::Read).ok()?
}

fn is_held(file: impl AsFd) -> bool {
    let asked = flock(&file, FlockOperation::NonBlockingLockShared);
    if asked.is_ok() {
        // Explicitly: a forked process that shares the descriptor would keep the lock.
        let _ = flock(&file, FlockOperation::Unlock);
    }
    asked == Err(rustix::io::Errno::WOULDBLOCK)
}

/// The process id in the lock file. It is the holder's, or that of the last one.
pub fn recorded_pid(layout: &Layout) -> Option<i32> {
    let dir = OwnDir::open(layout.root()).ok()??;
    number_in(&mut lock_of(&dir)?)
}

fn number_in(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.take(NUMBER_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The process id of the server that holds the directory; `None` if none does, if it is not visible
/// here, or if it runs as another user.
pub fn holder(layout: &Layout) -> Option<i32> {
    let dir = OwnDir::open(layout.root()).ok()??;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut lock = lock_of(&dir);
    let recorded = lock.as_mut().and_then(number_in);
    [Some(dir.file()), lock.as_ref()]
        .into_iter()
        .filter_map(|file| file?.metadata().ok())
        .find_map(|file| holder_of(&locks, file.dev(), file.ino(), recorded))
        .filter(|pid| is_server(*pid) && proc::is_of_our_user(*pid))
}

/// The process that has locked this file, from the lines of proc_locks(5). Some file systems
/// (btrfs, overlays) show another device there than in stat(2); then the inode alone is enough if
/// the lock file records the same process id.
fn holder_of(locks: &str, dev: u64, ino: u64, recorded: Option<i32>) -> Option<i32> {
    let device = format!("{:02x}:{:02x}", major(dev), minor(dev));
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words.as_slice() else {
            return None;
        };
        let (at, inode) = place.rsplit_once(':')?;
        let pid = pid.parse::<i32>().ok().filter(|pid| *pid > 0)?;
        let is_it = inode.parse() == Ok(ino) && (at == device || recorded == Some(pid));
        is_it.then_some(pid)
    })
}

fn is_server(pid: i32) -> bool {
    command_line(pid).is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"serve"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_while_it_is_held() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path());
        assert!(!is_locked(&layout), "no file, no lock");
        File::create(layout.lock()).expect("a file");
        for path in [layout.lock().as_path(), layout.root()] {
            assert!(!is_locked(&layout));
            let file = File::open(path).expect("opened");
            flock(&file, FlockOperation::LockExclusive).expect("a lock");
            assert!(is_locked(&layout));
        }
        assert!(!is_locked(&layout));
    }

    #[test]
    fn a_holder_is_found_by_device_and_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:42 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 08:02:42 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 6 08:01:42 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 08:01:42 0 EOF\n";
        let dev = rustix::fs::makedev(8, 1);
        assert_eq!(holder_of(locks, dev, 42, None), Some(9));
        assert_eq!(holder_of(locks, dev, 43, None), None);
        let other = rustix::fs::makedev(0, 30);
        assert_eq!(holder_of(locks, other, 42, None), None);
        assert_eq!(holder_of(locks, other, 42, Some(8)), Some(8));
    }
}
