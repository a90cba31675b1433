//! Reads the whole output of a finished attempt from its segment if it is small enough to become
//! rows.

use std::{io, path::Path};

use super::{item::Item, segments::item};
use crate::{
    job::{Chunk, Gap, Offset},
    spool::{Position, RecordKind, SegmentName, SegmentReader, reader::NextRecord},
};

/// Most records that become rows: an output with more of them stays a segment, whatever its length.
pub const ROWS_MAX: usize = 4096;

/// The output of an attempt that fits into rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Bytes, in offset order.
    pub chunks: Vec<Chunk>,
    /// Missing bytes, in offset order.
    pub gaps: Vec<Gap>,
}

impl Collected {
    /// The end of the output of an attempt that began at `start`.
    pub fn end(&self, start: Offset) -> Offset {
        let chunk = self.chunks.last().map_or(start, Chunk::next_offset);
        self.gaps.last().map_or(chunk, |gap| gap.to.max(chunk))
    }

    /// All chunks and gaps in offset order.
    pub fn items(&self) -> Vec<Item> {
        let mut items: Vec<Item> = self.chunks.iter().cloned().map(Item::Chunk).collect();
        items.extend(self.gaps.iter().copied().map(Item::Gap));
        items.sort_by_key(|item| match item {
            Item::Chunk(chunk) => chunk.offset,
            Item::Gap(gap) => gap.from,
        });
        items
    }
}

/// Reads the attempt whose first segment is `name`, as far as it has whole records. `None` where
/// it has more than one segment, more than `bytes_max` bytes or more than [`ROWS_MAX`] records.
/// Blocking.
pub fn collect(spool: &Path, name: SegmentName, bytes_max: u64) -> io::Result<Option<Collected>> {
    let mut all = Collected::default();
    let mut bytes = 0;
    let mut reader = SegmentReader::open(spool, Position::first(name))?;
    loop {
        let NextRecord::Record(header, payload) = reader.next_record()? else {
            return Ok(Some(all));
        };
        match item(name, &header, payload) {
            Some(Item::Chunk(chunk)) => {
                bytes += chunk.data.len() as u64;
                all.chunks.push(chunk);
            }
            Some(Item::Gap(gap)) => all.gaps.push(gap),
            None if header.kind == RecordKind::Seal => return Ok(None),
            None if header.kind == RecordKind::Exit => return Ok(Some(all)),
            None => {}
        }
        if bytes > bytes_max || all.chunks.len() + all.gaps.len() > ROWS_MAX {
            return Ok(None);
        }
    }
}
