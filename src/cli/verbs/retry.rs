//! `retry`: submits final jobs again, as new ones.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use super::tail;
use crate::cli::{
    connect::{
        client::RequestError,
        jobs::Jobs,
        link::{self, Link, VersionNotice},
    },
    render::{job::ShownJob, print},
};

/// Options of `retry`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints the ids of the new jobs. They have the command, environment and stdin of the old ones; input \
that was sent to an interactive job is not sent again. They go on when this command ends, also those of \
jobs that were submitted with on_disconnect. Exit code: 0 when all were submitted, 1 when \
one was not.")]
pub struct RetryArgs {
    #[command(flatten)]
    jobs: Jobs,

    /// Show the output of the new job and follow it; only for one job
    #[arg(long)]
    tail: bool,

    /// Also submit again what depends on the jobs and has not succeeded, in the same order
    #[arg(long, conflicts_with = "tail")]
    with_dependants: bool,
}

/// Submits the jobs again.
pub async fn retry(args: RetryArgs) -> anyhow::Result<ExitCode> {
    if args.tail && args.jobs.names.len() > 1 {
        bail!("only one job can be followed; leave out --tail, or name one job");
    }
    let mut last = None;
    let act = async |link: &mut Link, job| {
        let mut params = json!({"job": job});
        if args.with_dependants {
            params["with_dependants"] = json!(true);
            let reply = send(link, params).await?;
            let jobs = reply["jobs"].as_array().into_iter().flatten();
            let ids = jobs.filter_map(|job| Some(format!("{}\n", job["id"].as_str()?)));
            return print::page(&ids.collect::<String>());
        }
        let job = ShownJob::read(&send(link, params).await?)?;
        if !args.tail {
            print::page(&format!("{}\n", job.id))?;
        }
        print::line_on_terminal(&format!(
            "submitted as job {0}; `cc-executor tail {0}` follows it",
            job.number
        ));
        last = Some(job.id);
        Ok(())
    };
    let code = args.jobs.each(act).await?;
    match last.filter(|_| args.tail) {
        Some(id) => {
            let link =
                link::open_always(args.jobs.connect.target()?, VersionNotice::OnTerminal).await?;
            tail::whole(link, json!(id)).await
        }
        None => Ok(code),
    }
}

/// Sends a `job.retry`. The new job must not be cancelled because this process ends and closes its
/// connection. The request has no idempotency key, so it is not repeated after a lost reply: that could make
/// a second job.
async fn send(link: &mut Link, mut params: Value) -> anyhow::Result<Value> {
    params["on_disconnect"] = json!("continue");
    let mut reply = link.try_request("job.retry", &params).await;
    // A server of an earlier version refuses the key.
    if reply.as_ref().is_err_and(does_not_know_the_key) {
        params
            .as_object_mut()
            .map(|keys| keys.remove("on_disconnect"));
        reply = link.try_request("job.retry", &params).await;
    }
    match reply? {
        Some(reply) => Ok(reply),
        None => bail!(
            "the server went away before it answered; `cc-executor ls` shows whether there is a new job"
        ),
    }
}

fn does_not_know_the_key(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<RequestError>();
    matches!(refused, Some(RequestError::Refused(error)) if error.data["key"] == "on_disconnect")
}
