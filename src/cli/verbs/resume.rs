//! `resume`: continues paused jobs.

use std::process::ExitCode;

use crate::cli::connect::control::ControlArgs;

/// Resumes the jobs.
pub async fn resume(args: ControlArgs) -> anyhow::Result<ExitCode> {
    args.act("resume").await
}
