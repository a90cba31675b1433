//! The rows of tokens with scopes, and their changes, as plain types.

use crate::{access::TokenNumber, job::Micros};

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// Names it on the wire.
    pub nonce: [u8; 16],
    /// The digest of its root.
    pub digest: [u8; 32],
    /// The names of its scopes.
    pub scopes: Vec<String>,
    /// What it is narrowed by: texts of caveats.
    pub restrictions: Vec<String>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Micros>,
    /// Who has asked for it.
    pub created_by: String,
    /// When that was.
    pub at: Micros,
}

impl NewToken {
    /// Most tokens that were not revoked.
    pub const COUNT_MAX: u32 = 1000;
    /// Longest name, bytes.
    pub const NAME_BYTES_MAX: usize = 64;
}

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// Its number, which is never used again.
    pub number: TokenNumber,
    /// Its name, unique among those that were not revoked.
    pub name: String,
    /// Names it on the wire.
    pub nonce: [u8; 16],
    /// The digest of its root.
    pub digest: [u8; 32],
    /// The names of its scopes.
    pub scopes: Vec<String>,
    /// What it is narrowed by: texts of caveats.
    pub restrictions: Vec<String>,
    /// When it was made.
    pub created_at: Micros,
    /// Who has asked for it.
    pub created_by: String,
    /// When it was last replaced.
    pub rotated_at: Option<Micros>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Micros>,
    /// Whether the server has seen that it expired.
    pub expired: bool,
    /// When it was revoked.
    pub revoked_at: Option<Micros>,
}

/// What becomes of a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAdded {
    /// It has this number.
    Done(TokenNumber),
    /// Another one that was not revoked has its name.
    NameTaken,
    /// There are [`NewToken::COUNT_MAX`] already.
    TooMany,
}

/// A change of a token.
#[derive(Debug, Clone)]
pub enum TokenChange {
    /// It is worth nothing from this moment on.
    Revoked(Micros),
    /// The server has seen at this moment that it expired.
    Expired(Micros),
    /// Its text is replaced.
    Rotated {
        /// Names it on the wire from now on.
        nonce: [u8; 16],
        /// The digest of its new root.
        digest: [u8; 32],
        /// From when on it is worth nothing.
        expires_at: Option<Micros>,
        /// When that was asked for.
        at: Micros,
    },
}
