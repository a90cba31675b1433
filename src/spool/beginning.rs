//! How an attempt began: the first records of its first segment.

use std::{io, path::Path};

use super::{
    Position, RecordKind, SegmentName, SegmentReader, reader::NextRecord, record::StartPayload,
    segment::Intent,
};

/// The intent and the start record, as far as they are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beginning {
    /// Who took the right to start.
    pub intent: Option<Intent>,
    /// The process that was started.
    pub start: Option<StartPayload>,
}

/// Reads how the attempt whose first segment is `first` began. `NotFound` where nobody has taken
/// the right to start it. Blocking.
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
