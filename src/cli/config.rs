//! `config`: prints each setting with its origin.

use std::process::ExitCode;

/// Options of `config`.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {}

/// Runs the verb.
pub async fn config(_args: ConfigArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no settings")
}
