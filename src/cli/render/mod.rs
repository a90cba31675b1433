//! Everything that the command line prints: jobs, times, recordings and errors, as lines, pages and
//! exit codes.

pub(super) mod asciicast;
pub(super) mod describe;
pub(super) mod duration;
pub(super) mod exit_code;
pub(super) mod export_output;
pub(super) mod graph;
pub(super) mod job;
pub(super) mod last_lines;
pub(super) mod new_file;
pub(super) mod outputs;
pub(super) mod pacing;
pub(super) mod print;
pub(super) mod reader;
pub(super) mod receiver;
pub(super) mod recording;
pub(super) mod shell;
pub(super) mod size;
pub(super) mod time_zone;
pub(super) mod times;
pub(super) mod usage_error;
pub(super) mod verdict;
