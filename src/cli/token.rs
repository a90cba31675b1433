//! `token`: prints the token for TCP.

use std::process::ExitCode;

/// Options of `token`.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {}

/// Runs the verb.
pub async fn token(_args: TokenArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no tokens")
}
