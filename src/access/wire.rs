//! The wire form of a token: `ccx_`, then base64url of nonce, caveats, tag and checksum.
//!
//! The tag is a chain: it begins as the token's root, and each caveat replaces it by the HMAC of the caveat
//! under the tag before. A holder knows the last tag alone, so it can append and do nothing else.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Caveat;

/// What every token begins with.
pub const PREFIX: &str = "ccx_";
/// The version of the form.
const VERSION: u8 = 1;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;
/// Bytes of a key, a root and a tag.
pub const TAG_BYTES: usize = 32;
/// Bytes of the checksum, CRC-32C.
const CHECK_BYTES: usize = 4;
/// Most caveats of a token.
pub const CAVEATS_MAX: usize = 32;
/// Longest token, bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// What roots are made for, so that the key cannot be used for anything else.
const ROOT_CONTEXT: &[u8] = b"cc-executor token root 1\0";

/// A nonce: names a token on the wire.
pub type Nonce = [u8; NONCE_BYTES];
/// A root or a tag.
pub type Tag = [u8; TAG_BYTES];

/// The key from which the roots of all tokens of a server are made. Never shown.
#[derive(Clone)]
pub struct RootKey(pub [u8; TAG_BYTES]);

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey")
    }
}

impl RootKey {
    /// The root of the token with this nonce.
    fn root(&self, nonce: &Nonce) -> Tag {
        mac(&self.0, &[ROOT_CONTEXT, nonce])
    }

    /// The digest of that root, which the database keeps.
    pub fn digest(&self, nonce: &Nonce) -> Tag {
        Sha256::digest(self.root(nonce)).into()
    }

    /// The token with this nonce, without caveats.
    pub fn issue(&self, nonce: Nonce) -> WireToken {
        WireToken {
            nonce,
            caveats: Vec::new(),
            tag: self.root(&nonce),
        }
    }

    /// Whether this token was issued under this key, and each of its caveats was appended by a holder.
    /// Returns the tags before each caveat, and the last one. `digest` is that of the database.
    pub fn check(&self, token: &WireToken, digest: &Tag) -> Option<Vec<Tag>> {
        let root = self.root(&token.nonce);
        let known: [u8; TAG_BYTES] = Sha256::digest(root).into();
        let mut tags = vec![root];
        for caveat in &token.caveats {
            let before = tags.last().unwrap_or(&root);
            tags.push(mac(before, &[caveat.as_bytes()]));
        }
        let last = tags.last().unwrap_or(&root);
        let is_ours = known.ct_eq(digest) & last.ct_eq(&token.tag);
        bool::from(is_ours).then_some(tags)
    }
}

/// A token as it is read from its text. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct WireToken {
    nonce: Nonce,
    caveats: Vec<String>,
    tag: Tag,
}

impl fmt::Debug for WireToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireToken")
            .field("caveats", &self.caveats)
            .finish_non_exhaustive()
    }
}

/// Why a token cannot be narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NarrowRefusal {
    /// It has too many caveats.
    #[error("a token may have at most {CAVEATS_MAX} restrictions of its holders")]
    TooMany,
    /// It would be too long.
    #[error("the token would be longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

impl WireToken {
    /// Which token it is.
    pub fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// Its caveats, in the order in which they were appended.
    pub fn caveats(&self) -> &[String] {
        &self.caveats
    }

    /// The same token with one more caveat.
    ///
    /// # Errors
    ///
    /// It has too many, or would be too long.
    pub fn narrowed(mut self, caveat: &Caveat) -> Result<Self, NarrowRefusal> {
        let text = caveat.text();
        if self.caveats.len() >= CAVEATS_MAX {
            return Err(NarrowRefusal::TooMany);
        }
        self.tag = mac(&self.tag, &[text.as_bytes()]);
        self.caveats.push(text);
        match self.text().len() > TEXT_BYTES_MAX {
            true => Err(NarrowRefusal::TooLong),
            false => Ok(self),
        }
    }

    /// Its text.
    pub fn text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.nonce);
        bytes.push(self.caveats.len() as u8);
        for caveat in &self.caveats {
            bytes.extend((caveat.len() as u16).to_be_bytes());
            bytes.extend(caveat.as_bytes());
        }
        bytes.extend(self.tag);
        bytes.extend(checksum(&bytes).to_be_bytes());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a text; `None` if it is no token, or not a whole one. Each token has exactly one text.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (bytes, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        if u32::from_be_bytes(*check) != checksum(bytes) {
            return None;
        }
        let (version, rest) = bytes.split_first()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (count, mut rest) = rest.split_first()?;
        if *version != VERSION || usize::from(*count) > CAVEATS_MAX {
            return None;
        }
        let mut caveats = Vec::new();
        for _ in 0..*count {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (caveat, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            caveats.push(String::from_utf8(caveat.to_vec()).ok()?);
            rest = after;
        }
        Some(Self {
            nonce: *nonce,
            caveats,
            tag: rest.try_into().ok()?,
        })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(PREFIX.as_bytes()), bytes)
}

