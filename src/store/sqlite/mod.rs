//! The store's engine: SQLite, one task that writes and a few connections that read. Every SQL
//! statement about jobs is here.

pub(super) mod attempts;
mod batches;
pub(super) mod change;
pub(super) mod checkpoints;
pub(super) mod claim;
pub(super) mod columns;
pub(super) mod damage;
mod errno;
pub(super) mod error;
pub(super) mod events;
pub(super) mod execute;
pub(super) mod finish;
pub(super) mod inputs;
pub(super) mod job_snapshot;
pub(super) mod jobs;
pub(super) mod keys;
pub(super) mod list;
pub(super) mod log_bounds;
mod log_copier;
pub(super) mod long_path;
pub(super) mod mcp;
pub(super) mod migrate;
pub(super) mod nodes;
pub(super) mod open;
pub(super) mod outputs;
pub(super) mod presence;
pub(super) mod queues;
pub(super) mod read_gate;
pub(super) mod reader_pool;
pub(super) mod records;
pub(super) mod snapshot;
pub(super) mod state_counts;
pub(super) mod stop_requests;
pub(super) mod stored;
pub(super) mod view;
pub(super) mod writer;
