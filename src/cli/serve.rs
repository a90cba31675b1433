//! `serve`: runs the server in the foreground.

use std::process::ExitCode;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}

/// Runs the server until it is told to stop.
pub async fn serve(_args: ServeArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no server")
}
