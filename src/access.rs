//! Who may do what: scopes, the caveats that take something away, and the wire form of tokens. No I/O.
//!
//! The tokens of a running server are in `protocol::tokens`, their rows in the store.

pub mod caveat;
pub mod origin;
pub mod principal;
pub mod rate;
pub mod reach;
pub mod scope;
pub mod valid_clock;
pub mod wire;

pub use caveat::{Caveat, CaveatRefusal};
pub use origin::ClientOrigin;
pub use principal::{AccessDenied, Grant, Principal};
pub use rate::{Rate, RateBuckets, RateRefusal};
pub use reach::{JobPlace, OutOfReach, Reach};
pub use scope::{Scope, Scopes};
pub use valid_clock::ValidClock;
pub use wire::{RootKey, WireToken};

/// The number of a token; never used again.
pub type TokenNumber = i64;
