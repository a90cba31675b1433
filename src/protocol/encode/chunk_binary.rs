//! A chunk of output as a binary frame: a header of 32 bytes, then the bytes as they are.
//!
//! ```text
//!  0  u32  subscription
//!  4  u8   stream: 0 stdout, 1 stderr, 2 pty
//!  5  3 zero bytes
//!  8  u32  attempt
//! 12  u32  zero
//! 16  u64  µs since 1970
//! 24  u64  offset
//! ```
//!
//! All numbers are little-endian.

use crate::job::Chunk;

/// Length of the header, bytes.
pub const HEADER_BYTES: usize = 32;

/// The frame of a chunk.
pub fn encode(subscription: u32, chunk: &Chunk) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + chunk.data.len());
    frame.extend_from_slice(&subscription.to_le_bytes());
    frame.extend_from_slice(&[chunk.stream.code(), 0, 0, 0]);
    frame.extend_from_slice(&chunk.attempt.to_le_bytes());
    frame.extend_from_slice(&0_u32.to_le_bytes());
    frame.extend_from_slice(&chunk.at.0.to_le_bytes());
    frame.extend_from_slice(&chunk.offset.to_le_bytes());
    frame.extend_from_slice(&chunk.data);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Micros, Stream};

    #[test]
    fn every_byte_has_its_place() {
        let chunk = Chunk {
            offset: 0x0807_0605_0403_0201,
            stream: Stream::Pty,
            attempt: 0x0d0c_0b0a,
            at: Micros(0x1817_1615_1413_1211),
            data: vec![0xff, 0x00],
        };
        let expected = [
            0x04, 0x03, 0x02, 0x01, 2, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 0, 0x11, 0x12,
            0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0x00,
        ];
        assert_eq!(encode(0x0102_0304, &chunk), expected);
    }
}
