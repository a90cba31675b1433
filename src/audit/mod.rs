//! The audit trail as texts: entries, the chain of their hashes, signed checkpoints, and their verification
//! without a server (docs/design/audit.md). No I/O.
//!
//! The rows are in `store`, what is written there in `store/sqlite/audit_entries.rs`; `executor/audit` signs.

pub mod canonical;
pub mod chain;
pub mod checkpoint;
pub mod entry;
pub mod evidence;
pub mod exported;
pub mod file_check;
pub mod findings;
pub mod note;
pub mod ocsf;
pub mod refusals;
pub mod signer;
pub mod trail;
mod trail_keys;
pub mod trusted_keys;

pub use chain::ChainHead;
pub use checkpoint::Checkpoint;
pub use entry::{AuditDecision, AuditEntry};
pub use evidence::TrailEvidence;
pub use exported::ExportedEntry;
pub use file_check::TrailFileCheck;
pub use findings::TrailFinding;
pub use refusals::RefusalTally;
pub use signer::{KeyLink, NoteSigner, VerifierKey};
pub use trail::TrailCheck;

#[cfg(test)]
mod property_tests;
