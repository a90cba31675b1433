//! The key of a shim. The sender of a hello proves with it that it knows the key, without sending
//! it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Length of a key, bytes.
pub const KEY_BYTES: usize = 32;

/// A shim's key. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ShimKey([u8; KEY_BYTES]);

impl std::fmt::Debug for ShimKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShimKey")
    }
}

impl ShimKey {
    /// The key of the shim `id`, derived from the seed of its data directory.
    pub fn of(seed: &[u8; KEY_BYTES], id: &str) -> Self {
        Self(
            hmac(seed, &[b"shim", id.as_bytes()])
                .finalize()
                .into_bytes()
                .into(),
        )
    }

    /// A key from the bytes that the shim was given.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to be passed to the shim alone.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The proof, in hex, that the sender of a hello knows the key; valid for this epoch and this
    /// instance alone.
    pub fn proof(&self, epoch: u64, instance: &str) -> String {
        let mac = self.of_hello(epoch, instance).finalize().into_bytes();
        mac.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether `proof` is the right one; the comparison takes constant time.
    pub fn proves(&self, proof: &str, epoch: u64, instance: &str) -> bool {
        let mac = from_hex(proof);
        mac.is_some_and(|mac| self.of_hello(epoch, instance).verify_slice(&mac).is_ok())
    }

    fn of_hello(&self, epoch: u64, instance: &str) -> Hmac<Sha256> {
        let parts = [b"hello", &epoch.to_le_bytes()[..], instance.as_bytes()];
        hmac(&self.0, &parts)
    }
}

/// HMAC-SHA-256 (RFC 2104) over parts, each preceded by its length (u64, little-endian).
fn hmac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> Hmac<Sha256> {
    // HMAC accepts a key of any length.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    for (nth, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * nth..2 * nth + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac` module: shims keep their keys through upgrades of the server.
    #[test]
    fn a_proof_stays_what_it_was() {
        let proof = ShimKey::of(&[7; KEY_BYTES], "a").proof(3, "i");
        assert_eq!(
            proof,
            "052c77b41a9e255279699a25230f6fb543b46ee90b69959dd1a8a0f74fcabbba"
        );
    }

    #[test]
    fn a_proof_is_good_for_one_shim_one_epoch_and_one_instance() {
        let key = ShimKey::of(&[7; KEY_BYTES], "a");
        let proof = key.proof(3, "i");
        assert!(key.proves(&proof, 3, "i"));
        assert!(!key.proves(&proof, 4, "i") && !key.proves(&proof, 3, "j"));
        for wrong in [
            "",
            "00",
            &proof[1..],
            &format!("{proof}00"),
            &"é".repeat(32),
        ] {
            assert!(!key.proves(wrong, 3, "i"), "{wrong}");
        }
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
