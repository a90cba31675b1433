//! Moves jobs from state to state without a request: `claim` gives queued jobs to free shims, `end`
//! commits how attempts ended, `rescue` decides about attempts whose shim is gone.

pub mod claim;
mod end;
pub mod rescue;
mod wakeup;

pub use claim::Scheduler;
pub use wakeup::Wakeup;
