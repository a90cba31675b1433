//! `serve`: runs the server in the foreground.

use std::process::ExitCode;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    dir: super::target::DataDir,
}

/// Runs the server until it is told to stop.
pub async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let _ = args.dir.layout()?;
    anyhow::bail!("this build has no server")
}
