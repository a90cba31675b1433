//! The database (the ledger): every SQL statement about jobs, and the one task that writes.
//!
//! It builds on the types of `job`. Shims, the spool's files and the interfaces are outside of it.

mod audit;
mod audit_types;
mod firing;
mod handle;
mod mcp;
mod notices;
mod retention;
mod retention_types;
mod schedules;
mod sqlite;
mod token_types;
mod tokens;
mod types;
mod write;

pub use audit_types::*;
pub use firing::{Fired, Firing, FiringCause, RunPlan, RunRefused, ScheduleSet, SubmittedRun};
pub use handle::Store;
pub use retention_types::*;
pub use sqlite::audit_entries::{FIRED_VERSION, commands_digest};
pub use sqlite::keys::ShimSeed;
pub(crate) use sqlite::long_path::LongPath;
pub use sqlite::migrate::OnMigration;
pub use sqlite::read_gate::{LogTooLong, LongRead, LongReadKind, ReadGate};
pub use sqlite::snapshot::{Snapshot, SnapshotError};
pub use token_types::*;
pub use types::*;
