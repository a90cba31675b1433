//! The tools. `table` has one row for each, and there is one file per tool.
//!
//! `call` is what a tool gets, `arguments` reads what several tools take, `waiting` waits with progress, and
//! `output` shows output, `last_line` its end.

mod arguments;
pub mod call;
mod control;
pub mod last_line;
mod list_jobs;
pub mod output;
mod query_history;
mod read_output;
mod run;
mod search_output;
mod send_input;
pub mod table;
mod verify_transcript;
mod wait;
mod waiting;
