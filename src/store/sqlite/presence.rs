//! Whether the database is still the file that was opened: its name leads to the same inode.
//!
//! Commits to a file that was removed or replaced are gone with the process that holds it open;
//! `writer` therefore checks this after each commit.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// The database and its write-ahead log under their names.
#[derive(Debug, Clone)]
pub(in crate::store) struct Presence {
    database: FilePresence,
    /// SQLite makes it with the first commit, and keeps it until the last connection closes.
    wal: Option<FilePresence>,
}

impl Presence {
    /// The database that has this name now, and its log, if there is one yet.
    pub(super) fn of(name: PathBuf) -> io::Result<Self> {
        let mut wal = name.clone().into_os_string();
        wal.push("-wal");
        let wal = match FilePresence::of(wal.into()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            wal => Some(wal?),
        };
        let database = FilePresence::of(name)?;
        Ok(Self { database, wal })
    }

    /// Identifies the file: a copy has another id, whatever its name is, and a file that is moved
    /// or mounted elsewhere keeps its own.
    pub(in crate::store) fn file_id(&self) -> String {
        self.database.file_id()
    }

    /// Whether both still have their names.
    pub(super) fn is_in_place(&self) -> bool {
        self.database.is_in_place() && self.wal.as_ref().is_none_or(FilePresence::is_in_place)
    }
}

/// A file under its name.
#[derive(Debug, Clone)]
struct FilePresence {
    name: PathBuf,
    device: u64,
    inode: u64,
    /// When the file was created, ns since 1970; 0 where the file system does not know. Needed
    /// because inodes are used again.
    born_ns: u128,
}

impl FilePresence {
    /// The file that has this name now.
    fn of(name: PathBuf) -> io::Result<Self> {
        let there = fs::metadata(&name)?;
        Ok(Self {
            device: there.dev(),
            inode: there.ino(),
            born_ns: there.created().map_or(0, since_1970),
            name,
        })
    }

    fn file_id(&self) -> String {
        format!("{}:{}:{}", self.device, self.inode, self.born_ns)
    }

    /// Whether the name still leads to this file. A lookup that fails for another reason than that
    /// the name is gone, such as missing rights on a directory, proves nothing: then it counts as
    /// in place.
    fn is_in_place(&self) -> bool {
        match fs::metadata(&self.name) {
            Ok(there) => self.is_same(&there),
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }

    fn is_same(&self, there: &Metadata) -> bool {
        (there.dev(), there.ino()) == (self.device, self.inode)
    }
}

fn since_1970(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_another_place_and_what_is_moved_keeps_its_own() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let (name, copy) = (directory.path().join("db"), directory.path().join("copy"));
        fs::write(&name, "x").expect("written");
        let file_id = |name: &PathBuf| Presence::of(name.clone()).expect("is there").file_id();
        let original = file_id(&name);
        fs::copy(&name, &copy).expect("copied");
        assert_ne!(file_id(&copy), original);
        fs::rename(&name, &copy).expect("moved");
        assert_eq!(file_id(&copy), original);
    }

    #[test]
    fn a_file_that_was_removed_or_replaced_is_not_there_any_more() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let (name, aside) = (directory.path().join("db"), directory.path().join("aside"));
        fs::write(&name, "x").expect("written");
        let presence = Presence::of(name.clone()).expect("is there");
        let log = directory.path().join("db-wal");
        fs::write(&log, "x").expect("written");
        let with_log = Presence::of(name.clone()).expect("is there");
        assert!(with_log.is_in_place());
        fs::remove_file(&log).expect("removed");
        assert!(!with_log.is_in_place() && presence.is_in_place());
        fs::write(&name, "more").expect("written");
        assert!(presence.is_in_place());
        fs::rename(&name, &aside).expect("renamed");
        assert!(!presence.is_in_place(), "it has another name");
        fs::write(&name, "x").expect("written");
        assert!(!presence.is_in_place(), "another file has its name");
        fs::rename(&aside, &name).expect("renamed");
        assert!(presence.is_in_place());
        drop(directory);
        assert!(!presence.is_in_place());
    }
}
