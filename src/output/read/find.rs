//! Finds the place of a byte in an attempt's segments, and around the hole that dropping leaves in
//! them.
//!
//! Which attempt a byte belongs to, and where its rows are, is `log`'s business. All of it blocks.

use std::{io, path::Path};

use super::segments::scan_end;
use crate::{
    job::{Dropped, Gap, Job, Offset},
    spool::{DroppedRange, Position, SegmentName, SegmentReader, hole},
};

/// How often is looked again for what was dropped between two looks.
const LOOKS_MAX: u32 = 8;

/// Where a byte is.
#[derive(Debug)]
pub(super) enum ByteLocation {
    /// In the record that begins here.
    At(Position),
    /// Nowhere: it was dropped, as was all of this gap. What follows begins this segment.
    Dropped(Gap, SegmentName),
    /// The segment is not there, and nothing says that it was dropped.
    Missing,
}

/// Finds the byte at `offset`, which is in the segment `name` or in one that follows.
pub(super) fn find(spool: &Path, name: SegmentName, offset: Offset) -> io::Result<ByteLocation> {
    for _ in 0..LOOKS_MAX {
        // The hole first: the seals before it lead nowhere any more.
        let hole = hole::read(spool, name.job, name.attempt)?;
        let found = match hole.filter(|hole| hole.gap.from <= offset) {
            Some(hole) => find_around(spool, name, &hole, offset)?,
            None => open_at(spool, name, offset)?.map(ByteLocation::At),
        };
        match found {
            Some(found) => return Ok(found),
            None if hole.is_none() => break,
            None => {}
        }
    }
    Ok(ByteLocation::Missing)
}

/// The same for a byte in the hole or behind it. `None`: what the hole said is not true any more.
fn find_around(
    spool: &Path,
    name: SegmentName,
    hole: &DroppedRange,
    offset: Offset,
) -> io::Result<Option<ByteLocation>> {
    let first_offset = hole.behind(offset);
    if first_offset > offset {
        let next = SegmentName {
            first_offset,
            ..name
        };
        let gap = Gap {
            from: offset,
            ..hole.gap
        };
        let is_there = open_at(spool, next, first_offset)?.is_some();
        return Ok(is_there.then_some(ByteLocation::Dropped(gap, next)));
    }
    let kept = hole::segments(spool, name.job, name.attempt)?;
    let holder = kept.into_iter().rfind(|kept| kept.first_offset <= offset);
    match holder {
        Some(holder) => Ok(open_at(spool, holder, offset)?.map(ByteLocation::At)),
        None => Ok(None),
    }
}

fn open_at(spool: &Path, name: SegmentName, offset: Offset) -> io::Result<Option<Position>> {
    let mut reader = match SegmentReader::open(spool, Position::first(name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        reader => reader?,
    };
    reader.skip_to(offset)?;
    Ok(Some(reader.position()))
}

/// How far an open attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenEnd {
    /// The end of its output as it stands.
    pub offset: Offset,
    /// What is known to have been dropped of it.
    pub dropped: Dropped,
}

impl OpenEnd {
    /// Tells it in the view of the job, whose row knows less.
    pub fn tell(self, job: &mut Job) {
        job.output_bytes = job.output_bytes.max(self.offset);
        job.dropped_bytes += self.dropped.bytes;
        job.dropped_lines += self.dropped.lines;
    }
}

/// The end of an attempt's output as it stands, from one of its segments on. `NotFound` where that
/// is not there and was not dropped.
pub(super) fn find_end(spool: &Path, name: SegmentName) -> io::Result<OpenEnd> {
    for _ in 0..LOOKS_MAX {
        // Behind a hole the newest segment tells, without the way through all that are kept.
        let hole = hole::read(spool, name.job, name.attempt)?;
        let from = match hole {
            Some(_) => hole::segments(spool, name.job, name.attempt)?.pop(),
            None => Some(name),
        };
        match from.map(|from| scan_end(spool, from)) {
            // Not there, or dropped on the way from seal to seal: then there is a hole by now.
            Some(Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
            Some(end) => {
                let dropped = hole.map(|hole| hole.dropped()).unwrap_or_default();
                return Ok(OpenEnd {
                    offset: end?,
                    dropped,
                });
            }
            None => {}
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
