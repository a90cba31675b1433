//! `completions`: prints a completion script for a shell.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::{Cli, connect::target::DataDir, render::print};

/// Options of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    #[command(flatten)]
    dir: DataDir,

    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints the script.
pub async fn completions(args: CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print::out(&script)?;
    Ok(ExitCode::SUCCESS)
}
