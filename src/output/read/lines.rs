//! Finds where the last lines of an output begin.
//!
//! It goes backwards part by part. What a segment holds is counted in its row, so that of a long output
//! only the segment is read in which the lines begin, and the last one that has bytes.

use super::{
    item::{Item, ReadError},
    log::{Cursor, Log},
};
use crate::{
    job::{JobNumber, Offset, Stream, StreamCounts},
    store::{CountedSegment, Stored},
};

/// How much is read at once, bytes.
const READ_BYTES: usize = 256 << 10;
/// Rows of small outputs are examined in parts of this length, bytes.
const ROWS_BYTES: u64 = 256 << 10;
/// How many rows of segments are read at once.
const SEGMENTS_READ: u32 = 256;

/// The offset at which the last `lines` lines before `end` begin. A last line without a newline
/// counts as one. With `streams`, only lines of those count.
pub async fn last_lines(
    log: &Log,
    job: JobNumber,
    end: Offset,
    lines: u64,
    streams: Option<&[Stream]>,
) -> Result<Offset, ReadError> {
    if lines == 0 {
        return Ok(end);
    }
    let mut search = LastLinesSearch {
        log,
        job,
        streams,
        missing: lines,
        last_byte_seen: false,
        end,
    };
    while search.end > 0 {
        if let Some(begin) = search.step().await? {
            return Ok(begin);
        }
    }
    Ok(0)
}

/// A search in progress.
struct LastLinesSearch<'a> {
    log: &'a Log,
    job: JobNumber,
    streams: Option<&'a [Stream]>,
    /// How many more newlines are wanted.
    missing: u64,
    /// Whether the last byte of the output was met: no line begins after a newline that is that byte.
    last_byte_seen: bool,
    /// Everything from here on was examined.
    end: Offset,
}

/// What a part of the output has of the wanted streams.
#[derive(Debug, Default)]
struct PartLines {
    newlines: u64,
    last_byte: Option<u8>,
}

impl LastLinesSearch<'_> {
    /// Examines what comes before `end`; returns where the lines begin if that is found.
    async fn step(&mut self) -> Result<Option<Offset>, ReadError> {
        let last = self.end - 1;
        // A dropped range can be much longer than all that is kept.
        if let Some(start) = self.log.gap_start(self.job, last).await? {
            self.end = start;
            return Ok(None);
        }
        match self.log.store().stored(self.job, last, 1).await? {
            Stored::Rows(_) => self.examine(self.end.saturating_sub(ROWS_BYTES)).await,
            Stored::Segment(_) => self.pass_segments().await,
            // The segments of a running attempt that have no rows yet are few.
            Stored::Open(Some(open)) if open.first_offset < self.end => {
                self.examine(open.first_offset).await
            }
            Stored::Open(_) => self.examine(self.end.saturating_sub(ROWS_BYTES)).await,
        }
    }

    /// Goes back over segments by their counts, up to one that must be read.
    async fn pass_segments(&mut self) -> Result<Option<Offset>, ReadError> {
        let store = self.log.store();
        let segments = store.segments_before(self.job, self.end, SEGMENTS_READ);
        for segment in segments.await? {
            if segment.end_offset < self.end {
                // Something else lies in between.
                return Ok(None);
            }
            match self.newlines_to_pass(&segment) {
                Some(newlines) => {
                    self.missing -= newlines;
                    self.end = segment.first_offset;
                }
                None => {
                    if let Some(begin) = self.examine(segment.first_offset).await? {
                        return Ok(Some(begin));
                    }
                }
            }
        }
        Ok(None)
    }

    /// How many newlines a segment has, if it need not be read.
    fn newlines_to_pass(&self, segment: &CountedSegment) -> Option<u64> {
        let counts = segment.counts.filter(|_| segment.end_offset == self.end)?;
        match StreamCounts::of(&counts, self.streams) {
            (0, _) => Some(0),
            (_, newlines) => (self.last_byte_seen && newlines < self.missing).then_some(newlines),
        }
    }

    /// Reads the part from `from` on; if the lines begin in it, reads up to there again, so that no
    /// more than a batch is in memory.
    async fn examine(&mut self, from: Offset) -> Result<Option<Offset>, ReadError> {
        let mut part = PartLines::default();
        self.read(from, |_, data| {
            part.newlines += memchr::memchr_iter(b'\n', data).count() as u64;
            part.last_byte = data.last().copied().or(part.last_byte);
            None
        })
        .await?;
        let mut newlines = part.newlines;
        if !self.last_byte_seen && part.last_byte == Some(b'\n') {
            newlines -= 1;
        }
        if newlines >= self.missing {
            let mut before = newlines - self.missing;
            let begin = self.read(from, |offset, data| nth_line(&mut before, offset, data));
            // The job may be deleted meanwhile; then there is nothing before either.
            let begin = begin.await?.unwrap_or(from);
            return Ok(Some(begin));
        }
        self.missing -= newlines;
        self.last_byte_seen |= part.last_byte.is_some();
        self.end = from;
        Ok(None)
    }

    /// Gives the wanted streams' bytes from `from` to the end to `look`, until that returns something.
    async fn read(
        &self,
        from: Offset,
        mut look: impl FnMut(Offset, &[u8]) -> Option<Offset>,
    ) -> Result<Option<Offset>, ReadError> {
        let mut cursor = Cursor::new(from);
        while cursor.offset < self.end {
            let batch = self.log.read(self.job, &mut cursor, READ_BYTES).await?;
            for item in batch.items {
                let Item::Chunk(chunk) = item else { continue };
                if chunk.offset >= self.end {
                    return Ok(None);
                }
                let length = chunk.data.len().min((self.end - chunk.offset) as usize);
                let is_wanted = self.streams.is_none_or(|s| s.contains(&chunk.stream));
                if is_wanted && let Some(found) = look(chunk.offset, &chunk.data[..length]) {
                    return Ok(Some(found));
                }
            }
            if batch.at_end {
                break;
            }
        }
        Ok(None)
    }
}

/// Passes `before` newlines; returns the offset after the next one, if it is in `data`.
fn nth_line(before: &mut u64, offset: Offset, data: &[u8]) -> Option<Offset> {
    for at in memchr::memchr_iter(b'\n', data) {
        if *before == 0 {
            return Some(offset + at as u64 + 1);
        }
        *before -= 1;
    }
    None
}
