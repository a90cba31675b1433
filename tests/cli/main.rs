//! The command line as a shell calls it: real binary, no server but the one that it starts.
//! Knows only what the contract promises.

#[path = "../harness/mod.rs"]
mod harness;

mod agent;
mod audit;
mod callers;
mod clock;
mod cookbook;
mod directories;
mod doctor;
mod drains;
mod escapes;
mod flow;
mod in_a_job;
mod input;
mod long_messages;
mod lost_replies;
mod manage;
mod mcp;
mod non_blocking;
mod policy;
mod readers;
mod reconnects;
mod recordings;
mod restarts;
mod retention;
mod run;
mod search;
mod selfstart;
mod sql;
mod sql_prompt;
mod survives;
mod tokens;
mod variables;
mod verbs;
