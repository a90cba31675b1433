//! The command line: one verb per file. A client like any other, it speaks only the public wire
//! API (`serve`, `token` and `config` aside, which are the server's own verbs).
//!
//! How verbs are laid out: `target` names a server, `client` is one connection to it, `link` one
//! that comes back, `autostart` starts servers, `follow` is a tail that survives its connection.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

mod autostart;
mod backup;
mod caller;
mod cancel;
mod cast;
mod client;
mod completions;
mod config;
mod control;
mod duration;
mod each;
mod exit_code;
mod export;
mod follow;
mod forward;
mod holder;
mod input;
mod job;
mod job_options;
mod jobs;
mod kill;
mod last_lines;
mod link;
mod ls;
mod many;
mod new_file;
mod outputs;
mod pause;
mod proc;
mod queue;
mod reader;
mod recording;
mod replay;
mod restart;
mod resume;
mod retry;
mod rhythm;
mod rm;
mod run;
mod say;
mod sentence;
mod serve;
mod shell;
mod show;
mod signal;
mod signals;
mod sql;
mod status;
mod stdin;
mod stop;
mod submit;
mod tail;
mod target;
mod times;
mod token;
mod update;
mod usage;
mod verify;
mod wait;
mod wire;

pub use autostart::LAUNCH_ROLE;

/// A persistent job queue: commands that survive kills, restarts and lost connections.
#[derive(Debug, Parser)]
#[command(name = "cc-executor", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command as a job and behave like it
    Run(run::RunArgs),
    /// Hand a job in and return
    Submit(submit::SubmitArgs),
    /// Show a job's output and follow it
    Tail(tail::TailArgs),
    /// List jobs
    Ls(ls::LsArgs),
    /// Show everything about a job
    Show(show::ShowArgs),
    /// Wait for jobs and exit like them
    Wait(wait::WaitArgs),
    /// Stop the process trees of running jobs for a while
    Pause(control::ControlArgs),
    /// Let paused jobs go on
    Resume(control::ControlArgs),
    /// End jobs: TERM, their grace, KILL
    Cancel(control::ControlArgs),
    /// End jobs at once
    Kill(control::ControlArgs),
    /// Send a signal to jobs
    Signal(signal::SignalArgs),
    /// Send text or our stdin to a job that takes input
    Input(input::InputArgs),
    /// Submit final jobs once more
    Retry(retry::RetryArgs),
    /// Change jobs that have not started
    Update(update::UpdateArgs),
    /// Check that a job is stored as it was recorded, and claims about its output
    Verify(verify::VerifyArgs),
    /// Write a job's recording as text, JSON or an asciicast
    Export(export::ExportArgs),
    /// Show a job's output again with the pauses that it had
    Replay(replay::ReplayArgs),
    /// Delete final jobs with their output
    Rm(rm::RmArgs),
    /// List queues, make, change and delete them
    Queue(queue::QueueArgs),
    /// Ask the history in SQL
    Sql(sql::SqlArgs),
    /// Run the server
    Serve(serve::ServeArgs),
    /// Show how the server is
    Status(status::StatusArgs),
    /// Stop the server; running jobs live on
    Stop(stop::StopArgs),
    /// Stop the server and start it again; running jobs live on
    Restart(restart::RestartArgs),
    /// Copy the data directory while jobs run
    Backup(backup::BackupArgs),
    /// Show the settings and where they come from
    Config(config::ConfigArgs),
    /// Show the token for TCP
    Token(token::TokenArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// The command line's own `main`: reads the verb and does it.
pub fn main() -> ExitCode {
    let verb = match Cli::try_parse() {
        Ok(cli) => cli.verb,
        Err(refused) => return usage::refuse(&refused),
    };
    let failure = match verb {
        Verb::Run(_) => exit_code::OURS,
        _ => exit_code::FAILURE,
    };
    match runtime(&verb).and_then(|runtime| {
        let result = runtime.block_on(perform(verb));
        // A thread that still waits for a pager must not keep the process.
        runtime.shutdown_background();
        result
    }) {
        Ok(code) => code,
        Err(error) if error.is::<say::NobodyReads>() => ExitCode::from(exit_code::BROKEN_PIPE),
        Err(error) => {
            say::line(&say::chain(&error));
            ExitCode::from(failure)
        }
    }
}

/// The role that detaches from a command line and becomes a server: the first word is
/// [`LAUNCH_ROLE`], `args` are those behind it.
pub fn launch(args: impl Iterator<Item = OsString>) -> ExitCode {
    autostart::launch(args)
}

/// What `serve` has to do before there is another thread; where it is done already, or must not be
/// here, the exit code.
pub fn prepare_to_serve() -> Result<(), ExitCode> {
    serve::prepare()
}

/// The server uses all cores; a client has one connection and needs one thread.
fn runtime(verb: &Verb) -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = match verb {
        Verb::Serve(_) => serve::runtime(),
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
    };
    runtime.context(
        "the kernel allows no further threads or files; see `ulimit -u` and `ulimit -n`, and the \
         limits of the container or service",
    )
}

/// Does what the verb says. One that only reads ends when its reader has left, also while it waits.
async fn perform(verb: Verb) -> anyhow::Result<ExitCode> {
    if !verb.only_reads() {
        return act(verb).await;
    }
    let mut readers = reader::Readers::of_stdout()?;
    tokio::select! {
        biased;
        done = act(verb) => done,
        _ = readers.left() => Err(say::NobodyReads.into()),
    }
}

impl Verb {
    /// Whether all that it does is to print: nothing is lost when it ends in the middle.
    fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Tail(_)
                | Self::Ls(_)
                | Self::Show(_)
                | Self::Wait(_)
                | Self::Verify(_)
                | Self::Replay(_)
                | Self::Sql(_)
                | Self::Status(_)
        )
    }
}

async fn act(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run(args) => run::run(args).await,
        Verb::Submit(args) => submit::submit(args).await,
        Verb::Tail(args) => tail::tail(args).await,
        Verb::Ls(args) => ls::ls(args).await,
        Verb::Show(args) => show::show(args).await,
        Verb::Wait(args) => wait::wait(args).await,
        Verb::Pause(args) => pause::pause(args).await,
        Verb::Resume(args) => resume::resume(args).await,
        Verb::Cancel(args) => cancel::cancel(args).await,
        Verb::Kill(args) => kill::kill(args).await,
        Verb::Signal(args) => signal::signal(args).await,
        Verb::Input(args) => input::input(args).await,
        Verb::Retry(args) => retry::retry(args).await,
        Verb::Update(args) => update::update(args).await,
        Verb::Verify(args) => verify::verify(args).await,
        Verb::Export(args) => export::export(args).await,
        Verb::Replay(args) => replay::replay(args).await,
        Verb::Rm(args) => rm::rm(args).await,
        Verb::Queue(args) => queue::queue(args).await,
        Verb::Sql(args) => sql::sql(args).await,
        Verb::Serve(args) => serve::serve(args).await,
        Verb::Status(args) => status::status(args).await,
        Verb::Stop(args) => stop::stop(args).await,
        Verb::Restart(args) => restart::restart(args).await,
        Verb::Backup(args) => backup::backup(args).await,
        Verb::Config(args) => config::config(args).await,
        Verb::Token(args) => token::token(args).await,
        Verb::Completions(args) => completions::completions(args).await,
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
