//! Reads output from any offset. Small outputs of finished attempts are rows in the store; all others
//! are segment files.

pub mod collect;
pub(super) mod find;
#[cfg(test)]
mod find_tests;
pub mod item;
pub mod lines;
#[cfg(test)]
mod lines_tests;
pub mod log;
#[cfg(test)]
mod log_tests;
pub(super) mod segments;
