//! The checkers: pure functions over the evidence of a run. Each has a test with a planted
//! violation, which it must find, beside one without, which it must pass.

pub mod answers;
pub mod audit;
pub mod bytes;
pub mod dependencies;
pub mod ends;
pub mod exclusive;
pub mod intact;
pub mod leftovers;
pub mod notices;
pub mod presence;
pub mod readers;
pub mod retries;
pub mod schedules;
pub mod starts;
pub mod streams;
pub mod times;
pub mod transitions;

#[cfg(test)]
pub mod scene;

use crate::plan::Key;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Who found it.
    pub check: &'static str,
    /// The job concerned.
    pub job: Option<Key>,
    pub what: String,
}

impl Violation {
    /// One about a job.
    pub fn of(check: &'static str, job: Key, what: impl Into<String>) -> Self {
        let what = what.into();
        Self {
            check,
            job: Some(job),
            what,
        }
    }

    /// One about no job in particular.
    pub fn general(check: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self {
            check,
            job: None,
            what,
        }
    }
}
