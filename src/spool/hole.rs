//! What was dropped of one attempt's output: how many bytes where, and how many line ends. Why
//! something is dropped, and what a reader says then, is not known here.
//!
//! Dropped at the end (`drop_newest`), it is the payload of a gap record. Dropped in the middle
//! (`drop_oldest`), it stands in a small file of its own beside the segments, which is replaced as
//! a whole before any segment goes: whoever misses a segment finds there how far the hole reaches,
//! and where that file says that bytes are gone, they are, whatever a kill has left lying about.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    path::Path,
};

use nix::{
    fcntl::{OFlag, openat, renameat},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};

use super::{
    SegmentName,
    record::{self, Decoded, Kind, RecordHeader},
};
use crate::job::{Dropped, Gap, JobNumber, Offset, Stream};

/// Bytes that were dropped in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// Where, and why.
    #[serde(flatten)]
    pub gap: Gap,
    /// How many line ends were among the bytes.
    pub lines: u64,
}

impl Hole {
    /// Where output goes on that has come to `offset`: behind the hole, if that lies in it.
    pub fn behind(&self, offset: Offset) -> Offset {
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

/// Writes an attempt's hole down in the directory `spool`, in place of the one before, synced but
/// for the directory.
pub fn write(spool: impl AsFd, job: JobNumber, attempt: u32, hole: &Hole) -> io::Result<()> {
    let (name, draft) = (file_name(job, attempt), draft_name(job, attempt));
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file: File = openat(&spool, draft.as_str(), flags, mode)?.into();
    file.write_all(&record(hole)?)?;
    file.sync_data()?;
    renameat(&spool, draft.as_str(), &spool, name.as_str())?;
    Ok(())
}

fn record(hole: &Hole) -> io::Result<Vec<u8>> {
    let header = RecordHeader {
        kind: Kind::Gap,
        stream: Stream::Stdout,
        offset: hole.gap.from,
        wall_us: 0,
        boottime_us: 0,
    };
    Ok(record::encode(&header, &serde_json::to_vec(hole)?))
}

/// The hole in an attempt's output, if there is one. A file that says nothing counts as none: it
/// is replaced as a whole, so that only damage makes one. Blocking.
pub fn read(spool: &Path, job: JobNumber, attempt: u32) -> io::Result<Option<Hole>> {
    let bytes = match fs::read(spool.join(file_name(job, attempt))) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    match record::decode(&bytes) {
        Decoded::Record(header, payload, _) if header.kind == Kind::Gap => {
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

    const HOLE: Hole = Hole {
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
            assert_eq!(HOLE.behind(offset), expected, "{offset}");
        }
    }

    #[test]
    fn the_newest_hole_is_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let spool = File::open(dir.path()).expect("open");
        assert_eq!(read(dir.path(), 7, 1).expect("read"), None);
        let mut wider = HOLE;
        wider.gap.to = 50;
        for hole in [HOLE, wider] {
            write(&spool, 7, 1, &hole).expect("write");
            assert_eq!(read(dir.path(), 7, 1).expect("read"), Some(hole));
        }
        assert_eq!(read(dir.path(), 7, 2).expect("read"), None);
    }

    #[test]
    fn torn_at_every_byte_it_is_no_hole() {
        let dir = tempfile::tempdir().expect("tempdir");
        let bytes = record(&HOLE).expect("a record");
        for cut in 0..bytes.len() {
            fs::write(dir.path().join(file_name(7, 1)), &bytes[..cut]).expect("write");
            assert_eq!(read(dir.path(), 7, 1).expect("read"), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_gap_record_may_say_how_many_lines() {
        let json = serde_json::to_vec(&HOLE).expect("json");
        let gap: Gap = serde_json::from_slice(&json).expect("a gap");
        assert_eq!(gap, HOLE.gap);
    }
}
