//! SQL over history: a statement of a user runs in a process of its own, which can read four views
//! and do nothing else, and which can be killed at any moment.
//!
//! `process` is the server's side, everything else lives in that process. Who may ask, and how often,
//! is not known here.

mod answer;
mod ask;
mod confine;
mod connection;
mod fence;
mod forbidden;
mod functions;
mod open;
mod output_table;
mod pieces;
mod process;
mod rules;
mod views;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use crate::spool::Layout;

pub use ask::{ParamError, QueryLimits, QueryParams, QueryRefusal, Question, Rows};
pub use process::{Queries, QueryAnswer, QuerySettings};

use ask::{QueryReply, Said};

/// The first word of the command line of such a process.
pub const ROLE: &str = "query";

/// The variable that names the data directory: in command lines it is the mark of shims.
const DATA_DIR: &str = "CC_EXECUTOR_QUERY_DATA_DIR";

/// The process: reads one [`Question`] from stdin, writes one reply to stdout. Both are JSON.
pub fn main() -> ExitCode {
    // Environments of jobs are in the files that it reads.
    crate::clean::seal();
    let Some(data_dir) = std::env::var_os(DATA_DIR) else {
        return ExitCode::from(2);
    };
    match serve(&Layout::new(data_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        // The server sees no reply, and says so.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(layout: &Layout) -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let ask: Question = serde_json::from_str(&text)?;
    confine::confine(&ask.bounds)?;
    let mut missing = Vec::from_iter(fence::files(layout).err());
    let reply = match answer::answer(layout, &ask, &mut missing) {
        Ok(rows) => QueryReply::Rows(rows),
        Err(refusal) => QueryReply::Refused(refusal),
    };
    let said = Said { reply, missing };
    io::stdout().write_all(serde_json::to_string(&said)?.as_bytes())
}
