//! Flows: a file of tasks that becomes one graph of jobs. The server knows nothing of flows: their jobs
//! have labels, wait for each other, and have idempotency keys.
//!
//! `tree`, `toml` and `yaml` read files, `file` makes steps of them (`step_command` and `template` their
//! commands, `graph` their order), `new_jobs` makes jobs of steps (`labels` names them). `check` and
//! `review` are what jobs of a flow run to decide whether the next step starts: `rules` is what they are
//! given, `ask` how they talk to the server, `fix_list` what a reviewer writes. `state` reads a flow's jobs
//! back, `again` submits steps anew, `follow` waits, `table` prints. docs/design/flows.md has reasons.

pub(super) mod again;
mod ask;
pub(super) mod check;
pub(super) mod file;
mod fix_list;
pub(super) mod follow;
mod graph;
mod labels;
pub(super) mod new_jobs;
pub(super) mod review;
mod rules;
pub(super) mod state;
mod step_command;
pub(super) mod table;
mod template;
mod toml;
mod tree;
mod yaml;
