//! The place where output becomes a frame: bytes are read behind the room for their header, so
//! that nothing is copied. Where frames go is the log's business.

use crate::{
    job::{Offset, Stream},
    shim::timestamps,
    spool::{
        RecordHeader, RecordKind,
        record::{self, HEADER_BYTES},
    },
};

/// How many output bytes a record holds at most.
pub const READ_BYTES: usize = 64 << 10;

/// Room for one frame: the header stands directly before the payload, so that one write writes
/// both. Lasts from one attempt to the next.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Length of the frame that waits to be written; 0: none.
    waiting: usize,
}

impl FrameBuffer {
    /// Where a payload may be read into. What waits there is lost.
    pub fn space(&mut self) -> &mut [u8] {
        self.waiting = 0;
        self.bytes.resize(HEADER_BYTES + READ_BYTES, 0);
        &mut self.bytes[HEADER_BYTES..]
    }

    /// What was read into a part of the space.
    pub fn payload(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[HEADER_BYTES..][range]
    }

    /// Nothing waits any more.
    pub fn clear(&mut self) {
        self.waiting = 0;
    }

    /// Makes a frame of the first `length` bytes of the space; it waits to be written.
    pub fn complete(&mut self, stream: Stream, offset: Offset, length: usize) {
        let header = header(RecordKind::Output, stream, offset);
        let payload = &self.bytes[HEADER_BYTES..HEADER_BYTES + length];
        let head = record::header_bytes(&header, payload);
        self.bytes[..HEADER_BYTES].copy_from_slice(&head);
        self.waiting = HEADER_BYTES + length;
    }

    /// The frame that waits; empty where none does.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[..self.waiting]
    }
}

/// The header of a record that is made now.
pub fn header(kind: RecordKind, stream: Stream, offset: Offset) -> RecordHeader {
    let (wall_us, boottime_us) = timestamps::now();
    RecordHeader {
        kind,
        stream,
        offset,
        wall_us,
        boottime_us,
    }
}
