//! Copies segments to another spool. Segments that are complete and on disk are hard-linked if the
//! file system allows; all others are copied at their current length, and synced.
//!
//! The caller names the segments and holds them with an [`Unlinker`](super::unlinker::Unlinker), so
//! that the server does not unlink them meanwhile. Shims may drop their own at any time.

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
    spool::{DroppedRange, SegmentName, dropped_range, safe_file, unsynced},
};

/// How much is copied between two checks of free space and of the request to stop, bytes.
const COPY_BYTES: usize = 256 << 10;

/// How often an attempt is copied again because its shim dropped segments during the copy.
const ROUNDS_MAX: u32 = 16;

/// Job and attempt.
type CopiedAttempt = (JobNumber, u32);

/// Copies from one spool to another. All of it blocks.
#[derive(Debug)]
pub struct SegmentCopier {
    from: PathBuf,
    to: PathBuf,
    /// How much must stay free on the disk of the copy, bytes.
    free_bytes_min: u64,
    stop: CancellationToken,
    /// Attempts that were not final when the copy began.
    open: BTreeSet<CopiedAttempt>,
    /// Attempts of which a sync has failed: their files are never linked, because a link would share
    /// the bad blocks.
    unsynced: BTreeSet<CopiedAttempt>,
    totals: CopyTotals,
}

/// What has been copied so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyTotals {
    /// Length of all files, linked and copied, bytes.
    pub bytes: u64,
    /// Length of the linked files, which both spools share, bytes.
    pub shared_bytes: u64,
    /// Segments of final attempts that were not there: readers of either spool find a damaged gap.
    pub missing: u64,
}

impl SegmentCopier {
    /// Copies from the spool `from` to the directory `to`, until `stop` is cancelled, while more than
    /// `free_bytes_min` bytes are free there. `open` are the attempts that are not final.
    pub fn new(
        from: PathBuf,
        to: PathBuf,
        open: impl IntoIterator<Item = CopiedAttempt>,
        free_bytes_min: u64,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let mut copier = Self {
            open: open.into_iter().collect(),
            unsynced: BTreeSet::new(),
            from,
            to,
            free_bytes_min,
            stop,
            totals: CopyTotals::default(),
        };
        for entry in fs::read_dir(&copier.from)? {
            let name = entry?.file_name();
            copier
                .unsynced
                .extend(name.to_str().and_then(unsynced::parse));
        }
        Ok(copier)
    }

    /// What has been copied so far.
    pub fn totals(&self) -> CopyTotals {
        self.totals
    }

    /// Links or copies segments that are complete and on disk.
    ///
    /// # Errors
    ///
    /// `Interrupted` once `stop` is cancelled, `StorageFull` where too little is free.
    pub fn complete(&mut self, names: &[SegmentName]) -> io::Result<()> {
        for name in names {
            self.check_stop_and_space()?;
            let key = (name.job, name.attempt);
            let marked = self.unsynced.contains(&key);
            let is_there = (!marked && self.link(*name)?) || self.copy(*name)?;
            // The shim of an open attempt may have dropped the segment.
            if !is_there && !self.open.contains(&key) {
                tracing::warn!(%name, "a segment is missing here and in the backup");
                self.totals.missing += 1;
            }
        }
        Ok(())
    }

    /// Copies all segments of the open attempts, and their dropped ranges. Errors as for
    /// [`Self::complete`].
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

