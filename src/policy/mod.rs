//! The policy: which jobs are taken. Rules of a TOML file judge the program, the words, the directory
//! and the names of variables of a job; shell text is never read for what it would do.
//!
//! `judge` decides and is pure; `locate` asks the file system what a job's first word leads to.
//! Reasons are in docs/design/policy.md.

mod bounds;
#[cfg(test)]
mod bypass_tests;
mod digests;
mod example;
mod examples;
mod guard;
mod judge;
#[cfg(test)]
mod judge_tests;
mod lint;
mod locate;
mod names;
mod predicate;
#[cfg(test)]
mod property_tests;
mod read;
mod rule;
mod subject;
#[cfg(test)]
mod testing;
mod toml_value;
mod urls;
mod words;

pub use bounds::JobBounds;
pub use digests::{DIGEST_BYTES_MAX, FileDigest};
pub use guard::{Judgement, NotJudged, PolicyGuard, PolicyStatus, PolicyView, read_file};
pub use judge::{RuleReport, Verdict};
pub use lint::LintFinding;
pub use locate::{BASE_PATH, look_up_with_digest};
pub use predicate::{Predicate, PredicateFailure};
pub use read::{POLICY_BYTES_MAX, PolicyError};
pub use rule::{Policy, PolicyRule, RuleEffect};
pub use subject::{Judged, LocatedProgram, Subject};
pub use toml_value::PolicyMistake;
pub use urls::JudgedUrl;
