//! `pause`: stops the process trees of running jobs; they keep their slots.

use std::process::ExitCode;

use crate::cli::connect::control::ControlArgs;

/// Pauses the jobs.
pub async fn pause(args: ControlArgs) -> anyhow::Result<ExitCode> {
    args.act("pause").await
}
