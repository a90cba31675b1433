//! The server over its public doors: real binary, raw clients, one behaviour per test.
//! Knows only what the contract promises.

#[path = "../harness/mod.rs"]
mod harness;
