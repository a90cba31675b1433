//! The JOB arguments of a verb, and a loop that applies an action to each job in order. An error
//! for one job does not stop the others.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    find_job,
    link::{self, Link, StartPolicy, VersionNotice},
    target::Connect,
};
use crate::cli::render::{exit_code, print};

/// The jobs of a verb that takes several, and where they are.
#[derive(Debug, clap::Args)]
pub struct Jobs {
    #[command(flatten)]
    pub connect: Connect,

    /// The jobs: numbers, ids, names (the newest of a name), or `last` for the newest of all
    #[arg(required = true, value_name = "JOB")]
    pub names: Vec<String>,
}

impl Jobs {
    /// Applies `act` to every job, in order. Prints errors; the exit code is 1 if there was one.
    pub async fn each(
        &self,
        act: impl AsyncFnMut(&mut Link, Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        self.each_found(async |link, name| find_job::resolve(link, name).await, act)
            .await
    }

    /// The same for what only jobs that are not final can do: a name means the newest one that is not.
    pub async fn each_live(
        &self,
        act: impl AsyncFnMut(&mut Link, Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        self.each_found(
            async |link, name| find_job::resolve_live(link, name).await,
            act,
        )
        .await
    }

    async fn each_found(
        &self,
        find: impl AsyncFn(&mut Link, &str) -> anyhow::Result<Value>,
        mut act: impl AsyncFnMut(&mut Link, Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let target = self.connect.target()?;
        let Some(mut link) = link::open(target, StartPolicy::IfData, VersionNotice::Always).await?
        else {
            return find_job::no_jobs();
        };
        let mut code = exit_code::SUCCESS;
        for name in &self.names {
            let done = match find(&mut link, name).await {
                Ok(job) => act(&mut link, job).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => {}
                Err(error) if error.is::<print::ReaderLeft>() => return Err(error),
                Err(error) => {
                    print::line(&format!("{name}: {error:#}"));
                    code = exit_code::FAILURE;
                }
            }
        }
        Ok(ExitCode::from(code))
    }
}
