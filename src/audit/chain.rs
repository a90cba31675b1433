//! The chain of entries: each hash covers its entry and the hash before it, so that whatever changes in an entry
//! changes all hashes after it.

use sha2::{Digest, Sha256};

/// Length of a hash, bytes.
pub const HASH_BYTES: usize = 32;

/// The largest number of an entry: rows cannot have a larger one.
pub const SEQ_MAX: u64 = i64::MAX as u64;

/// A hash of the chain.
pub type ChainHash = [u8; HASH_BYTES];

/// Where a chain ends: the number of its last entry, and that entry's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainHead {
    /// The number of the last entry, which is how many there were; 0 before the first.
    pub seq: u64,
    /// Its hash; zeros before the first.
    pub hash: ChainHash,
}

impl ChainHead {
    /// The head after one more entry with this text, which names `seq` + 1.
    pub fn after(self, entry: &str) -> Self {
        Self {
            seq: self.seq + 1,
            hash: link(&self.hash, entry),
        }
    }
}

/// The hash of an entry after the entry with the hash `before`.
pub fn link(before: &ChainHash, entry: &str) -> ChainHash {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(entry.as_bytes());
    hasher.finalize().into()
}

/// A hash in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// The bytes of a hash in lower-case hexadecimal.
pub fn unhex(text: &str) -> Option<ChainHash> {
    let mut hash = ChainHash::default();
    let is_lower = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if text.len() != 2 * HASH_BYTES || !text.bytes().all(is_lower) {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_every_entry_before() {
        let chain = |entries: &[&str]| {
            entries
                .iter()
                .fold(ChainHead::default(), |head, entry| head.after(entry))
        };
        let whole = chain(&["a", "b", "c"]);
        assert_eq!(whole.seq, 3);
        for other in [
            &["a", "b"][..],
            &["a", "c", "b"],
            &["x", "b", "c"],
            &["a", "bc", ""],
        ] {
            assert_ne!(chain(other).hash, whole.hash, "{other:?}");
        }
    }

    #[test]
    fn hexadecimal_is_read_as_it_is_written() {
        let hash = link(&ChainHash::default(), "x");
        assert_eq!(unhex(&hex(&hash)), Some(hash));
        for wrong in ["", "00", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
