//! Signed notes (C2SP signed-note): a text, an empty line, and lines of signatures. Several notes may follow each other
//! in a file.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::signer::{KEY_ID_BYTES, NoteSigner, VerifierKey};

/// Begins a line with a signature: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";

/// Length of an Ed25519 signature, bytes.
const SIGNATURE_BYTES: usize = 64;

/// A note with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    /// What is signed, with its last line end.
    pub text: String,
    signatures: Vec<NoteSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    id: [u8; KEY_ID_BYTES],
    signature: Vec<u8>,
}

impl NoteSignature {
    fn read(line: &str) -> Option<Self> {
        let (name, value) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
        let bytes = STANDARD.decode(value).ok()?;
        let (id, signature) = bytes.split_first_chunk::<KEY_ID_BYTES>()?;
        // A line that was cut off is none.
        if signature.len() != SIGNATURE_BYTES {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            id: *id,
            signature: signature.to_vec(),
        })
    }
}

impl SignedNote {
    /// Signs a text, which ends with a line end.
    pub fn sign(text: String, signer: &NoteSigner) -> Self {
        let signature = NoteSignature {
            name: signer.key().name.clone(),
            id: signer.key().id(),
            signature: signer.sign(text.as_bytes()),
        };
        Self {
            text,
            signatures: vec![signature],
        }
    }

    /// Whether one of its signatures is this key's and right.
    pub fn is_signed_by(&self, key: &VerifierKey) -> bool {
        let id = key.id();
        let own = self
            .signatures
            .iter()
            .filter(|one| one.name == key.name && one.id == id);
        own.into_iter()
            .any(|one| key.verifies(self.text.as_bytes(), &one.signature))
    }

    /// The ids of the keys that its signatures name.
    pub fn key_ids(&self) -> impl Iterator<Item = [u8; KEY_ID_BYTES]> {
        self.signatures.iter().map(|one| one.id)
    }

    /// The notes in a text, in order. What is no note is left out: a line that begins with `origin` begins one, also
    /// after a note that was cut off.
    pub fn all(text: &str, origin: &str) -> Vec<Self> {
        let mut notes: Vec<Self> = Vec::new();
        // The note that the next lines belong to, and whether its text is over.
        let mut open: Option<(Self, bool)> = None;
        for line in text.lines() {
            if line.starts_with(origin) {
                notes.extend(open.take().and_then(Self::signed));
                let text = format!("{line}\n");
                let signatures = Vec::new();
                open = Some((Self { text, signatures }, false));
                continue;
            }
            let Some((note, is_over)) = &mut open else {
                continue;
            };
            match (line.is_empty(), *is_over, NoteSignature::read(line)) {
                (true, ..) => *is_over = true,
                (false, false, _) => note.text += &format!("{line}\n"),
                (false, true, Some(signature)) => note.signatures.push(signature),
                (false, true, None) => notes.extend(open.take().and_then(Self::signed)),
            }
        }
        notes.extend(open.and_then(Self::signed));
        notes
    }

    fn signed((note, is_over): (Self, bool)) -> Option<Self> {
        (is_over && !note.signatures.is_empty()).then_some(note)
    }
}

impl std::fmt::Display for SignedNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        for one in &self.signatures {
            let value = STANDARD.encode([&one.id[..], &one.signature].concat());
            writeln!(f, "{SIGNATURE}{} {value}", one.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "example.com/";

    fn signer(byte: u8) -> NoteSigner {
        NoteSigner::of_seed("example.com/x", [byte; 32]).expect("a key")
    }

    #[test]
    fn notes_are_read_as_they_are_written() {
        let notes: Vec<SignedNote> = (1..4)
            .map(|nth| SignedNote::sign(format!("example.com/x\n{nth}\n"), &signer(1)))
            .collect();
        let file: String = notes.iter().map(|note| format!("\n{note}")).collect();
        let read = SignedNote::all(&file, ORIGIN);
        assert_eq!(read, notes);
        assert!(read.iter().all(|note| note.is_signed_by(signer(1).key())));
        assert!(!read[0].is_signed_by(signer(2).key()));
        let changed = file.replace("\n2\n", "\n5\n");
        let changed = SignedNote::all(&changed, ORIGIN);
        let right: Vec<bool> = changed
            .iter()
            .map(|note| note.is_signed_by(signer(1).key()))
            .collect();
        assert_eq!(right, [true, false, true]);
    }

    #[test]
    fn a_note_that_was_cut_off_hides_no_other_one() {
        let note = SignedNote::sign("example.com/x\n1\n".to_owned(), &signer(1));
        let whole = note.to_string();
        for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            let file = format!("\n{}\n{whole}", &whole[..cut]);
            let read = SignedNote::all(&file, ORIGIN);
            assert_eq!(read.last(), Some(&note), "{file:?}");
            let right = read
                .iter()
                .filter(|note| note.is_signed_by(signer(1).key()));
            // Only without its last line end it is as good as whole.
            assert!(
                right.count() <= 1 + usize::from(cut + 1 == whole.len()),
                "{cut}"
            );
        }
        assert_eq!(SignedNote::all("nothing\n\n\u{2014} x AAAA\n", ORIGIN), []);
    }
}
