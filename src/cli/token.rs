//! `token`: prints the token for TCP.

use std::process::ExitCode;

/// Options of `token`.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    #[command(flatten)]
    dir: super::target::DataDir,
}

/// Runs the verb.
pub async fn token(args: TokenArgs) -> anyhow::Result<ExitCode> {
    let _ = args.dir.layout()?;
    anyhow::bail!("this build has no tokens")
}
