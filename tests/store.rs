//! The floor of the ledger: a real database file, and nothing above it.

// A test that meets an error it did not expect has failed.
#![allow(clippy::unwrap_used)]

#[path = "store/ledger.rs"]
mod ledger;

#[path = "store/audit.rs"]
mod audit;
#[path = "store/batches.rs"]
mod batches;
#[path = "store/changes.rs"]
mod changes;
#[path = "store/claims.rs"]
mod claims;
#[path = "store/files.rs"]
mod files;
#[path = "store/inputs.rs"]
mod inputs;
#[path = "store/lists.rs"]
mod lists;
#[path = "store/losses.rs"]
mod losses;
#[path = "store/many.rs"]
mod many;
#[path = "store/migrates.rs"]
mod migrates;
#[path = "store/outputs.rs"]
mod outputs;
#[path = "store/plans.rs"]
mod plans;
#[path = "store/queues.rs"]
mod queues;
#[path = "store/retention.rs"]
mod retention;
#[path = "store/schedules.rs"]
mod schedules;
#[path = "store/submissions.rs"]
mod submissions;
#[path = "store/tokens.rs"]
mod tokens;
#[path = "store/transitions.rs"]
mod transitions;
#[path = "store/views.rs"]
mod views;
#[path = "store/wishes.rs"]
mod wishes;
