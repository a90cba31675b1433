//! What was dropped of one attempt's output: how many bytes where, and how many line ends. Why
//! something is dropped, and what a reader says then, is not known here.
//!
//! Dropped at the end (`drop_newest`), it is the payload of a gap record. Dropped in the middle
//! (`drop_oldest`), it stands in a small file of its own beside the segments, which is replaced as
//! a whole before any segment goes: whoever misses a segment finds there how far the hole reaches,
//! and where that file says that bytes are gone, they are, whatever a kill has left lying about.
//! There are two such files, which take turns, so that a full disk keeps nothing from being dropped.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, RenameFlags, openat, renameat, renameat_with},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    SegmentName,
    record::{self, Decoded, RecordHeader, RecordKind},
    safe_file,
};
use crate::job::{Dropped, Gap, JobNumber, Offset, Stream};

/// The length of both files, bytes: more than any hole takes.
const RECORD_BYTES: usize = 512;

/// How often is looked again while the file is being replaced.
const READS_MAX: u32 = 8;

/// Bytes that were dropped in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRange {
    /// Where, and why.
    #[serde(flatten)]
    pub gap: Gap,
    /// How many line ends were among the bytes.
    pub lines: u64,
}

impl DroppedRange {
    /// Where output goes on that has come to `offset`: behind the hole, if that lies in it.
    pub fn skip_past(&self, offset: Offset) -> Offset {
        if (self.gap.from..self.gap.to).contains(&offset) {
            self.gap.to
        } else {
            offset
        }
    }

    /// How much that is.
    pub fn dropped(&self) -> Dropped {
        Dropped {
            bytes: self.gap.to.saturating_sub(self.gap.from),
            lines: self.lines,
        }
    }
}

/// What the file of an attempt's hole is called.
pub fn file_name(job: JobNumber, attempt: u32) -> String {
    format!("{job}.{attempt}.hole")
}

/// What it is called while it is written.
pub fn draft_name(job: JobNumber, attempt: u32) -> String {
    format!("{}.draft", file_name(job, attempt))
}

/// Makes both files of an attempt's hole, saying that there is none: whatever is dropped later is
/// written into what they take now, without another inode or block. Once done, there is nothing to do.
///
/// # Errors
///
/// There is no room for them, or the disk is not well.
pub fn prepare(spool: impl AsFd, job: JobNumber, attempt: u32) -> io::Result<()> {
    for name in [file_name(job, attempt), draft_name(job, attempt)] {
        let file = open(&spool, &name)?;
        if file.metadata()?.len() < RECORD_BYTES as u64 {
            file.write_all_at(&[0; RECORD_BYTES], 0)?;
        }
    }
    Ok(())
}

/// Writes an attempt's hole down in the directory `spool`, in place of the one before, synced but
/// for the directory.
///
/// # Errors
///
/// One of the steps failed; what stood there stands there.
pub fn write(
    spool: impl AsFd,
    job: JobNumber,
    attempt: u32,
    range: &DroppedRange,
) -> io::Result<()> {
    draft(&spool, job, attempt, range)?.sync_data()?;
    publish(spool, job, attempt)
}

/// Writes a hole into the draft, for [`publish`]; it is not synced.
///
/// # Errors
///
/// It cannot be written.
pub fn draft(
    spool: impl AsFd,
    job: JobNumber,
    attempt: u32,
    range: &DroppedRange,
) -> io::Result<File> {
    let mut bytes = record(range)?;
    // Of one length: nothing of a longer one may stand behind it, and it needs no other block.
    bytes.resize(bytes.len().max(RECORD_BYTES), 0);
    let file = open(spool, &draft_name(job, attempt))?;
    file.write_all_at(&bytes, 0)?;
    Ok(file)
}

/// What the draft says holds from now on. The file that held until now is the next draft.
///
/// # Errors
///
/// What stood there stands there.
pub fn publish(spool: impl AsFd, job: JobNumber, attempt: u32) -> io::Result<()> {
    let (name, draft) = (file_name(job, attempt), draft_name(job, attempt));
    let exchanged = renameat_with(&spool, &draft, &spool, &name, RenameFlags::EXCHANGE);
    match exchanged {
        // Nothing to exchange it with, or a file system that cannot: then the draft is used up.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            Ok(renameat(&spool, &draft, &spool, &name)?)
        }
        other => Ok(other?),
    }
}

/// The files of an attempt's hole that are there, the one that is read last. Blocking.
pub fn files(spool: &Path, job: JobNumber, attempt: u32) -> Vec<String> {
    let names = [draft_name(job, attempt), file_name(job, attempt)];
    let is_there = |name: &String| {
        // Where it cannot be looked at, it is unlinked as well: a name too many does no harm.
        let looked = fs::symlink_metadata(spool.join(name));
        !matches!(looked, Err(error) if error.kind() == io::ErrorKind::NotFound)
    };
    names.into_iter().filter(is_there).collect()
}

fn open(spool: impl AsFd, name: &str) -> io::Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(openat(spool, name, flags, mode)?.into())
}

fn record(range: &DroppedRange) -> io::Result<Vec<u8>> {
    let header = RecordHeader {
        kind: RecordKind::Gap,
        stream: Stream::Stdout,
        offset: range.gap.from,
        wall_us: 0,
        boottime_us: 0,
    };
    Ok(record::encode(&header, &serde_json::to_vec(range)?))
}

