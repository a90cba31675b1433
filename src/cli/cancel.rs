//! `cancel`: ends jobs with TERM, their grace, and KILL.

use std::process::ExitCode;

use super::control::ControlArgs;

/// Cancels the jobs; does not wait for their ends.
pub async fn cancel(args: ControlArgs) -> anyhow::Result<ExitCode> {
    args.act("cancel").await
}
