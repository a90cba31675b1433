//! cc-executor: a persistent job-queue executor.
//!
//! Submitted commands become rows of a job table. Each job runs under a small shim process that
//! outlives the server, and its output is a log that any client can read from any offset.
//!
//! The modules below are listed from the ground up: a module may use those above it and none below
//! it (`scripts/imports` checks this). ARCHITECTURE.md is the map.

// The words, and tools.
pub mod job;
pub mod sys;

pub mod access;

pub mod data_dir;
pub mod escape;

pub mod config;
pub mod telemetry;

// Processes of their own, and what they leave on the disk.
pub mod spool;

pub mod launch;

pub mod clean;

pub mod shim;

// The server.
pub mod policy;

pub mod audit;

pub mod secrets;

pub mod store;

pub mod output;

pub mod supervisor;

pub mod scheduler;

pub mod query;

pub mod notices;

pub mod executor;

pub mod protocol;

// What is run from a shell.
pub mod init;

pub mod cli;

pub mod role;