/// The hole in an attempt's output, if there is one: a file of zeros says that there is none. One
/// that says nothing else counts as none, too: it is replaced as a whole, so that only damage makes
/// one. Blocking.
pub fn read(spool: &Path, job: JobNumber, attempt: u32) -> io::Result<Option<DroppedRange>> {
    let path = spool.join(file_name(job, attempt));
    let mut bytes = Vec::new();
    for _ in 0..READS_MAX {
        let Some(inode) = load(&path, &mut bytes)? else {
            return Ok(None);
        };
        // Since it was opened it may have become the draft, and half of another.
        match fs::symlink_metadata(&path) {
            Ok(now) if now.ino() == inode => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    parse(&bytes, job, attempt)
}

/// Reads a whole file; its inode, where it is there.
fn load(path: &Path, bytes: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let mut file = match safe_file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    bytes.clear();
    file.read_to_end(bytes)?;
    Ok(Some(file.metadata()?.ino()))
}

fn parse(bytes: &[u8], job: JobNumber, attempt: u32) -> io::Result<Option<DroppedRange>> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    match record::decode(bytes) {
        Decoded::Record(header, payload, _) if header.kind == RecordKind::Gap => {
            Ok(Some(serde_json::from_slice(payload)?))
        }
        _ => {
            tracing::error!(job, attempt, "the file of a hole is damaged");
            Ok(None)
        }
    }
}

/// The attempt's segments that are there, in order. Lists the directory: blocking.
pub fn segments(spool: &Path, job: JobNumber, attempt: u32) -> io::Result<Vec<SegmentName>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(spool)? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(SegmentName::parse);
        names.extend(name.filter(|name| (name.job, name.attempt) == (job, attempt)));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::GapReason;

    const RANGE: DroppedRange = DroppedRange {
        gap: Gap {
            from: 10,
            to: 30,
            reason: GapReason::DropOldest,
        },
        lines: 3,
    };

    #[test]
    fn output_goes_on_behind_a_hole() {
        for (offset, expected) in [(0, 0), (9, 9), (10, 30), (29, 30), (30, 30), (31, 31)] {
            assert_eq!(RANGE.skip_past(offset), expected, "{offset}");
        }
    }

    #[test]
    fn the_newest_hole_is_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = File::open(dir.path()).expect("open");
        assert_eq!(read(dir.path(), 7, 1).expect("read"), None);
        let mut wider = RANGE;
        wider.gap.to = 50;
        for range in [RANGE, wider] {
            write(&spool, 7, 1, &range).expect("write");
            assert_eq!(read(dir.path(), 7, 1).expect("read"), Some(range));
        }
        assert_eq!(read(dir.path(), 7, 2).expect("read"), None);
    }

    #[test]
    fn prepared_it_takes_nothing_more_from_the_disk() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = File::open(dir.path()).expect("open");
        let inodes = || {
            let mut inodes: Vec<u64> = fs::read_dir(dir.path())
                .expect("listed")
                .map(|entry| entry.expect("an entry").metadata().expect("it").ino())
                .collect();
            inodes.sort_unstable();
            inodes
        };
        for _ in 0..2 {
            prepare(&spool, 7, 1).expect("prepare");
            assert_eq!(read(dir.path(), 7, 1).expect("read"), None);
        }
        let before = inodes();
        assert_eq!(before.len(), 2);
        let mut range = RANGE;
        for to in [50, 30, 4_000_000_000] {
            range.gap.to = to;
            write(&spool, 7, 1, &range).expect("write");
            assert_eq!(read(dir.path(), 7, 1).expect("read"), Some(range));
            prepare(&spool, 7, 1).expect("prepare");
            assert_eq!(
                (inodes(), files(dir.path(), 7, 1).len()),
                (before.clone(), 2)
            );
        }
        assert_eq!(files(dir.path(), 7, 2), Vec::<String>::new());
    }

    #[test]
    fn a_reader_finds_a_whole_one_while_it_is_replaced() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = File::open(dir.path()).expect("open");
        prepare(&spool, 7, 1).expect("prepare");
        write(&spool, 7, 1, &RANGE).expect("write");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut range = RANGE;
                for lines in 0..2000 {
                    range.lines = lines;
                    draft(&spool, 7, 1, &range).expect("draft");
                    publish(&spool, 7, 1).expect("publish");
                }
            });
            while !writer.is_finished() {
                assert!(read(dir.path(), 7, 1).expect("read").is_some());
            }
        });
    }

    #[test]
    fn torn_at_every_byte_it_is_no_hole() {
        let dir = tempfile::tempdir().expect("tempdir");
        let bytes = record(&RANGE).expect("a record");
        for cut in 0..bytes.len() {
            fs::write(dir.path().join(file_name(7, 1)), &bytes[..cut]).expect("write");
            assert_eq!(read(dir.path(), 7, 1).expect("read"), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_gap_record_may_say_how_many_lines() {
        let json = serde_json::to_vec(&RANGE).expect("json");
        let gap: Gap = serde_json::from_slice(&json).expect("a gap");
        assert_eq!(gap, RANGE.gap);
    }
}
