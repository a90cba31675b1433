//! `submit`: hands a job in and returns at once. Also the handing in that `run` begins with.

use std::{cell::Cell, path::PathBuf, process::ExitCode};

use serde_json::{Map, Value};

use crate::{
    cli::{
        connect::{
            client::RequestError,
            link::{self, Link, Tell},
            target::{Connect, Target},
        },
        new_job::{caller::ShellCaller, many, options::JobOptions},
        render::{job::ShownJob, print},
    },
    job::NewJob,
};

/// Options of `submit`.
#[derive(Debug, clap::Args)]
pub struct SubmitArgs {
    #[command(flatten)]
    connect: Connect,

    /// Print the whole reply as JSON instead of the job's id
    #[arg(long)]
    json: bool,

    /// Submit many jobs: each line of the file (- for stdin) is one job as a JSON object, with the
    /// keys of `job.submit`; the other options set the keys that a line leaves out
    #[arg(long, value_name = "FILE", group = "command")]
    many: Option<PathBuf>,

    #[command(flatten)]
    job: JobOptions,
}

/// Submits the job and prints its id.
pub async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    if let Some(path) = &args.many {
        let jobs = many::read(path, &args.job.template(caller(&target).as_ref())?)?;
        let mut link = link::open_always(target, Tell::Everybody).await?;
        return many::submit(&mut link, jobs, args.json).await;
    }
    let new_job = describe(&args.job, &target, NewJob::QUEUE)?;
    let (_, reply) = HandIn::default()
        .hand_in(target, new_job, Tell::Everybody)
        .await?;
    let job = ShownJob::read(&reply["job"])?;
    if args.json {
        print::json(&reply)?;
    } else {
        print::page(&format!("{}\n", job.id))?;
    }
    let verb = match reply["created"].as_bool() {
        Some(false) => "is known by its key and was not submitted again",
        _ => "submitted",
    };
    print::to_person(&format!(
        "job {0} {verb}; `cc-executor tail {0}` follows it",
        job.number
    ));
    Ok(ExitCode::SUCCESS)
}

/// The NewJob that the options describe, with what it inherits from this shell: everything for a
/// server on this machine, nothing for another one.
pub fn describe(
    options: &JobOptions,
    target: &Target,
    queue: &str,
) -> anyhow::Result<Map<String, Value>> {
    options.new_job(caller(target).as_ref(), queue)
}

fn caller(target: &Target) -> Option<ShellCaller> {
    match target {
        Target::Local(_) => Some(ShellCaller::of_this_process()),
        Target::Remote { .. } => None,
    }
}

/// A submit on its way.
#[derive(Debug, Default)]
pub struct HandIn {
    /// Whether it may have reached the server: from then on there may be a job.
    pub sent: Cell<bool>,
}

impl HandIn {
    /// Submits until there is a reply; the idempotency key makes that one job. Returns the
    /// connection on which the reply came, and the reply.
    pub async fn hand_in(
        &self,
        target: Target,
        new_job: Map<String, Value>,
        tell: Tell,
    ) -> anyhow::Result<(Link, Value)> {
        let mut link = link::open_always(target, tell).await?;
        self.sent.set(true);
        let mut new_job = Value::Object(new_job);
        let reply = match link.request("job.submit", &new_job).await {
            // A server of an earlier version gives every job its own limits.
            Err(error) if knows_no_limits(&error) => {
                if let Some(keys) = new_job.as_object_mut() {
                    keys.remove("limits");
                }
                link.request("job.submit", &new_job).await?
            }
            reply => reply?,
        };
        Ok((link, reply))
    }
}

fn knows_no_limits(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<RequestError>();
    matches!(refused, Some(RequestError::Refused(error)) if error.data["key"] == "limits")
}
