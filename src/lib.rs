//! cc-executor: a persistent job-queue executor.
//!
//! Submitted commands become rows of a job table; each runs under a small shim process that
//! outlives the server; their output is a log that any client can read from any offset. The
//! modules below are listed in reading order; ARCHITECTURE.md is the map.

pub mod cli;
pub mod clock;
pub mod config;
pub mod executor;
pub mod job;
pub mod protocol;
pub mod shutdown;
pub mod spool;
pub mod store;
pub mod telemetry;
