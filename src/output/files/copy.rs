//! Carries segments into another spool: those that are complete and on disk are linked where the file
//! system can do that, all others are copied as far as they are, and synced.
//!
//! Which ones are wanted is said by who asks, who also holds them against being unlinked by the
//! server. Shims may drop their own at any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tokio_util::sync::CancellationToken;

use crate::{
    job::JobNumber,
    spool::{DroppedRange, SegmentName, hole, paper, unsynced},
};

/// How much is copied between two looks at room and at whether to stop, bytes.
const COPY_BYTES: usize = 256 << 10;

/// How often is copied again what a shim drops faster than it is copied.
const ROUNDS_MAX: u32 = 16;

/// An attempt.
type CopiedAttempt = (JobNumber, u32);

/// The way from one spool to another. All of it blocks.
#[derive(Debug)]
pub struct SegmentCopier {
    from: PathBuf,
    to: PathBuf,
    /// So much must stay free on the disk of the copy, bytes.
    free_bytes_min: u64,
    stop: CancellationToken,
    /// Attempts that were open a moment ago.
    open: BTreeSet<CopiedAttempt>,
    /// Attempts of which a sync has failed: their files are written anew.
    unsynced: BTreeSet<CopiedAttempt>,
    carried: Carried,
}

/// What has been carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes in files, of both kinds.
    pub bytes: u64,
    /// Bytes that both spools share.
    pub shared_bytes: u64,
    /// Segments of final attempts that were not there: their readers meet damage in both.
    pub missing: u64,
}

impl SegmentCopier {
    /// Carries from the spool `from` into the directory `to`, until `stop`, as long as
    /// `free_bytes_min` stays free there. `open` are the attempts that are not final.
    pub fn new(
        from: PathBuf,
        to: PathBuf,
        open: impl IntoIterator<Item = CopiedAttempt>,
        free_bytes_min: u64,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let mut carrier = Self {
            open: open.into_iter().collect(),
            unsynced: BTreeSet::new(),
            from,
            to,
            free_bytes_min,
            stop,
            carried: Carried::default(),
        };
        for entry in fs::read_dir(&carrier.from)? {
            let name = entry?.file_name();
            carrier
                .unsynced
                .extend(name.to_str().and_then(unsynced::parse));
        }
        Ok(carrier)
    }

    /// What has been carried.
    pub fn carried(&self) -> Carried {
        self.carried
    }

    /// Carries segments that are complete and on disk.
    pub fn complete(&mut self, names: &[SegmentName]) -> io::Result<()> {
        for name in names {
            self.go_on()?;
            let key = (name.job, name.attempt);
            let marked = self.unsynced.contains(&key);
            let is_there = (!marked && self.link(*name)?) || self.copy(*name)?;
            // Of an open one it may have been dropped.
            if !is_there && !self.open.contains(&key) {
                tracing::warn!(%name, "a segment is missing, and so it is in the backup");
                self.carried.missing += 1;
            }
        }
        Ok(())
    }

