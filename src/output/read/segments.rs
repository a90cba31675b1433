//! Reads output from segments, and follows their seals to the next segment.
//!
//! `log` decides which segment is read, and where the output goes on after an attempt.

use std::{io, path::Path};

use super::item::{Item, ReadBatch, ReadError, lost};
use crate::{
    job::{Chunk, Micros, Offset},
    spool::{
        Position, RecordHeader, RecordKind, SegmentName, SegmentReader,
        reader::{DiskWait, NextRecord, output_length},
    },
    sys::descriptors::is_shortage,
};

/// A read of at least this many bytes returns whole records, so that no byte is read twice. A
/// smaller read may return a part of a record.
const WHOLE_BYTES_MIN: usize = 32 << 10;

/// What to read from a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentRead {
    pub(super) position: Position,
    /// Where the segment ends; `None` while it may grow.
    pub(super) end: Option<Offset>,
    /// The first byte that is wanted.
    pub(super) offset: Offset,
    pub(super) max_bytes: usize,
}

/// What a read of a segment found.
pub(super) enum SegmentPiece {
    /// The file is not there any more: its bytes are elsewhere.
    Gone,
    /// The end of the segment or of the attempt was reached.
    Over(ReadBatch),
    /// The next read goes on at this position, in a segment with this end.
    More(ReadBatch, Position, Option<Offset>),
}

pub(super) fn read_records(
    spool: &Path,
    read: SegmentRead,
    disk_wait: DiskWait,
) -> Result<SegmentPiece, ReadError> {
    let SegmentRead {
        position,
        end,
        mut offset,
        max_bytes,
    } = read;
    let mut batch = ReadBatch::default();
    let mut budget = max_bytes;
    let mut reader = match SegmentReader::open_with(spool, position, disk_wait) {
        Ok(reader) => reader,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(SegmentPiece::Gone),
        Err(e) => return cannot_be_read(e, batch, position.segment, end, offset),
    };
    loop {
        if end.is_some_and(|end| offset >= end) {
            return Ok(SegmentPiece::Over(batch));
        }
        if budget == 0 {
            return Ok(SegmentPiece::More(batch, reader.position(), end));
        }
        let before = reader.position();
        let name = before.segment;
        let next = match reader.next_record() {
            Ok(next) => next,
            Err(e) => return cannot_be_read(e, batch, name, end, offset),
        };
        match next {
            NextRecord::Record(header, payload) => match item(name, &header, payload) {
                Some(item) => {
                    if let Some(mut item) = item.from(offset) {
                        batch.boottime_us = Some(header.boottime_us);
                        if max_bytes < WHOLE_BYTES_MIN && item.cut(budget) {
                            batch.items.push(item);
                            return Ok(SegmentPiece::More(batch, before, end));
                        }
                        offset = item.next_offset();
                        budget = budget.saturating_sub(payload.len() + Chunk::OVERHEAD_BYTES);
                        batch.items.push(item);
                    }
                }
                None if header.kind == RecordKind::Seal => {
                    let next = SegmentName {
                        first_offset: header.offset,
                        ..name
                    };
                    // The next read opens the segment that follows.
                    return Ok(SegmentPiece::More(batch, Position::first(next), None));
                }
                None if header.kind == RecordKind::Exit => {
                    batch.at_end = true;
                    return Ok(SegmentPiece::Over(batch));
                }
                None => {}
            },
            NextRecord::End | NextRecord::Damaged => {
                return Ok(no_record(batch, reader.position(), end, offset));
            }
        }
    }
}

/// No whole record follows at `offset`. A complete segment does not grow, and after damage it is unknown
/// where the next record begins.
fn no_record(
    mut batch: ReadBatch,
    at: Position,
    end: Option<Offset>,
    offset: Offset,
) -> SegmentPiece {
    let Some(end) = end else {
        batch.at_end = true;
        return SegmentPiece::More(batch, at, None);
    };
    tracing::error!(segment = %at.segment, from = offset, to = end, "a segment is damaged");
    batch.items.push(lost(offset, end));
    SegmentPiece::Over(batch)
}

/// The file at `offset` cannot be read, or is not the segment that the store has a row for. Whatever the
/// cause: where the end of the segment is known, the output goes on after it.
fn cannot_be_read(
    error: io::Error,
    mut batch: ReadBatch,
    segment: SegmentName,
    end: Option<Offset>,
    offset: Offset,
) -> Result<SegmentPiece, ReadError> {
    let Some(end) = end.filter(|_| !is_shortage(&error)) else {
        return Err(error.into());
    };
    let gap = unreadable(segment, (offset, end), &error);
    batch.items.push(gap);
    Ok(SegmentPiece::Over(batch))
}

/// The gap in the place of bytes that cannot be read, which the log reports.
pub(super) fn unreadable(
    segment: SegmentName,
    (from, to): (Offset, Offset),
    error: &io::Error,
) -> Item {
    tracing::error!(%segment, from, to, %error, "a segment cannot be read");
    lost(from, to)
}

/// The end of an attempt's output, found by following the seals from `first`: as far as the segments can
/// be read. Blocking.
pub(super) fn scan_end(spool: &Path, first: SegmentName) -> io::Result<Offset> {
    let mut end = first.first_offset;
    match scan_to_end(spool, first, &mut end) {
        // It may have moved, or be readable in a moment.
        Err(e) if e.kind() == io::ErrorKind::NotFound || is_shortage(&e) => Err(e),
        Err(error) => {
            tracing::warn!(segment = %first, end, %error, "the end of an output cannot be read");
            Ok(end)
        }
        Ok(()) => Ok(end),
    }
}

/// Moves `end` to the end of the last record that can be read.
fn scan_to_end(spool: &Path, first: SegmentName, end: &mut Offset) -> io::Result<()> {
    let mut reader = SegmentReader::open(spool, Position::first(first))?;
    loop {
        let name = reader.position().segment;
        let NextRecord::Record(header, payload) = reader.next_record()? else {
            return Ok(());
        };
        *end = header.offset + output_length(&header, payload);
        if header.kind == RecordKind::Seal {
            let next = SegmentName {
                first_offset: header.offset,
                ..name
            };
            reader = SegmentReader::open(spool, Position::first(next))?;
        }
    }
}

/// The output that a record holds; `None` for the kinds that hold none.
pub(in crate::output) fn item(
    name: SegmentName,
    header: &RecordHeader,
    payload: &[u8],
) -> Option<Item> {
    match header.kind {
        RecordKind::Output => Some(Item::Chunk(Chunk {
            offset: header.offset,
            stream: header.stream,
            attempt: name.attempt,
            at: Micros(header.wall_us),
            data: payload.to_vec(),
        })),
        RecordKind::Gap => serde_json::from_slice(payload).ok().map(Item::Gap),
        RecordKind::Intent | RecordKind::Start | RecordKind::Seal | RecordKind::Exit => None,
    }
}
