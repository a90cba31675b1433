//! Ed25519 keys in the forms of signed notes (C2SP signed-note): the verifier's key is a line of text, and each key
//! signs the one that follows it.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use super::chain::hex;

/// Length of a seed and of a public key, bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a key's id, bytes.
pub const KEY_ID_BYTES: usize = 4;
/// The type of Ed25519 keys and their signatures.
const ED25519_TYPE: u8 = 1;
/// Begins what a key signs of the next one, so that it can be no note.
const SUCCESSION: &str = "cc-executor audit key";

/// The public part of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifierKey {
    /// The name of the signer; without spaces and plus signs.
    pub name: String,
    public: [u8; KEY_BYTES],
}

/// A text is no verifier's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no verifier's key: NAME+ID+BASE64 as an entry audit.key has it")]
pub struct NoVerifierKey;

impl VerifierKey {
    /// The first bytes of SHA-256 over name and key.
    pub fn id(&self) -> [u8; KEY_ID_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update([b'\n', ED25519_TYPE]);
        hasher.update(self.public);
        let digest: [u8; 32] = hasher.finalize().into();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Whether this is the key's signature of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        key.verify(message, signature).is_ok()
    }

    /// Whether this key has signed `next` as the one that follows it.
    pub fn has_signed(&self, next: &Self, signature: &str) -> bool {
        let signature = STANDARD.decode(signature);
        signature.is_ok_and(|signature| self.verifies(succession(next).as_bytes(), &signature))
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut typed = vec![ED25519_TYPE];
        typed.extend(self.public);
        let (id, typed) = (hex(&self.id()), STANDARD.encode(typed));
        write!(f, "{}+{id}+{typed}", self.name)
    }
}

impl std::str::FromStr for VerifierKey {
    type Err = NoVerifierKey;

    fn from_str(text: &str) -> Result<Self, NoVerifierKey> {
        let mut parts = text.splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let (Some(name), Some(id), Some(key)) = (name, id, key) else {
            return Err(NoVerifierKey);
        };
        let typed = STANDARD.decode(key).map_err(|_| NoVerifierKey)?;
        let public = match typed.split_first() {
            Some((&ED25519_TYPE, public)) => public.try_into().map_err(|_| NoVerifierKey)?,
            _ => return Err(NoVerifierKey),
        };
        let key = Self {
            name: name.to_owned(),
            public,
        };
        match hex(&key.id()) == id && !name.is_empty() {
            true => Ok(key),
            false => Err(NoVerifierKey),
        }
    }
}

/// A key with the one that follows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyLink {
    /// The key before.
    pub before: VerifierKey,
    /// The key that follows it.
    pub key: VerifierKey,
    /// The signature of the first of the second, base64.
    pub signature: String,
}

impl KeyLink {
    /// Whether the signature is right.
    pub fn is_right(&self) -> bool {
        self.before.has_signed(&self.key, &self.signature)
    }
}

fn succession(next: &VerifierKey) -> String {
    format!("{SUCCESSION}\n{next}\n")
}

/// A private key. Its `Debug` does not show it.
pub struct NoteSigner {
    key: VerifierKey,
    seed: [u8; KEY_BYTES],
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NoteSigner({})", self.key)
    }
}

impl NoteSigner {
    /// The key that this seed is; `None` where the library refuses it.
    pub fn of_seed(name: &str, seed: [u8; KEY_BYTES]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        let name = name.to_owned();
        let key = VerifierKey { name, public };
        Some(Self { key, seed, pair })
    }

    /// Its public part.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// What its file keeps.
    pub fn seed(&self) -> &[u8; KEY_BYTES] {
        &self.seed
    }

    /// Its signature of `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// Its signature of the key that follows it, base64.
    pub fn sign_next(&self, next: &VerifierKey) -> String {
        STANDARD.encode(self.sign(succession(next).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(byte: u8) -> NoteSigner {
        NoteSigner::of_seed("example.com/x", [byte; KEY_BYTES]).expect("a key")
    }

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = signer(1).key().clone();
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        let text = key.to_string();
        for wrong in [
            String::new(),
            text.replace("example", "examples"),
            text.replacen('+', " ", 1),
            text[..text.len() - 4].to_owned(),
            format!("{text}A"),
        ] {
            assert_eq!(wrong.parse::<VerifierKey>(), Err(NoVerifierKey), "{wrong}");
        }
    }

    #[test]
    fn the_published_vector_of_ed25519() {
        // RFC 8032, 7.1, test 1: the key of this seed, and its signature of the empty message.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let signer = NoteSigner::of_seed("x", super::super::chain::unhex(seed).expect("hex"));
        let signer = signer.expect("a key");
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex(&signer.key().public), public);
        assert!(hex(&signer.sign(b"")).starts_with("e5564300c360ac729086e2cc806e828a"));
    }

    #[test]
    fn a_key_signs_only_the_one_that_follows_it() {
        let [first, second, third] = [1, 2, 3].map(signer);
        let signature = first.sign_next(second.key());
        assert!(first.key().has_signed(second.key(), &signature));
        assert!(!first.key().has_signed(third.key(), &signature));
        assert!(!second.key().has_signed(second.key(), &signature));
        assert!(!first.key().has_signed(second.key(), "%"));
        assert!(!format!("{first:?}").contains(&hex(first.seed())));
    }
}
