//! Checkpoints: signed notes that say how many entries the trail had at some time, and the hash of the last one.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    chain::{ChainHead, SEQ_MAX},
    note::SignedNote,
    signer::{KEY_ID_BYTES, KeyLink, NoteSigner, VerifierKey},
};
use crate::job::Micros;

/// Begins the origin of every checkpoint, and the name of every key; the instance of the data directory follows.
pub const ORIGIN: &str = "cc-executor.audit/";
/// Begins the line with the key that signs a checkpoint.
const KEY: &str = "key ";
/// Begins the line with the key before that one, and its signature of it.
const BEFORE: &str = "before ";

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The instance of the data directory.
    pub instance: String,
    /// Where the trail ended.
    pub head: ChainHead,
    /// When it was made, RFC 3339.
    pub at: String,
    /// How the key before has signed the one that signs this, where it says so. Checkpoints of earlier versions do not.
    pub link: Option<KeyLink>,
    note: SignedNote,
}

impl Checkpoint {
    /// Signs where the trail ends. `link` leads from the key before to the signer: if the end of the trail is cut off with
    /// the entry that puts the signer in force, the checkpoint still shows that the trail was longer.
    pub fn sign(
        instance: &str,
        head: ChainHead,
        at: Micros,
        signer: &NoteSigner,
        link: Option<&KeyLink>,
    ) -> Self {
        let at = at.to_rfc3339();
        let hash = STANDARD.encode(head.hash);
        let mut text = format!("{ORIGIN}{instance}\n{}\n{hash}\nat {at}\n", head.seq);
        if let Some(link) = link {
            text += &format!(
                "{KEY}{}\n{BEFORE}{} {}\n",
                link.key, link.before, link.signature
            );
        }
        Self {
            instance: instance.to_owned(),
            head,
            at,
            link: link.cloned(),
            note: SignedNote::sign(text, signer),
        }
    }

    /// The ids of the keys that its signatures name.
    pub fn key_ids(&self) -> impl Iterator<Item = [u8; KEY_ID_BYTES]> {
        self.note.key_ids()
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
        let seq = lines.next()?.parse().ok().filter(|seq| *seq <= SEQ_MAX)?;
        let hash = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let rest: Vec<&str> = lines.collect();
        let said = |prefix: &str| rest.iter().find_map(|line| line.strip_prefix(prefix));
        let at = said("at ");
        let link = || {
            let (before, signature) = said(BEFORE)?.split_once(' ')?;
            Some(KeyLink {
                before: before.parse().ok()?,
                key: said(KEY)?.parse().ok()?,
                signature: signature.to_owned(),
            })
        };
        let link = link();
        Some(Self {
            instance,
            head: ChainHead { seq, hash },
            at: at.unwrap_or("an unknown time").to_owned(),
            link,
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
        let made = Checkpoint::sign("ab", head, Micros(0), &signer, None);
        let text = made.to_string();
        assert!(text.starts_with("cc-executor.audit/ab\n1\n"), "{text}");
        assert!(text.contains("\nat 1970-01-01T00:00:00"), "{text}");
        assert!(made.is_signed_by(signer.key()));
        assert_eq!(Checkpoint::all(&format!("\n{text}")), [made]);
    }

    #[test]
    fn a_checkpoint_tells_of_the_key_before() {
        let [before, signer] = [1, 2]
            .map(|byte| NoteSigner::of_seed("cc-executor.audit/ab", [byte; 32]).expect("a key"));
        let link = KeyLink {
            before: before.key().clone(),
            key: signer.key().clone(),
            signature: before.sign_next(signer.key()),
        };
        let head = ChainHead::default().after("{}");
        let made = Checkpoint::sign("ab", head, Micros(0), &signer, Some(&link));
        let read = Checkpoint::all(&made.to_string());
        assert_eq!(read, [made]);
        assert_eq!(read[0].link.as_ref(), Some(&link));
        assert!(link.is_right() && read[0].is_signed_by(signer.key()));
    }
}
