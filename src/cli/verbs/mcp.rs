//! `mcp`: MCP over stdio for an agent, relayed to the server.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use crate::cli::{
    connect::target::{Connect, Target},
    mcp::{bridge::Bridge, caller, reach::ServerReach},
    new_job::caller::ShellCaller,
    render::{exit_code, print},
};

/// Options of `mcp`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
An agent starts this command and speaks MCP on its stdin and stdout, one JSON-RPC message per line. It \
ends when stdin ends; jobs run on. When the server is restarted, calls that wait are sent again and \
answered then: no job is run twice.

Jobs run in the directory, and with the environment, in which the agent started this command, unless a \
call names others. With --server neither is sent.")]
pub struct McpArgs {
    #[command(flatten)]
    connect: Connect,

    /// Do not send the environment of this command: jobs run with the server's clean one
    #[arg(long)]
    clean_env: bool,
}

/// Relays until the client leaves.
pub async fn mcp(args: McpArgs) -> anyhow::Result<ExitCode> {
    if io::stdin().is_terminal() {
        print::line(
            "waiting for MCP messages on stdin; an agent starts this command (docs/mcp.md)",
        );
    }
    let target = args.connect.target()?;
    let caller = match target {
        Target::Local(_) => {
            let caller = ShellCaller::of_this_process();
            Some(caller::notification(&caller, !args.clean_env)?)
        }
        Target::Remote { .. } => None,
    };
    let is_well = Bridge::start(ServerReach::new(target), caller)?.run().await;
    Ok(ExitCode::from(match is_well {
        true => exit_code::SUCCESS,
        // What is wrong was printed when it was found.
        false => exit_code::FAILURE,
    }))
}
