//! Reads output from any offset, wherever it lies: rows of finished small outputs, segments of all
//! others.

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
