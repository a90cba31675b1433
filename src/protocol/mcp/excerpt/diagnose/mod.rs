//! Finds errors, failures and warnings in the output of compilers, test runners, package managers and
//! shells.
//!
//! `rules` says how a line of each kind begins, `words` what else makes one suspicious, `recognize` finds the rule of a line, `following` says
//! which of the next lines belong to it, and `collect` keeps the first and the last ones of each
//! severity.

mod collect;
mod diagnostic;
mod following;
mod open;
mod recognize;
mod rules;
mod words;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use rules::Severity;

pub(super) use collect::Collector;

#[cfg(test)]
mod collect_tests;
