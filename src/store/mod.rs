//! THE LEDGER: every SQL statement, and the one task that writes.
//!
//! It knows the words of `job` and nothing above them: no shim, no file of the spool, no door.

mod handle;
mod sqlite;
mod types;
mod write;

pub use handle::Store;
pub use sqlite::keys::ShimSeed;
pub(crate) use sqlite::long_path::LongPath;
pub use sqlite::snapshot::{Snapshot, SnapshotError};
pub use types::*;
