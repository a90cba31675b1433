//! The range that was dropped from one attempt's output: from which byte to which, and how many
//! line ends. The shim writes it, `output` and `supervisor` read it.
//!
//! If the end was dropped (`drop_newest`), it is the payload of a gap record. If the middle was
//! dropped (`drop_oldest`), it is in a small file of its own beside the segments, which is replaced
//! as a whole before any segment is unlinked: a reader that misses a segment finds there how far
//! the range reaches. Where that file says that bytes are dropped, they are, even if a kill has
//! left their segments. There are two such files, which are exchanged, so that a full disk does not
//! prevent dropping.

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

/// Length of both files, bytes: more than any record takes.
const RECORD_BYTES: usize = 512;

/// How many times a reader tries again while the file is being replaced.
const READS_MAX: u32 = 8;

/// One range of bytes that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRange {
    /// From which offset to which, and why.
    #[serde(flatten)]
    pub gap: Gap,
    /// How many line ends were among the bytes.
    pub lines: u64,
}

impl DroppedRange {
    /// The offset at which output continues for a reader at `offset`: the end of the range, if the
    /// offset is in it.
    pub fn skip_past(&self, offset: Offset) -> Offset {
        if (self.gap.from..self.gap.to).contains(&offset) {
            self.gap.to
        } else {
            offset
        }
    }

    /// How many bytes and lines were dropped.
    pub fn dropped(&self) -> Dropped {
        Dropped {
            bytes: self.gap.to.saturating_sub(self.gap.from),
            lines: self.lines,
        }
    }
}

/// File name of an attempt's dropped range.
pub fn file_name(job: JobNumber, attempt: u32) -> String {
    format!("{job}.{attempt}.hole")
}

/// File name of its draft, which is written before it takes the place of the file.
pub fn draft_name(job: JobNumber, attempt: u32) -> String {
    format!("{}.draft", file_name(job, attempt))
}

/// Creates both files of an attempt's dropped range, both saying that there is none. Later ranges
/// are written into the space that they take now, without another inode or block. Does nothing
/// where that is done.
///
/// # Errors
///
/// The disk is full or returns an error.
pub fn prepare(spool: impl AsFd, job: JobNumber, attempt: u32) -> io::Result<()> {
    for name in [file_name(job, attempt), draft_name(job, attempt)] {
        let file = open(&spool, &name)?;
        if file.metadata()?.len() < RECORD_BYTES as u64 {
            file.write_all_at(&[0; RECORD_BYTES], 0)?;
        }
    }
    Ok(())
}

/// Writes an attempt's dropped range in the directory `spool`, in place of the one before. All but
/// the directory is synced.
///
/// # Errors
///
/// One of the steps failed; the file before is unchanged.
pub fn write(
    spool: impl AsFd,
    job: JobNumber,
    attempt: u32,
    range: &DroppedRange,
) -> io::Result<()> {
    draft(&spool, job, attempt, range)?.sync_data()?;
    publish(spool, job, attempt)
}

/// Writes a range into the draft, for [`publish`]; it is not synced.
///
/// # Errors
///
/// The draft cannot be opened or written.
pub fn draft(
    spool: impl AsFd,
    job: JobNumber,
    attempt: u32,
    range: &DroppedRange,
) -> io::Result<File> {
    let mut bytes = record(range)?;
    // Always the same length: no rest of a longer record stays, and no other block is needed.
    bytes.resize(bytes.len().max(RECORD_BYTES), 0);
    let file = open(spool, &draft_name(job, attempt))?;
    file.write_all_at(&bytes, 0)?;
    Ok(file)
}

/// Makes the draft the valid file. The file before becomes the next draft.
///
/// # Errors
///
/// The rename failed; the file before is unchanged.
pub fn publish(spool: impl AsFd, job: JobNumber, attempt: u32) -> io::Result<()> {
    let (name, draft) = (file_name(job, attempt), draft_name(job, attempt));
    let exchanged = renameat_with(&spool, &draft, &spool, &name, RenameFlags::EXCHANGE);
    match exchanged {
        // There is no file to exchange it with, or the file system cannot exchange: then the draft
        // is renamed.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            Ok(renameat(&spool, &draft, &spool, &name)?)
        }
        other => Ok(other?),
    }
}

/// The names of the files of an attempt's dropped range that exist; the file that readers read
/// comes last. Blocking.
pub fn files(spool: &Path, job: JobNumber, attempt: u32) -> Vec<String> {
    let names = [draft_name(job, attempt), file_name(job, attempt)];
    let is_there = |name: &String| {
        // If it cannot be looked at, its name is returned as well: unlinking a missing file does no
        // harm.
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

/// The dropped range of an attempt, if there is one: a file of zeros says that there is none. A
/// file with other contents counts as none, too: because it is replaced as a whole, only damage can
/// produce one. Blocking.
pub fn read(spool: &Path, job: JobNumber, attempt: u32) -> io::Result<Option<DroppedRange>> {
    let path = spool.join(file_name(job, attempt));
    let mut bytes = Vec::new();
    for _ in 0..READS_MAX {
        let Some(inode) = load(&path, &mut bytes)? else {
            return Ok(None);
        };
        // Since it was opened it may have become the draft, and may be half overwritten.
        match fs::symlink_metadata(&path) {
            Ok(now) if now.ino() == inode => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    parse(&bytes, job, attempt)
}

/// Reads a whole file; returns its inode, or `None` where it does not exist.
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
            tracing::error!(
                job,
                attempt,
                "the file of its dropped range is damaged and is ignored"
            );
            Ok(None)
        }
    }
}

/// The segments of an attempt that exist, in order. Lists the directory: blocking.
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
    fn output_goes_on_after_a_dropped_range() {
        for (offset, expected) in [(0, 0), (9, 9), (10, 30), (29, 30), (30, 30), (31, 31)] {
            assert_eq!(RANGE.skip_past(offset), expected, "{offset}");
        }
    }

    #[test]
    fn the_newest_dropped_range_is_read() {
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
    fn torn_at_every_byte_it_is_no_dropped_range() {
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