    /// Carries what there is of the open attempts, and how much they have dropped.
    pub fn incomplete(&mut self) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let mut listed = self.listed()?;
        for key in self.open.clone() {
            let names = listed.remove(&key).unwrap_or_default();
            self.attempt(key, names)?;
        }
        Ok(())
    }

    /// Syncs the names of all that was carried.
    pub fn finish(&self) -> io::Result<()> {
        File::open(&self.to)?.sync_all()
    }

    fn attempt(
        &mut self,
        (job, attempt): CopiedAttempt,
        names: Vec<SegmentName>,
    ) -> io::Result<()> {
        let mut names = names;
        for _ in 0..ROUNDS_MAX {
            // The newest first: the oldest ones are those that go.
            for name in names.iter().rev() {
                self.go_on()?;
                self.copy(*name)?;
            }
            // What is missing by now is in the hole that is there by now.
            let hole = hole::read(&self.from, job, attempt)?;
            if hole.is_none_or(|hole| self.has_behind(job, attempt, &hole)) {
                return self.write_hole(job, attempt, hole);
            }
            names = self.listed()?.remove(&(job, attempt)).unwrap_or_default();
        }
        // What follows the hole is missing, as after a power loss.
        tracing::warn!(
            job,
            attempt,
            "output is dropped faster than it can be copied"
        );
        self.write_hole(job, attempt, hole::read(&self.from, job, attempt)?)
    }

    fn has_behind(&self, job: JobNumber, attempt: u32, hole: &DroppedRange) -> bool {
        let next = SegmentName {
            job,
            attempt,
            first_offset: hole.gap.to,
        };
        self.to.join(next.to_string()).exists()
    }

    fn write_hole(
        &self,
        job: JobNumber,
        attempt: u32,
        hole: Option<DroppedRange>,
    ) -> io::Result<()> {
        match hole {
            Some(hole) => hole::write(File::open(&self.to)?, job, attempt, &hole),
            None => Ok(()),
        }
    }

    /// The segments of each attempt, in order and without one that is missing in the middle: a
    /// listing may show a file that came after it began, and not the one before that. What the first
    /// one shows was all there before the second one began.
    fn listed(&self) -> io::Result<BTreeMap<CopiedAttempt, Vec<SegmentName>>> {
        let last: BTreeMap<CopiedAttempt, SegmentName> = segments(&self.from)?
            .into_iter()
            .map(|name| ((name.job, name.attempt), name))
            .collect();
        let mut listed: BTreeMap<CopiedAttempt, Vec<SegmentName>> = BTreeMap::new();
        for name in segments(&self.from)? {
            let key = (name.job, name.attempt);
            if last.get(&key).is_some_and(|last| name <= *last) {
                listed.entry(key).or_default().push(name);
            }
        }
        Ok(listed)
    }

    /// `false` where it has to be copied, or is not there.
    fn link(&mut self, name: SegmentName) -> io::Result<bool> {
        let name = name.to_string();
        let to = self.to.join(&name);
        if fs::hard_link(self.from.join(&name), &to).is_err() {
            return Ok(false);
        }
        let bytes = fs::metadata(&to)?.len();
        self.carried.bytes += bytes;
        self.carried.shared_bytes += bytes;
        Ok(true)
    }

    /// Copies a segment as long as it is now, unless that has been done. `false`: it is not there.
    fn copy(&mut self, name: SegmentName) -> io::Result<bool> {
        let name = name.to_string();
        let mut from = match paper::open(&self.from.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            from => from?,
        };
        let length = from.metadata()?.len();
        let path = self.to.join(&name);
        if let Ok(there) = fs::metadata(&path) {
            if there.len() == length {
                return Ok(true);
            }
            // Another file: this one could be a link.
            fs::remove_file(&path)?;
            self.carried.bytes -= there.len();
        }
        let mut options = OpenOptions::new();
        let mut to = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut left = length;
        while left > 0 {
            self.go_on()?;
            let part = COPY_BYTES.min(usize::try_from(left).unwrap_or(COPY_BYTES));
            match from.read(&mut buffer[..part])? {
                0 => break,
                read => {
                    to.write_all(&buffer[..read])?;
                    left -= read as u64;
                }
            }
        }
        to.sync_all()?;
        self.carried.bytes += length - left;
        Ok(true)
    }

    fn go_on(&self) -> io::Result<()> {
        if self.stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        leave_free(&self.to, self.free_bytes_min + COPY_BYTES as u64)
    }
}

/// Refuses as a full disk does where less than so many bytes are free in `directory`'s file system.
pub fn leave_free(directory: &Path, bytes: u64) -> io::Result<()> {
    let there = rustix::fs::statvfs(directory)?;
    match there.f_bavail.saturating_mul(there.f_frsize) < bytes {
        true => Err(io::ErrorKind::StorageFull.into()),
        false => Ok(()),
    }
}

/// Whether both are on the same file system.
pub fn share_a_disk(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(fs::metadata(one)?.dev() == fs::metadata(other)?.dev())
}

