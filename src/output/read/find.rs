//! Finds the record that holds a byte in an attempt's segments, also where the middle of the output
//! was dropped.
//!
//! `log` finds the attempt and the rows first. All functions here block.

use std::{io, path::Path};

use super::segments::scan_end;
use crate::{
    job::{Dropped, Gap, Job, Offset},
    spool::{DroppedRange, Position, SegmentName, SegmentReader, dropped_range},
};

/// How often a search is repeated when the shim drops segments while it runs.
const TRIES_MAX: u32 = 8;

/// Where a byte is.
#[derive(Debug)]
pub(super) enum ByteLocation {
    /// In the record that begins here.
    At(Position),
    /// It was dropped, as was all of this gap. The output goes on at the beginning of this segment.
    Dropped(Gap, SegmentName),
    /// The segment is not there, and no dropped range covers it.
    Missing,
}

/// Finds the byte at `offset`, which is in the segment `name` or in one that follows.
pub(super) fn find(spool: &Path, name: SegmentName, offset: Offset) -> io::Result<ByteLocation> {
    for _ in 0..TRIES_MAX {
        // Look at the dropped range first: a seal before it names a segment that is gone.
        let dropped = dropped_range::read(spool, name.job, name.attempt)?;
        let found = match dropped.filter(|range| range.gap.from <= offset) {
            Some(range) => find_around(spool, name, &range, offset)?,
            None => open_at(spool, name, offset)?.map(ByteLocation::At),
        };
        match found {
            Some(found) => return Ok(found),
            None if dropped.is_none() => break,
            None => {}
        }
    }
    Ok(ByteLocation::Missing)
}

/// The same for a byte in the dropped range or after it. `None`: the range has grown meanwhile.
fn find_around(
    spool: &Path,
    name: SegmentName,
    range: &DroppedRange,
    offset: Offset,
) -> io::Result<Option<ByteLocation>> {
    let first_offset = range.skip_past(offset);
    if first_offset > offset {
        let next = SegmentName {
            first_offset,
            ..name
        };
        let gap = Gap {
            from: offset,
            ..range.gap
        };
        let is_there = open_at(spool, next, first_offset)?.is_some();
        return Ok(is_there.then_some(ByteLocation::Dropped(gap, next)));
    }
    let kept = dropped_range::segments(spool, name.job, name.attempt)?;
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

/// How far the output of an open attempt reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenEnd {
    /// The current end of its output.
    pub offset: Offset,
    /// What its dropped range says was dropped.
    pub dropped: Dropped,
}

impl OpenEnd {
    /// Brings a job up to date whose row was written before.
    pub fn apply_to(self, job: &mut Job) {
        job.output_bytes = job.output_bytes.max(self.offset);
        job.dropped_bytes += self.dropped.bytes;
        job.dropped_lines += self.dropped.lines;
    }
}

/// The current end of an attempt's output, searched from its segment `name` on. `NotFound` where
/// that segment is not there and was not dropped.
pub(super) fn find_end(spool: &Path, name: SegmentName) -> io::Result<OpenEnd> {
    for _ in 0..TRIES_MAX {
        // After a dropped range, begin at the newest segment instead of following all seals.
        let dropped = dropped_range::read(spool, name.job, name.attempt)?;
        let from = match dropped {
            Some(_) => dropped_range::segments(spool, name.job, name.attempt)?.pop(),
            None => Some(name),
        };
        match from.map(|from| scan_end(spool, from)) {
            // Not there, or dropped on the way from seal to seal: the range says so by now.
            Some(Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
            Some(end) => {
                let dropped = dropped.map(|range| range.dropped()).unwrap_or_default();
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
