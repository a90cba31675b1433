//! `cancel`: ends jobs with SIGTERM, and with SIGKILL after their grace.

use std::process::ExitCode;

use crate::cli::connect::control::ControlArgs;

/// Cancels the jobs; does not wait until they have ended.
pub async fn cancel(args: ControlArgs) -> anyhow::Result<ExitCode> {
    args.act("cancel").await
}
