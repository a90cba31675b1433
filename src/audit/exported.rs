//! The lines of an exported trail: where it begins, its entries, and where it ends.
//!
//! A line must be byte for byte what an export writes, so that no reader understands it in another way.

use serde_json::{Value, json};

use super::{
    canonical::canonical,
    chain::{ChainHash, ChainHead, SEQ_MAX, hex, unhex},
    signer::VerifierKey,
};

/// The version of the file's form.
const VERSION: u32 = 1;

/// The first line: which entry comes before the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailBegin {
    /// The entry before, by its number and hash.
    pub after: ChainHead,
    /// The verifier's key that was in force there.
    pub key: Option<String>,
    /// Whether the export leaves earlier entries out because it was asked to.
    pub is_part: bool,
}

/// A key that was put in force before the first entry: it leads to the key that was in force there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastKey {
    /// The entry that put it in force.
    pub seq: u64,
    /// The key.
    pub key: VerifierKey,
    /// The signature of it by the key before, base64; `None` for the first key, and for one that nobody signed.
    pub signature: Option<String>,
}

/// An entry with its hash and that of the entry before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedEntry {
    /// The text that was hashed.
    pub entry: String,
    /// Its hash.
    pub hash: ChainHash,
    /// The hash of the entry before.
    pub prev: ChainHash,
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportedLine {
    /// The first one.
    Begin(TrailBegin),
    /// A key from before the first entry; these follow the first line, oldest first.
    Key(PastKey),
    /// An entry.
    Entry(ExportedEntry),
    /// The last one: where the trail ended.
    End(ChainHead),
}

impl ExportedLine {
    /// The line, without its end.
    pub fn text(&self) -> String {
        match self {
            Self::Begin(begin) => canonical(&json!({"trail": {
                "v": VERSION,
                "after": begin.after.seq,
                "hash": hex(&begin.after.hash),
                "key": begin.key,
                "part": begin.is_part,
            }})),
            Self::Key(past) => canonical(&json!({"key": {
                "seq": past.seq,
                "key": past.key.to_string(),
                "signature": past.signature,
            }})),
            Self::Entry(ExportedEntry { entry, hash, prev }) => {
                // What is stored is exported as it is, so that a row that was changed shows itself.
                let is_canonical = serde_json::from_str(entry)
                    .is_ok_and(|value: Value| canonical(&value) == *entry);
                let entry = match is_canonical {
                    true => entry.clone(),
                    false => canonical(&json!(entry)),
                };
                let (hash, prev) = (hex(hash), hex(prev));
                format!("{{\"entry\":{entry},\"hash\":\"{hash}\",\"prev\":\"{prev}\"}}")
            }
            Self::End(head) => {
                canonical(&json!({"end": {"seq": head.seq, "hash": hex(&head.hash)}}))
            }
        }
    }

    /// Reads a line; `None` if it is not as an export writes it.
    pub fn read(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let line = Self::of(&value)?;
        (line.text() == text).then_some(line)
    }

    fn of(value: &Value) -> Option<Self> {
        let hash = |value: &Value| unhex(value.as_str()?);
        let seq = |value: &Value| value["seq"].as_u64().filter(|seq| *seq <= SEQ_MAX);
        if let Some(trail) = value.get("trail") {
            return Some(Self::Begin(TrailBegin {
                after: ChainHead {
                    seq: trail["after"].as_u64().filter(|seq| *seq <= SEQ_MAX)?,
                    hash: hash(&trail["hash"])?,
                },
                key: trail["key"].as_str().map(str::to_owned),
                is_part: trail["part"].as_bool()?,
            }));
        }
        if let Some(past) = value.get("key") {
            return Some(Self::Key(PastKey {
                seq: seq(past)?,
                key: past["key"].as_str()?.parse().ok()?,
                signature: past["signature"].as_str().map(str::to_owned),
            }));
        }
        if let Some(end) = value.get("end") {
            return Some(Self::End(ChainHead {
                seq: seq(end)?,
                hash: hash(&end["hash"])?,
            }));
        }
        let entry = match value.get("entry")? {
            Value::String(text) => text.clone(),
            entry => canonical(entry),
        };
        Some(Self::Entry(ExportedEntry {
            entry,
            hash: hash(&value["hash"])?,
            prev: hash(&value["prev"])?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::NoteSigner;

    fn lines() -> Vec<ExportedLine> {
        let signer = NoteSigner::of_seed("x", [1; 32]).expect("a key");
        let after = ChainHead {
            seq: 3,
            hash: [7; 32],
        };
        let entry = |text: &str| {
            ExportedLine::Entry(ExportedEntry {
                entry: text.to_owned(),
                hash: [1; 32],
                prev: [2; 32],
            })
        };
        vec![
            ExportedLine::Begin(TrailBegin {
                after,
                key: Some("x+1+y".to_owned()),
                is_part: true,
            }),
            ExportedLine::Key(PastKey {
                seq: 2,
                key: signer.key().clone(),
                signature: None,
            }),
            entry("{\"a\":1}"),
            entry("no JSON \"\n"),
            entry("{\"b\":1,\"a\":1}"),
            entry("\"text\""),
            ExportedLine::End(after),
        ]
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        for line in lines() {
            let text = line.text();
            assert!(!text.contains('\n'), "{text}");
            // A stored text that is itself a JSON string is no entry: it may be read as its content.
            if text.starts_with("{\"entry\":\"text\"") {
                continue;
            }
            assert_eq!(ExportedLine::read(&text), Some(line), "{text}");
        }
    }

    #[test]
    fn a_line_that_means_the_same_is_not_the_same() {
        for line in lines() {
            let text = line.text();
            for other in [
                format!(" {text}"),
                text.replacen(':', ": ", 1),
                text.replacen('{', "{\"x\":1,", 1),
                text[..text.len() - 1].to_owned(),
            ] {
                assert_eq!(ExportedLine::read(&other), None, "{other}");
            }
        }
        let twice = lines()[2].text().replacen("\"a\":1", "\"a\":2,\"a\":1", 1);
        assert_eq!(ExportedLine::read(&twice), None, "{twice}");
    }
}
