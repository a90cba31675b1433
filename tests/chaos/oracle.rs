//! The bytes that a job must have written, a word at a time: a run compares gigabytes.
//! Agrees with `tests/harness/oracle.rs`, which says it more simply.

use crate::harness::mix;

/// The first `length` bytes that `emit --seed SEED` writes to a stream (0 stdout, 1 stderr).
pub fn bytes(seed: u64, stream: u64, length: u64, raw: bool) -> Vec<u8> {
    let key = seed.wrapping_mul(2).wrapping_add(stream);
    let mut bytes = Vec::with_capacity(length as usize + 8);
    for word in 0..length.div_ceil(8) {
        bytes.extend_from_slice(&mix(key ^ mix(word)).to_le_bytes());
    }
    bytes.truncate(length as usize);
    if !raw {
        for line in bytes.chunks_mut(64) {
            for byte in line.iter_mut() {
                *byte = b' ' + *byte % 95;
            }
            if let Some(end) = line.get_mut(63) {
                *end = b'\n';
            }
        }
    }
    bytes
}

#[test]
fn both_oracles_say_the_same() {
    for raw in [true, false] {
        for length in [0, 1, 63, 64, 65, 1003] {
            let slow = crate::harness::content(7, 1, length, raw);
            assert_eq!(bytes(7, 1, length, raw), slow, "{length} {raw}");
        }
    }
}
