//! The shim floor: real shims with real processes, one behaviour per file. The tests play the
//! server over the shim's socket and read its segments.

#[path = "shim/harness.rs"]
mod harness;

#[path = "shim/runs_a_job.rs"]
mod runs_a_job;
