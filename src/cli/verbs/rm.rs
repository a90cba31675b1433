//! `rm`: deletes final jobs with their output.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::connect::{client::RequestError, jobs::Jobs, link::Link, wire::WireError};

/// Options of `rm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Only jobs that have ended can be deleted; `cancel` ends one first. Their output is deleted with them; \
their events stay in the history. Exit code: 0 when all are deleted, 1 when one is not.")]
pub struct RmArgs {
    #[command(flatten)]
    jobs: Jobs,
}

/// Deletes the jobs.
pub async fn rm(args: RmArgs) -> anyhow::Result<ExitCode> {
    args.jobs.each(delete).await
}

async fn delete(link: &mut Link, job: Value) -> anyhow::Result<()> {
    let params = json!({"job": job});
    if link.try_request("job.delete", &params).await?.is_some() {
        return Ok(());
    }
    // The server went away and may have deleted the job before: "not found" is a success then.
    match link.request("job.delete", &params).await {
        Err(error) if is_not_found(&error) => Ok(()),
        answer => answer.map(drop),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RequestError::Refused(refusal))
        if refusal.code == WireError::NOT_FOUND)
}