fn mac(key: &Tag, parts: &[&[u8]]) -> Tag {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Scope, Scopes};

    const KEY: RootKey = RootKey([7; TAG_BYTES]);
    const NONCE: Nonce = [9; NONCE_BYTES];

    fn read_only() -> Caveat {
        Caveat::Scopes(Scopes::of(&[Scope::Read]))
    }

    fn is_accepted(token: &WireToken) -> bool {
        KEY.check(token, &KEY.digest(&NONCE)).is_some()
    }

    fn narrowed(caveats: &[Caveat]) -> WireToken {
        let narrow = |token: WireToken, caveat| token.narrowed(caveat).expect("short");
        caveats.iter().fold(KEY.issue(NONCE), narrow)
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_accepted() {
        for caveats in [vec![], vec![Caveat::Own], vec![read_only(), Caveat::Own]] {
            let token = narrowed(&caveats);
            let text = token.text();
            assert!(text.starts_with("ccx_"), "{text}");
            assert!(
                text.bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
            );
            assert_eq!(WireToken::parse(&text), Some(token.clone()));
            assert!(is_accepted(&token));
        }
        assert_eq!(narrowed(&[]).text().len(), 4 + 72);
    }

    #[test]
    fn caveats_cannot_be_stripped_reordered_changed_or_doubled() {
        let token = narrowed(&[
            read_only(),
            Caveat::Own,
            Caveat::Label("k".into(), "v".into()),
        ]);
        let forge = |caveats: Vec<String>| WireToken {
            caveats,
            ..token.clone()
        };
        let all = token.caveats.clone();
        for at in 0..all.len() {
            let mut fewer = all.clone();
            fewer.remove(at);
            assert!(!is_accepted(&forge(fewer)), "without {at}");
            assert!(!is_accepted(&forge(all[..at].to_vec())), "only {at}");
            let mut twice = all.clone();
            twice.insert(at, all[at].clone());
            assert!(!is_accepted(&forge(twice)), "{at} twice");
            for other in 0..all.len() {
                let mut swapped = all.clone();
                swapped.swap(at, other);
                assert_eq!(
                    is_accepted(&forge(swapped)),
                    at == other,
                    "{at} for {other}"
                );
            }
            for wider in [
                Caveat::Scopes(Scopes::ALL).text(),
                String::new(),
                " ".into(),
            ] {
                let mut widened = all.clone();
                widened[at] = wider;
                assert!(!is_accepted(&forge(widened)), "{at} widened");
            }
        }
        // Two caveats are not one that reads the same.
        let joined = vec![all.concat()];
        assert!(!is_accepted(&forge(joined)));
    }

    #[test]
    fn the_tag_of_one_chain_does_not_fit_another() {
        let narrow = narrowed(&[Caveat::Own]);
        let wide = narrowed(&[]);
        for (caveats, tag) in [(&wide.caveats, narrow.tag), (&narrow.caveats, wide.tag)] {
            let forged = WireToken {
                nonce: NONCE,
                caveats: caveats.clone(),
                tag,
            };
            assert!(!is_accepted(&forged));
        }
        let other = WireToken {
            nonce: [8; NONCE_BYTES],
            ..wide.clone()
        };
        assert!(!is_accepted(&other), "another token's nonce");
        assert!(KEY.check(&wide, &[0; 32]).is_none(), "another row's digest");
        assert!(
            RootKey([6; 32]).check(&wide, &KEY.digest(&NONCE)).is_none(),
            "another key"
        );
        for bit in 0..8 * TAG_BYTES {
            let mut flipped = narrow.clone();
            flipped.tag[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_accepted(&flipped));
        }
    }

    #[test]
    fn a_changed_or_cut_text_is_no_token() {
        let text = narrowed(&[read_only()]).text();
        for end in 0..text.len() {
            assert_eq!(WireToken::parse(&text[..end]), None, "{end}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(WireToken::parse(&changed), None, "{at}");
        }
        for wrong in [
            "",
            "ccx_",
            "ccx_AAAA",
            &format!("{text}="),
            &format!("{text}A"),
            &text.to_uppercase(),
        ] {
            assert_eq!(WireToken::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            WireToken::parse(&format!("ccx_{}", "A".repeat(1 << 20))),
            None
        );
    }

    #[test]
    fn a_token_has_bounds() {
        let mut token = KEY.issue(NONCE);
        for _ in 0..CAVEATS_MAX {
            token = token.narrowed(&Caveat::Own).expect("short");
        }
        assert_eq!(
            token.clone().narrowed(&Caveat::Own),
            Err(NarrowRefusal::TooMany)
        );
        let long = Caveat::Label("k".into(), "x".repeat(1000));
        let grown = (0..5).try_fold(KEY.issue(NONCE), |token, _| token.narrowed(&long));
        assert_eq!(grown, Err(NarrowRefusal::TooLong));
    }

    #[test]
    fn debug_does_not_tell() {
        let token = narrowed(&[Caveat::Own]);
        let shown = format!("{token:?} {KEY:?}");
        assert!(!shown.contains("tag") && !shown.contains('7'), "{shown}");
    }
}
