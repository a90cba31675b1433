//! Flows: a file of tasks that becomes one graph of jobs. The server knows nothing of flows: their jobs
//! have labels, wait for each other, and have idempotency keys.
//!
//! `tree`, `toml` (with `places`) and `yaml` read files. `file`, `step_reader` and `file_values` make steps of
//! them (`step`), `step_command` and `template` their commands, `graph` their order; `new_jobs` makes jobs of
//! steps, which `labels` names. `check` and `review` are what jobs of a flow run to decide whether the next step
//! starts: `rules` is what they are given, `ask` how they talk to the server, `fix_list` (with `stdout_end`) what
//! a reviewer writes. `state` reads a flow's jobs back, `again` submits steps anew, `follow` waits, `table` prints.
//! docs/design/flows.md has reasons.

pub(super) mod again;
mod ask;
pub(super) mod check;
pub(super) mod file;
mod file_values;
mod fix_list;
pub(super) mod follow;
mod graph;
pub(super) mod labels;
pub(super) mod new_jobs;
mod places;
pub(super) mod review;
mod rules;
pub(super) mod state;
mod stdout_end;
pub(super) mod step;
mod step_command;
mod step_reader;
pub(super) mod table;
mod template;
mod toml;
mod tree;
mod yaml;
