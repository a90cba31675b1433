//! SQL over history: a user's statement runs in a process of its own, which can read four views and
//! do nothing else, and which can be killed at any moment.
//!
//! `process` is the server's side; all other modules run in the query process. The executor and the
//! protocol decide which clients may query.

mod confine;
mod connection;
#[cfg(test)]
mod differential;
mod execute;
mod fence;
mod forbidden;
mod functions;
mod messages;
mod moments;
mod open;
mod output_table;
mod process;
mod rules;
mod scan;
#[cfg(test)]
mod testing;
mod views;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use crate::spool::Layout;

pub use messages::{ParamError, QueryLimits, QueryParams, QueryRefusal, Question, Rows};
pub use process::{Queries, QueryAnswer, QuerySettings};

use messages::{QueryReply, ReplyMessage};

/// The first word of the command line of such a process.
pub const ROLE: &str = "query";

/// The environment variable that names the data directory. An option `--data-dir` would make the
/// process look like a shim, which is recognised by its command line.
const DATA_DIR: &str = "CC_EXECUTOR_QUERY_DATA_DIR";

/// The query process: reads one [`Question`] from stdin, writes one reply to stdout. Both are JSON.
pub fn main() -> ExitCode {
    // The files that it reads contain environments of jobs, so its memory is kept from core dumps.
    crate::clean::make_undumpable();
    let Some(data_dir) = std::env::var_os(DATA_DIR) else {
        return ExitCode::from(2);
    };
    match serve(&Layout::new(data_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        // The server sees that there is no reply, and reports it.
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(layout: &Layout) -> io::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let question: Question = serde_json::from_str(&text)?;
    confine::confine(&question.bounds)?;
    let mut missing = Vec::from_iter(fence::restrict_files(layout).err());
    let reply = match execute::execute(layout, &question, &mut missing) {
        Ok(rows) => QueryReply::Rows(rows),
        Err(refusal) => QueryReply::Refused(refusal.shortened()),
    };
    let message = ReplyMessage { reply, missing };
    io::stdout().write_all(serde_json::to_string(&message)?.as_bytes())
}
