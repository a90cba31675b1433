//! A new job as the command line describes it: its options, what it inherits from the shell, and
//! files with many jobs.

pub(super) mod caller;
pub(super) mod many;
pub(super) mod moment;
pub(super) mod notify;
pub(super) mod options;
mod waiting;
