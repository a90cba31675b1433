//! `cancel`: ends jobs with TERM, their grace, and KILL.

use std::process::ExitCode;

use crate::cli::connect::control::ControlArgs;

/// Cancels the jobs; does not wait for their ends.
pub async fn cancel(args: ControlArgs) -> anyhow::Result<ExitCode> {
    args.act("cancel").await
}
