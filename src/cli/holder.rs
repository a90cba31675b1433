//! Who holds a data directory, as the kernel tells it: also where the server's socket or its lock
//! file has been removed.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock, major, minor};

use crate::spool::Layout;

/// Whether a server holds the data directory. It is asked with a shared lock for a moment, which a
/// server that starts just then outlasts by its own retries.
pub fn is_locked(layout: &Layout) -> bool {
    // A server holds both. One of an earlier version holds the file alone, and the file can be removed
    // while a server runs.
    [layout.lock().as_path(), layout.root()]
        .into_iter()
        .any(is_held)
}

fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let asked = flock(&file, FlockOperation::NonBlockingLockShared);
    asked == Err(rustix::io::Errno::WOULDBLOCK)
}

/// The process id of the server that holds it; `None` where nobody does, or a process that cannot be
/// seen from here.
pub fn holder(layout: &Layout) -> Option<i32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let told = fs::read_to_string(layout.lock()).unwrap_or_default();
    let told = told.trim().parse().ok();
    [layout.root(), layout.lock().as_path()]
        .into_iter()
        .filter_map(|path| fs::metadata(path).ok())
        .find_map(|file| holder_of(&locks, file.dev(), file.ino(), told))
        .filter(|pid| is_server(*pid))
}

/// Who has locked this file, by the lines of proc_locks(5). Some file systems (btrfs, overlays) show
/// another device here than in stat(2); then the inode has to do, for a process that has written
/// itself down.
fn holder_of(locks: &str, dev: u64, ino: u64, told: Option<i32>) -> Option<i32> {
    let device = format!("{:02x}:{:02x}", major(dev), minor(dev));
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words.as_slice() else {
            return None;
        };
        let (at, inode) = place.rsplit_once(':')?;
        let pid = pid.parse::<i32>().ok().filter(|pid| *pid > 0)?;
        let is_it = inode.parse() == Ok(ino) && (at == device || told == Some(pid));
        is_it.then_some(pid)
    })
}

fn is_server(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"serve"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_while_it_is_held() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path());
        assert!(!is_locked(&layout), "no file, no lock");
        for path in [layout.lock().as_path(), layout.root()] {
            if path != layout.root() {
                File::create(path).expect("a file");
            }
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
