//! The buffer in which output becomes a frame: bytes are read directly after the space for their
//! header, so that nothing is copied.

use crate::{
    job::{Offset, Stream},
    shim::timestamps,
    spool::{
        RecordHeader, RecordKind,
        record::{self, HEADER_BYTES},
    },
};

/// How many output bytes a record holds at most, and a read takes at most.
pub const READ_BYTES: usize = 64 << 10;

/// Space for one frame: the header lies directly before the payload, so that one write writes both.
/// Lasts from one attempt to the next.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Length of the frame that waits to be written, bytes; 0: none.
    waiting: usize,
}

impl FrameBuffer {
    /// The space for a payload. A frame that waits is discarded.
    pub fn space(&mut self) -> &mut [u8] {
        self.waiting = 0;
        self.bytes.resize(HEADER_BYTES + READ_BYTES, 0);
        &mut self.bytes[HEADER_BYTES..]
    }

    /// Part of what was read into the space.
    pub fn payload(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[HEADER_BYTES..][range]
    }

    /// Discards the frame that waits.
    pub fn clear(&mut self) {
        self.waiting = 0;
    }

    /// Makes a frame of the first `length` bytes of the space; it then waits to be written.
    pub fn complete(&mut self, stream: Stream, offset: Offset, length: usize) {
        let header = header(RecordKind::Output, stream, offset);
        let payload = &self.bytes[HEADER_BYTES..HEADER_BYTES + length];
        let head = record::header_bytes(&header, payload);
        self.bytes[..HEADER_BYTES].copy_from_slice(&head);
        self.waiting = HEADER_BYTES + length;
    }

    /// The frame that waits to be written; empty where none does.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[..self.waiting]
    }
}

/// The header of a record, stamped with the current time.
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
