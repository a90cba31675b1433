//! cc-executor: a persistent job-queue executor.
//!
//! Submitted commands become rows of a job table. Each job runs under a small shim process that
//! outlives the server, and its output is a log that any client can read from any offset. The modules
//! below are in reading order; ARCHITECTURE.md describes them.

pub mod job;

pub mod spool;

pub mod shim;

pub mod store;

pub mod output;

pub mod supervisor;

pub mod scheduler;

pub mod query;

pub mod executor;

pub mod protocol;

pub mod cli;

pub mod init;

pub mod launch;

pub mod config;

pub mod data_dir;

pub mod escape;
pub mod telemetry;

pub mod clean;
pub mod sys;
