//! The framing of records: a fixed header of 40 bytes, then the payload, CRC32C over both.
//!
//! All integers are little-endian:
//!
//! ```text
//!  0  u32  length of the payload, bytes
//!  4  u32  CRC32C of bytes 8.. of the header and of the payload
//!  8  u8   kind (see `RecordKind`)
//!  9  u8   stream (output records; else 0)
//! 10  u16  zero
//! 12  u32  zero
//! 16  u64  offset of the job's output at which the record stands
//! 24  i64  wall clock, µs since 1970
//! 32  u64  CLOCK_BOOTTIME, µs
//! ```
//!
//! A record exists if all of it is there and the sum is right; everything else is "not yet".
//! `segment` has the files, `reader` reads them in order.

use crate::job::{Offset, Stream};

/// Length of a record's header, bytes.
pub const HEADER_BYTES: usize = 40;

/// Longest payload, bytes. Bytes that claim a longer one are no record.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// The kind of a record, and with it the form of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// The right to start was taken; the payload is [`super::segment::Intent`] as JSON. The first
    /// record of an attempt's first segment.
    Intent = 1,
    /// The process exists; the payload is [`StartPayload`], written by the process itself.
    Start = 2,
    /// Output bytes of one stream.
    Output = 3,
    /// Bytes are missing; the payload is a [`super::DroppedRange`] as JSON.
    Gap = 4,
    /// The segment is complete; the next one begins at this record's offset and exists.
    Seal = 5,
    /// The attempt has ended; the payload is [`crate::job::ExitFacts`] as JSON. The last record of
    /// an attempt.
    Exit = 6,
}

impl RecordKind {
    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Intent,
            Self::Start,
            Self::Output,
            Self::Gap,
            Self::Seal,
            Self::Exit,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == code)
    }
}

/// A record's header, without its length and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// The kind of the record.
    pub kind: RecordKind,
    /// The stream of an output record; `Stdout` elsewhere.
    pub stream: Stream,
    /// The offset of the job's output at which the record stands: for output, of its first byte.
    pub offset: Offset,
    /// Wall clock, µs since 1970.
    pub wall_us: i64,
    /// CLOCK_BOOTTIME, µs.
    pub boottime_us: u64,
}

/// A whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its header.
    pub header: RecordHeader,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The bytes at a position where a record may begin.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A record with its payload, and how many bytes it takes in all.
    Record(RecordHeader, &'a [u8], usize),
    /// Not all of it is there (yet), or the bytes are no record: `needed` bytes from its beginning
    /// are necessary to decide.
    Incomplete {
        /// Bytes from the record's beginning, header included.
        needed: usize,
    },
    /// All bytes are there and they are no record: torn by a crash, or damaged.
    Invalid,
}

/// The header bytes of a record with this payload. Writing them directly before the payload, in
/// one `pwritev`, writes the record.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_BYTES_MAX`].
pub fn header_bytes(header: &RecordHeader, payload: &[u8]) -> [u8; HEADER_BYTES] {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payload too long");
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[8] = header.kind as u8;
    bytes[9] = header.stream.code();
    bytes[16..24].copy_from_slice(&header.offset.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.wall_us.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.boottime_us.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..]), payload);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A record as bytes.
pub fn encode(header: &RecordHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header_bytes(header, payload).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Decodes `bytes`, which begin where a record may begin.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    let Some(head) = bytes.get(..HEADER_BYTES) else {
        return Decoded::Incomplete {
            needed: HEADER_BYTES,
        };
    };
    let length = u32_at(head, 0) as usize;
    let (Some(kind), Some(stream)) = (RecordKind::from_code(head[8]), Stream::from_code(head[9]))
    else {
        return Decoded::Invalid;
    };
    if length > PAYLOAD_BYTES_MAX {
        return Decoded::Invalid;
    }
    let whole = HEADER_BYTES + length;
    let Some(payload) = bytes.get(HEADER_BYTES..whole) else {
        return Decoded::Incomplete { needed: whole };
    };
    let sum = crc32c::crc32c_append(crc32c::crc32c(&head[8..]), payload);
    if sum != u32_at(head, 4) {
        return Decoded::Invalid;
    }
    let header = RecordHeader {
        kind,
        stream,
        offset: u64_at(head, 16),
        wall_us: u64_at(head, 24) as i64,
        boottime_us: u64_at(head, 32),
    };
    Decoded::Record(header, payload, whole)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Payload of a start record. Its size is fixed, so that the shim can keep space for it before the
/// fork and the child can fill it in before exec without allocating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartPayload {
    /// The leader's process id, also its session and group.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of `/proc/PID/stat`, proc(5)): together
    /// with the boot id this names a process for ever.
    pub start_ticks: u64,
}

impl StartPayload {
    /// Length of the payload, bytes.
    pub const BYTES: usize = 16;

    /// As bytes: i32 pid, u32 zero, u64 start time.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&self.pid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.start_ticks.to_le_bytes());
        bytes
    }

    /// From bytes; `None` where the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == Self::BYTES).then(|| Self {
            pid: u32_at(bytes, 0) as i32,
            start_ticks: u64_at(bytes, 8),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: RecordKind) -> RecordHeader {
        RecordHeader {
            kind,
            stream: Stream::Stderr,
            offset: 7,
            wall_us: -1,
            boottime_us: 9,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let head = header(RecordKind::Output);
            let bytes = encode(&head, &payload);
            prop_assert_eq!(decode(&bytes), Decoded::Record(head, &payload, bytes.len()));
        }

        #[test]
        fn no_garbage_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn torn_at_every_byte_it_is_no_record() {
        let bytes = encode(&header(RecordKind::Exit), b"payload");
        for cut in 0..bytes.len() {
            assert!(
                matches!(decode(&bytes[..cut]), Decoded::Incomplete { needed } if needed > cut),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn flipped_at_every_byte_it_is_no_record() {
        let bytes = encode(&header(RecordKind::Output), b"payload");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(
                !matches!(decode(&damaged), Decoded::Record(..)),
                "flipped at {at}"
            );
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(decode(&[0; 64]), Decoded::Invalid);
    }
}
