//! The audit trail as texts: entries, the chain of their hashes, signed checkpoints, and their verification
//! without a server (docs/design/audit.md). No I/O.
//!
//! The rows are in `store`, what is written there in `store/sqlite/audit_entries.rs`; `executor/audit` signs.

pub mod canonical;
pub mod chain;
pub mod checkpoint;
pub mod entry;
pub mod exported;
pub mod findings;
pub mod note;
pub mod ocsf;
pub mod refusals;
pub mod signer;
pub mod trail;

pub use chain::ChainHead;
pub use checkpoint::Checkpoint;
pub use entry::{AuditDecision, AuditEntry};
pub use exported::ExportedEntry;
pub use findings::TrailFinding;
pub use refusals::RefusalTally;
pub use signer::{NoteSigner, VerifierKey};
pub use trail::TrailCheck;
