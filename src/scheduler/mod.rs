//! Moves jobs from state to state without a request: `claim` gives queued jobs to free shims, `end`
//! commits how attempts ended, `due` queues those whose time has come, `rescue` decides about attempts whose shim is gone.

pub mod claim;
mod due;
mod end;
mod expect;
pub mod rescue;
mod wakeup;

pub use claim::Scheduler;
pub use due::DueJobs;
pub use wakeup::Wakeup;
