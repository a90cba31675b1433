//! `config`: prints each setting with its origin.

use std::process::ExitCode;

/// Options of `config`.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    dir: super::target::DataDir,
}

/// Runs the verb.
pub async fn config(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let _ = args.dir.layout()?;
    anyhow::bail!("this build has no settings")
}
