//! The key of a shim: who says hello to it proves that it knows the key, without saying it.
//!
//! Where keys are kept, and how a shim gets its own, is not known here.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Length of a key, bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a block of SHA-256, bytes.
const BLOCK_BYTES: usize = 64;

/// A shim's key. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ShimKey([u8; KEY_BYTES]);

impl std::fmt::Debug for ShimKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShimKey")
    }
}

impl ShimKey {
    /// The key of the shim `id`, from what all keys of a data directory are made from.
    pub fn of(seed: &[u8; KEY_BYTES], id: &str) -> Self {
        Self(hmac(seed, &[b"shim", id.as_bytes()]))
    }

    /// A key as the shim was handed it.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for the shim alone.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What proves that a hello comes from somebody who knows the key: good for this epoch and this
    /// instance alone. In hex.
    pub fn proof(&self, epoch: u64, instance: &str) -> String {
        let mac = hmac(
            &self.0,
            &[b"hello", &epoch.to_le_bytes(), instance.as_bytes()],
        );
        mac.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether that is the proof.
    pub fn proves(&self, proof: &str, epoch: u64, instance: &str) -> bool {
        let expected = self.proof(epoch, instance);
        expected.as_bytes().ct_eq(proof.as_bytes()).into()
    }
}

/// HMAC-SHA-256 (RFC 2104) over parts, each behind its length.
fn hmac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let pad = |with: u8| {
        let mut block = [with; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(to, from)| *to ^= from);
        block
    };
    let mut inner = Sha256::new();
    inner.update(pad(0x36));
    for part in parts {
        inner.update((part.len() as u64).to_le_bytes());
        inner.update(part);
    }
    let mut outer = Sha256::new();
    outer.update(pad(0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_shim_one_epoch_and_one_instance() {
        let key = ShimKey::of(&[7; KEY_BYTES], "a");
        let proof = key.proof(3, "i");
        assert!(key.proves(&proof, 3, "i"));
        assert!(!key.proves(&proof, 4, "i") && !key.proves(&proof, 3, "j"));
        assert!(!key.proves("", 3, "i"));
        for other in [
            ShimKey::of(&[7; KEY_BYTES], "b"),
            ShimKey::of(&[8; KEY_BYTES], "a"),
        ] {
            assert!(!other.proves(&proof, 3, "i"));
        }
        assert_eq!(ShimKey::from_bytes(*key.bytes()), key);
        assert_eq!(format!("{key:?}"), "ShimKey");
    }
}
