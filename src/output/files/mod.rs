//! What is done to the files of an output: they are synced, copied and unlinked.

pub mod copy;
pub mod durable;
pub mod unlinker;
