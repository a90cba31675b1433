//! Checkpoints: signed notes that say how many entries the trail had at some time, and the hash of the last one.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    chain::ChainHead,
    note::SignedNote,
    signer::{NoteSigner, VerifierKey},
};
use crate::job::Micros;

/// Begins the origin of every checkpoint, and the name of every key; the instance of the data directory follows.
pub const ORIGIN: &str = "cc-executor.audit/";

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The instance of the data directory.
    pub instance: String,
    /// Where the trail ended.
    pub head: ChainHead,
    /// When it was made, RFC 3339.
    pub at: String,
    note: SignedNote,
}

impl Checkpoint {
    /// Signs where the trail ends.
    pub fn sign(instance: &str, head: ChainHead, at: Micros, signer: &NoteSigner) -> Self {
        let at = at.to_rfc3339();
        let hash = STANDARD.encode(head.hash);
        let text = format!("{ORIGIN}{instance}\n{}\n{hash}\nat {at}\n", head.seq);
        Self {
            instance: instance.to_owned(),
            head,
            at,
            note: SignedNote::sign(text, signer),
        }
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, key: &VerifierKey) -> bool {
        self.note.is_signed_by(key)
    }

    /// The checkpoints in a text, such as a file to which they were appended.
    pub fn all(text: &str) -> Vec<Self> {
        let notes = SignedNote::all(text, ORIGIN);
        notes.into_iter().filter_map(Self::read).collect()
    }

    fn read(note: SignedNote) -> Option<Self> {
        let mut lines = note.text.lines();
        let instance = lines.next()?.strip_prefix(ORIGIN)?.to_owned();
        let seq = lines.next()?.parse().ok()?;
        let hash = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let at = lines.find_map(|line| line.strip_prefix("at "));
        Some(Self {
            instance,
            head: ChainHead { seq, hash },
            at: at.unwrap_or("an unknown time").to_owned(),
            note,
        })
    }
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.note.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_a_signed_note() {
        let signer = NoteSigner::of_seed("cc-executor.audit/ab", [1; 32]).expect("a key");
        let head = ChainHead::default().after("{}");
        let made = Checkpoint::sign("ab", head, Micros(0), &signer);
        let text = made.to_string();
        assert!(text.starts_with("cc-executor.audit/ab\n1\n"), "{text}");
        assert!(text.contains("\nat 1970-01-01T00:00:00"), "{text}");
        assert!(made.is_signed_by(signer.key()));
        assert_eq!(Checkpoint::all(&format!("\n{text}")), [made]);
    }
}
