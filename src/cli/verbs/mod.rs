//! The verbs, one per file: their options, and what they do.

mod audit;
mod backup;
mod cancel;
mod completions;
mod config;
mod doctor;
mod du;
mod explain;
mod export;
mod flow;
mod input;
mod kill;
mod ls;
mod mcp;
mod notify;
mod pause;
mod policy;
mod prune;
mod queue;
mod replay;
mod restart;
mod resume;
mod retention;
mod retry;
mod rm;
pub(super) mod run;
mod schedule;
mod search;
pub(super) mod serve;
mod show;
mod signal;
pub(super) mod sql;
mod status;
mod stop;
mod submit;
mod tail;
mod token;
mod update;
mod verify;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;

use super::connect::control;

/// A verb with its options. The first line of each is its line in `cc-executor --help`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command as a job, with its output and its exit code
    Run(run::RunArgs),
    /// Submit a job and return
    Submit(submit::SubmitArgs),
    /// Show a job's output and follow it
    Tail(tail::TailArgs),
    /// List jobs
    Ls(ls::LsArgs),
    /// Show everything about a job
    Show(show::ShowArgs),
    /// Say why a job is where it is: what it waits for, what its attempts were, what ended it
    Explain(explain::ExplainArgs),
    /// Wait until jobs have ended, and exit with their code
    Wait(wait::WaitArgs),
    /// Pause running jobs: stop all their processes until `resume`
    Pause(control::ControlArgs),
    /// Continue paused jobs
    Resume(control::ControlArgs),
    /// End jobs: SIGTERM, and SIGKILL after their grace period
    Cancel(control::ControlArgs),
    /// End jobs at once with SIGKILL
    Kill(control::ControlArgs),
    /// Send a signal to jobs
    Signal(signal::SignalArgs),
    /// Send text or stdin to an interactive job
    Input(input::InputArgs),
    /// Submit ended jobs again, as new jobs
    Retry(retry::RetryArgs),
    /// Change jobs that have not started
    Update(update::UpdateArgs),
    /// Check that a job's stored data is intact, and assertions about its output
    Verify(verify::VerifyArgs),
    /// Write a job's recording as text, JSON or an asciicast
    Export(export::ExportArgs),
    /// Show a job's output again, with its original pauses
    Replay(replay::ReplayArgs),
    /// Delete ended jobs with their output
    Rm(rm::RmArgs),
    /// Delete ended jobs by filters and age, or their output alone
    Prune(prune::PruneArgs),
    /// List, set and delete rules by which the server deletes ended jobs
    Retention(retention::RetentionArgs),
    /// Show what takes the disk space: by job, queue and label
    Du(du::DuArgs),
    /// List, create, change and delete queues
    Queue(queue::QueueArgs),
    /// List notices of jobs' states, try them again, and test their receivers
    Notify(notify::NotifyArgs),
    /// List, set, try and delete schedules: jobs at times of a calendar
    Schedule(schedule::ScheduleArgs),
    /// Run a file of tasks as one graph of jobs, and follow it
    Flow(flow::FlowArgs),
    /// Search outputs for lines with a text or a pattern
    Search(search::SearchArgs),
    /// Query the job history in SQL
    Sql(sql::SqlArgs),
    /// Serve MCP to an agent on stdin and stdout
    Mcp(mcp::McpArgs),
    /// Run the server
    Serve(serve::ServeArgs),
    /// Show the server's version, address and jobs
    Status(status::StatusArgs),
    /// Check this machine, the data directory and its server
    Doctor(doctor::DoctorArgs),
    /// Stop the server; running jobs go on
    Stop(stop::StopArgs),
    /// Stop the server and start it again; running jobs go on
    Restart(restart::RestartArgs),
    /// Copy the data directory while jobs run
    Backup(backup::BackupArgs),
    /// Export the audit trail, and verify an exported one without a server
    Audit(audit::AuditArgs),
    /// Show the settings and where they come from
    Config(config::ConfigArgs),
    /// Try a policy of allowed commands, check it for holes, and have the server load it again
    Policy(policy::PolicyArgs),
    /// Print the token that clients on TCP need
    Token(token::TokenArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Verb {
    /// Whether the verb only prints: then nothing is lost when it ends early.
    pub fn ends_with_its_reader(&self) -> bool {
        matches!(
            self,
            Self::Tail(_)
                | Self::Ls(_)
                | Self::Show(_)
                | Self::Wait(_)
                | Self::Verify(_)
                | Self::Replay(_)
                | Self::Search(_)
                | Self::Sql(_)
                | Self::Status(_)
                | Self::Doctor(_)
                | Self::Du(_)
        )
    }

    /// Runs the verb; the exit code of the process.
    pub async fn act(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(args).await,
            Self::Submit(args) => submit::submit(args).await,
            Self::Tail(args) => tail::tail(args).await,
            Self::Ls(args) => ls::ls(args).await,
            Self::Show(args) => show::show(args).await,
            Self::Wait(args) => wait::wait(args).await,
            Self::Pause(args) => pause::pause(args).await,
            Self::Resume(args) => resume::resume(args).await,
            Self::Cancel(args) => cancel::cancel(args).await,
            Self::Kill(args) => kill::kill(args).await,
            Self::Signal(args) => signal::signal(args).await,
            Self::Input(args) => input::input(args).await,
            Self::Explain(args) => explain::explain(args).await,
            Self::Retry(args) => retry::retry(args).await,
            Self::Update(args) => update::update(args).await,
            Self::Verify(args) => verify::verify(args).await,
            Self::Export(args) => export::export(args).await,
            Self::Replay(args) => replay::replay(args).await,
            Self::Rm(args) => rm::rm(args).await,
            Self::Prune(args) => prune::prune(args).await,
            Self::Retention(args) => retention::retention(args).await,
            Self::Du(args) => du::du(args).await,
            Self::Queue(args) => queue::queue(args).await,
            Self::Notify(args) => notify::notify(args).await,
            Self::Schedule(args) => schedule::schedule(args).await,
            Self::Flow(args) => flow::flow(args).await,
            Self::Search(args) => search::search(args).await,
            Self::Sql(args) => sql::sql(args).await,
            Self::Mcp(args) => mcp::mcp(args).await,
            Self::Serve(args) => serve::serve(args).await,
            Self::Status(args) => status::status(args).await,
            Self::Doctor(args) => doctor::doctor(args).await,
            Self::Stop(args) => stop::stop(args).await,
            Self::Restart(args) => restart::restart(args).await,
            Self::Backup(args) => backup::backup(args).await,
            Self::Audit(args) => audit::audit(args).await,
            Self::Config(args) => config::config(args).await,
            Self::Policy(args) => policy::policy(args).await,
            Self::Token(args) => token::token(args).await,
            Self::Completions(args) => completions::completions(args).await,
        }
    }
}
