//! The command line: a client that uses only the public wire API, except for the server's own verbs
//! `serve`, `token` and `config`.
//!
//! `verbs` has one file per verb, `audit` exports and verifies audit trails, `connect` finds, starts and connects to
//! servers, `doctor` has what that verb checks, `mcp` relays an agent's messages, `flow` makes jobs of a file of tasks,
//! `new_job` makes a new job from options, `render` prints, `sql` is the prompt and the formats of results, `serve` has
//! what a server's process needs besides the server.

mod audit;
mod connect;
mod doctor;
mod flow;
mod mcp;
mod new_job;
mod render;
mod serve;
mod sql;
mod verbs;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context;
use clap::Parser;

use connect::autostart;
use render::{exit_code, print, reader, usage_error};
use verbs::Verb;

pub use connect::autostart::LAUNCH_ROLE;
pub use verbs::serve::McpRoutes;

/// A persistent job queue: commands that survive kills, restarts and lost connections.
#[derive(Debug, Parser)]
#[command(name = "cc-executor", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// The command line's `main`: parses the verb and runs it. `mcp` is the route of MCP for `serve`.
pub fn main(mcp: McpRoutes) -> ExitCode {
    let mut verb = match Cli::try_parse() {
        Ok(cli) => cli.verb,
        Err(refused) => return usage_error::print(&refused),
    };
    if let Verb::Serve(args) = &mut verb {
        args.mcp = mcp;
    }
    let failure = match verb {
        Verb::Run(_) => exit_code::RUN_FAILED,
        Verb::Search(_) => exit_code::SEARCH_FAILED,
        _ => exit_code::FAILURE,
    };
    match runtime(&verb).and_then(|runtime| {
        let result = runtime.block_on(perform(verb));
        // A thread that still waits for stdin or a pager must not keep the process alive.
        runtime.shutdown_background();
        result
    }) {
        Ok(code) => code,
        Err(error) if error.is::<print::ReaderLeft>() => ExitCode::from(exit_code::BROKEN_PIPE),
        Err(error) => {
            print::line(&print::chain(&error));
            ExitCode::from(failure)
        }
    }
}

/// The role that detaches from a command line and becomes a server: the first word is
/// [`LAUNCH_ROLE`], `args` are the words after it.
pub fn launch(args: impl Iterator<Item = OsString>) -> ExitCode {
    autostart::launch(args)
}

/// What `serve` has to do while the process has one thread. The error is an exit code: the start
/// failed, or the server ran outside of the job that this process is part of, and has ended.
pub fn prepare_to_serve() -> Result<(), ExitCode> {
    verbs::serve::prepare()
}

/// The server uses all cores; a client has one connection and needs one thread.
fn runtime(verb: &Verb) -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = match verb {
        Verb::Serve(_) => verbs::serve::runtime(),
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
    };
    runtime.context(
        "the kernel allows no further threads or files; see `ulimit -u` and `ulimit -n`, and the \
         limits of the container or service",
    )
}

/// Runs the verb. A verb that only reads also ends when the reader of its output has left, even
/// while it waits.
async fn perform(verb: Verb) -> anyhow::Result<ExitCode> {
    if !verb.ends_with_its_reader() {
        return verb.act().await;
    }
    let mut readers = reader::OutputReaders::of_stdout()?;
    tokio::select! {
        biased;
        done = verb.act() => done,
        _ = readers.left() => Err(print::ReaderLeft.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_verbs_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_takes_a_data_directory_after_its_name() {
        use clap::CommandFactory;
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            let takes = verb.get_arguments().any(|arg| arg.get_id() == "data_dir");
            assert!(takes, "{name}");
        }
    }
}