/// All segments, in order.
fn segments(spool: &Path) -> io::Result<Vec<SegmentName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(spool)? {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(SegmentName::parse));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Gap, GapReason};

    struct Scene {
        from: tempfile::TempDir,
        to: tempfile::TempDir,
    }

    impl Scene {
        fn new(files: &[(&str, &str)]) -> Self {
            let scene = Self {
                from: tempfile::tempdir().expect("a directory"),
                to: tempfile::tempdir().expect("a directory"),
            };
            for (name, text) in files {
                fs::write(scene.from.path().join(name), text).expect("written");
            }
            scene
        }

        fn carrier(&self, open: &[CopiedAttempt]) -> SegmentCopier {
            let (from, to) = (self.from.path().to_owned(), self.to.path().to_owned());
            SegmentCopier::new(from, to, open.iter().copied(), 0, CancellationToken::new())
                .expect("a carrier")
        }

        fn carried(&self) -> Vec<String> {
            let entries = fs::read_dir(self.to.path()).expect("listed");
            let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
            let mut names: Vec<_> = entries
                .map(|entry| name(entry).into_string().expect("UTF-8"))
                .collect();
            names.sort();
            names
        }

        fn inodes(&self, name: &str) -> [u64; 2] {
            [&self.from, &self.to]
                .map(|place| fs::metadata(place.path().join(name)).expect("a file").ino())
        }
    }

    fn name(job: JobNumber, attempt: u32, first_offset: u64) -> SegmentName {
        SegmentName {
            job,
            attempt,
            first_offset,
        }
    }

    #[test]
    fn what_is_complete_is_linked_unless_a_sync_of_it_has_failed() {
        let scene = Scene::new(&[
            ("1.1.0.seg", "one"),
            ("2.1.0.seg", "two"),
            ("2.1.unsynced", ""),
        ]);
        let mut carrier = scene.carrier(&[(4, 1)]);
        let names = [name(1, 1, 0), name(2, 1, 0), name(3, 1, 0), name(4, 1, 0)];
        carrier.complete(&names).expect("carried");
        let [one, two] = ["1.1.0.seg", "2.1.0.seg"].map(|name| scene.inodes(name));
        assert!(one[0] == one[1] && two[0] != two[1]);
        let expected = Carried {
            bytes: 6,
            shared_bytes: 3,
            missing: 1,
        };
        assert_eq!(carrier.carried(), expected);
    }

    #[test]
    fn of_an_open_attempt_everything_is_copied_and_of_others_nothing() {
        let scene = Scene::new(&[
            ("1.1.0.seg", "one"),
            ("1.1.3.seg", ""),
            ("1.2.0.seg", "another"),
            ("10.1.0.seg", "another"),
            ("notes.txt", "not ours"),
        ]);
        let mut carrier = scene.carrier(&[(1, 1), (5, 1)]);
        carrier.incomplete().expect("carried");
        assert_eq!(scene.carried(), ["1.1.0.seg", "1.1.3.seg"]);
        let [there, here] = scene.inodes("1.1.0.seg");
        assert_ne!(there, here);
    }

    #[test]
    fn a_hole_goes_with_what_is_behind_it() {
        let scene = Scene::new(&[("1.1.0.seg", "one"), ("1.1.30.seg", "behind")]);
        let gap = Gap {
            from: 3,
            to: 30,
            reason: GapReason::DropOldest,
        };
        let dug = DroppedRange { gap, lines: 2 };
        let spool = File::open(scene.from.path()).expect("open");
        hole::write(&spool, 1, 1, &dug).expect("written");
        scene.carrier(&[(1, 1)]).incomplete().expect("carried");
        let expected = ["1.1.0.seg", "1.1.30.seg", "1.1.hole"];
        assert_eq!(scene.carried(), expected);
        let read = hole::read(scene.to.path(), 1, 1).expect("read");
        assert_eq!(read, Some(dug));
    }

    #[test]
    fn it_stops_when_it_is_told_to_and_when_the_disk_is_full() {
        let scene = Scene::new(&[("1.1.0.seg", "one")]);
        let mut carrier = scene.carrier(&[(1, 1)]);
        carrier.free_bytes_min = u64::MAX / 2;
        let full = carrier.incomplete().expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        carrier.free_bytes_min = 0;
        carrier.stop.cancel();
        let stopped = carrier.incomplete().expect_err("stopped");
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
        assert!(scene.carried().is_empty());
    }
}
