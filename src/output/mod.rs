//! THE SPEAKERS: everything that reads output. One loop serves replay and live; the digest is a
//! reader like any other.
//!
//! Who runs a process, and who asks for its bytes, is not known here.

pub mod audit;
pub mod carry;
pub mod claims;
pub mod collect;
pub mod digest;
pub mod durable;
mod find;
pub mod hasher;
pub mod hub;
pub mod lines;
pub mod log;
pub mod pattern;
pub mod search;
mod segments;
pub mod tail;
pub mod unlinker;
pub mod walk;

pub use audit::Audit;
pub use claims::{Claim, Claims};
pub use collect::{Collected, collect};
pub use digest::Digest;
pub use find::OpenEnd;
pub use hasher::Hasher;
pub use hub::{ArmRequest, Hub, Watch};
pub use log::{Batch, Cursor, Item, Log, ReadError};
pub use pattern::{Pattern, PatternError};
pub use search::Search;
pub use tail::{From, Look, Tail, TailError, TailEvent, TailOptions};
pub use unlinker::{Hold, Unlinker};
pub use walk::{Met, Walk};

#[cfg(test)]
mod find_tests;
#[cfg(test)]
mod lines_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tail_tests;
#[cfg(test)]
mod testing;
