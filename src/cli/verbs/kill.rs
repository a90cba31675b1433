//! `kill`: ends jobs with SIGKILL.

use std::process::ExitCode;

use crate::cli::connect::control::ControlArgs;

/// Kills the jobs; does not wait until they have ended.
pub async fn kill(args: ControlArgs) -> anyhow::Result<ExitCode> {
    args.act("kill").await
}