    /// Syncs the directory of the copy, and with it the names of the files.
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
                self.check_stop_and_space()?;
                self.copy(*name)?;
            }
            // Read the dropped range after the copy: it covers all that has gone meanwhile.
            let dropped = dropped_range::read(&self.from, job, attempt)?;
            if dropped.is_none_or(|range| self.has_segment_after(job, attempt, &range)) {
                return self.write_dropped(job, attempt, dropped);
            }
            names = self.listed()?.remove(&(job, attempt)).unwrap_or_default();
        }
        // The segment after the dropped range is missing in the copy, as after a power loss.
        tracing::warn!(
            job,
            attempt,
            "output is dropped faster than it can be copied"
        );
        self.write_dropped(job, attempt, dropped_range::read(&self.from, job, attempt)?)
    }

    fn has_segment_after(&self, job: JobNumber, attempt: u32, range: &DroppedRange) -> bool {
        let next = SegmentName {
            job,
            attempt,
            first_offset: range.gap.to,
        };
        self.to.join(next.to_string()).exists()
    }

    fn write_dropped(
        &self,
        job: JobNumber,
        attempt: u32,
        dropped: Option<DroppedRange>,
    ) -> io::Result<()> {
        match dropped {
            Some(range) => dropped_range::write(File::open(&self.to)?, job, attempt, &range),
            None => Ok(()),
        }
    }

    /// The segments of each attempt, in order and without a missing one in the middle. One listing of
    /// a directory may show a file that was created meanwhile and not the one created before it, so
    /// this lists twice: all files up to the last one of the first listing existed before the second
    /// one began.
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

    /// Links a segment. `false`: it has to be copied, or is not there.
    fn link(&mut self, name: SegmentName) -> io::Result<bool> {
        let name = name.to_string();
        let to = self.to.join(&name);
        if fs::hard_link(self.from.join(&name), &to).is_err() {
            return Ok(false);
        }
        let bytes = fs::metadata(&to)?.len();
        self.totals.bytes += bytes;
        self.totals.shared_bytes += bytes;
        Ok(true)
    }

    /// Copies a segment at its current length, unless that has been done. `false`: it is not there.
    fn copy(&mut self, name: SegmentName) -> io::Result<bool> {
        let name = name.to_string();
        let mut from = match safe_file::open(&self.from.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            from => from?,
        };
        let length = from.metadata()?.len();
        let path = self.to.join(&name);
        if let Ok(there) = fs::metadata(&path) {
            if there.len() == length {
                return Ok(true);
            }
            // Write a new file: the one that is there may be a link to the original.
            fs::remove_file(&path)?;
            self.totals.bytes -= there.len();
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
            self.check_stop_and_space()?;
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
        self.totals.bytes += length - left;
        Ok(true)
    }

    fn check_stop_and_space(&self) -> io::Result<()> {
        if self.stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        leave_free(&self.to, self.free_bytes_min + COPY_BYTES as u64)
    }
}

/// Fails with `StorageFull` if less than `bytes` bytes are free in the file system of `directory`.
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

/// The names of all segments in a spool, in order.
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

        fn copier(&self, open: &[CopiedAttempt]) -> SegmentCopier {
            let (from, to) = (self.from.path().to_owned(), self.to.path().to_owned());
            SegmentCopier::new(from, to, open.iter().copied(), 0, CancellationToken::new())
                .expect("a copier")
        }

        fn copied(&self) -> Vec<String> {
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
                .map(|spool| fs::metadata(spool.path().join(name)).expect("a file").ino())
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
        let mut copier = scene.copier(&[(4, 1)]);
        let names = [name(1, 1, 0), name(2, 1, 0), name(3, 1, 0), name(4, 1, 0)];
        copier.complete(&names).expect("copied");
        let [one, two] = ["1.1.0.seg", "2.1.0.seg"].map(|name| scene.inodes(name));
        assert!(one[0] == one[1] && two[0] != two[1]);
        let expected = CopyTotals {
            bytes: 6,
            shared_bytes: 3,
            missing: 1,
        };
        assert_eq!(copier.totals(), expected);
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
        let mut copier = scene.copier(&[(1, 1), (5, 1)]);
        copier.incomplete().expect("copied");
        assert_eq!(scene.copied(), ["1.1.0.seg", "1.1.3.seg"]);
        let [there, here] = scene.inodes("1.1.0.seg");
        assert_ne!(there, here);
    }

    #[test]
    fn a_dropped_range_is_copied_with_what_is_after_it() {
        let scene = Scene::new(&[("1.1.0.seg", "one"), ("1.1.30.seg", "after")]);
        let gap = Gap {
            from: 3,
            to: 30,
            reason: GapReason::DropOldest,
        };
        let range = DroppedRange { gap, lines: 2 };
        let spool = File::open(scene.from.path()).expect("open");
        dropped_range::write(&spool, 1, 1, &range).expect("written");
        scene.copier(&[(1, 1)]).incomplete().expect("copied");
        let expected = ["1.1.0.seg", "1.1.30.seg", "1.1.hole"];
        assert_eq!(scene.copied(), expected);
        let read = dropped_range::read(scene.to.path(), 1, 1).expect("read");
        assert_eq!(read, Some(range));
    }

    #[test]
    fn it_stops_when_it_is_cancelled_and_when_the_disk_is_full() {
        let scene = Scene::new(&[("1.1.0.seg", "one")]);
        let mut copier = scene.copier(&[(1, 1)]);
        copier.free_bytes_min = u64::MAX / 2;
        let full = copier.incomplete().expect_err("full");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        copier.free_bytes_min = 0;
        copier.stop.cancel();
        let stopped = copier.incomplete().expect_err("stopped");
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
        assert!(scene.copied().is_empty());
    }
}
