//! What `pause`, `resume`, `cancel`, `kill` and `signal` have in common: one action on several
//! jobs.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{jobs::Jobs, link::Link};
use crate::cli::render::{describe, job::ShownJob, print};

/// Options of the verbs that act on jobs.
#[derive(Debug, clap::Args)]
pub struct ControlArgs {
    #[command(flatten)]
    jobs: Jobs,
}

impl ControlArgs {
    /// Applies `action` to every job, in order. A refusal for one does not stop the others.
    pub async fn act(self, action: &str) -> anyhow::Result<ExitCode> {
        self.act_with(json!({"action": action})).await
    }

    /// The same with more parameters: `params` is `job.control` without job and actor.
    pub async fn act_with(self, mut params: Value) -> anyhow::Result<ExitCode> {
        params["actor"] = json!("cli");
        let act = async |link: &mut Link, job| {
            params["job"] = job;
            let job = act_on(link, &params).await?;
            print::page(&format!("{} {}\n", job.number, describe::of(&job)))
        };
        self.jobs.each_live(act).await
    }
}

async fn act_on(link: &mut Link, params: &Value) -> anyhow::Result<ShownJob> {
    // A signal must not be sent twice: after a lost reply it is unknown whether it was sent once.
    if params["action"] != "signal" {
        return ShownJob::read(&link.request("job.control", params).await?);
    }
    match link.try_request("job.control", params).await? {
        Some(job) => ShownJob::read(&job),
        None => anyhow::bail!(
            "the server went away before it answered; it is unknown whether the signal was sent"
        ),
    }
}
