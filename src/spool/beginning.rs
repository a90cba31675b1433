//! How an attempt began: the first records of its first segment.

use std::{io, path::Path};

use super::{
    Position, RecordKind, SegmentName, SegmentReader, reader::NextRecord, record::StartPayload,
    segment::Intent,
};

/// The intent and the start record, as far as they exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beginning {
    /// Which shim took the right to start.
    pub intent: Option<Intent>,
    /// The process that was started; `None` before a start record is written.
    pub start: Option<StartPayload>,
}

/// Reads how the attempt began whose first segment is `first`. `NotFound` where the right to start
/// it is not taken. Blocking.
pub fn read_beginning(spool: &Path, first: SegmentName) -> io::Result<Beginning> {
    let mut reader = SegmentReader::open(spool, Position::first(first))?;
    let mut beginning = Beginning::default();
    loop {
        match reader.next_record()? {
            NextRecord::Record(header, payload) if header.kind == RecordKind::Intent => {
                beginning.intent = serde_json::from_slice(payload).ok();
            }
            NextRecord::Record(header, payload) if header.kind == RecordKind::Start => {
                beginning.start = StartPayload::from_bytes(payload);
                return Ok(beginning);
            }
            _ => return Ok(beginning),
        }
    }
}
