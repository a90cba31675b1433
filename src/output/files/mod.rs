//! The server's work on segment files: syncing, copying and unlinking.

pub mod copy;
pub mod durable;
pub mod unlinker;
