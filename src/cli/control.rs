//! What `pause`, `resume`, `cancel`, `kill` and `signal` have in common: one action on several jobs.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    exit_code,
    job::Job,
    jobs,
    link::{self, Link, Start, Tell},
    say, sentence,
    target::Connect,
};

/// Options of the verbs that act on jobs.
#[derive(Debug, clap::Args)]
pub struct ControlArgs {
    #[command(flatten)]
    connect: Connect,

    /// The jobs: numbers, ids, unique names or `last`
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
}

impl ControlArgs {
    /// Does `action` to every job, in order. A job that refuses does not keep it from the others.
    pub async fn act(self, action: &str) -> anyhow::Result<ExitCode> {
        self.act_with(json!({"action": action})).await
    }

    /// The same with more parameters than the action.
    pub async fn act_with(self, mut params: Value) -> anyhow::Result<ExitCode> {
        let target = self.connect.target()?;
        let Some(mut link) = link::open(target, Start::IfData, Tell::Everybody).await? else {
            return jobs::no_jobs_at_all();
        };
        params["actor"] = json!("cli");
        let mut all_done = true;
        for name in &self.jobs {
            match act_on(&mut link, name, &mut params).await {
                Ok(job) => say::out(format!("{} {}\n", job.number, sentence::of(&job)).as_bytes())?,
                Err(error) => {
                    say::line(&format!("{name}: {error:#}"));
                    all_done = false;
                }
            }
        }
        let code = if all_done {
            exit_code::SUCCESS
        } else {
            exit_code::FAILURE
        };
        Ok(ExitCode::from(code))
    }
}

async fn act_on(link: &mut Link, name: &str, params: &mut Value) -> anyhow::Result<Job> {
    params["job"] = jobs::resolve(link, name).await?;
    // A signal must not come twice: after a lost reply nobody knows whether it came once.
    if params["action"] != "signal" {
        return Job::read(&link.request("job.control", params).await?);
    }
    match link.try_request("job.control", params).await? {
        Some(job) => Job::read(&job),
        None => anyhow::bail!(
            "the server went away before it answered; whether the signal was sent is not known"
        ),
    }
}
