//! `submit`: submits a job and returns at once. `run` submits its job through here, too.

use std::{cell::Cell, collections::HashMap, path::PathBuf, process::ExitCode};

use anyhow::anyhow;
use serde_json::{Map, Value};
use tokio::select;

use crate::{
    cli::{
        connect::{
            client::RequestError,
            find_job,
            link::{self, Link, VersionNotice},
            signals::Signals,
            target::{Connect, Target},
        },
        new_job::{
            caller::ShellCaller,
            many,
            options::{JobOptions, keep_after_disconnect},
        },
        render::{job::ShownJob, print},
    },
    job::JobSpec,
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
    /// keys of `job.submit`; the other options set the keys that a line leaves out. `#0` in `after` is
    /// the first line
    #[arg(long, value_name = "FILE", group = "command")]
    many: Option<PathBuf>,

    #[command(flatten)]
    job: JobOptions,
}

/// Submits the job and prints its id.
pub async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let target = args.connect.target()?;
    if let Some(path) = &args.many {
        let template = args.job.template(caller(&target).as_ref())?;
        let submission = many::ManyJobs::read(path, &template, args.job.idempotency_key())?;
        // Only now, so that Ctrl-C ends a read of stdin.
        let mut signals = Signals::watch()?;
        let submitting = async {
            let mut link = link::open_always(target, VersionNotice::Always).await?;
            submission.submit(&mut link, args.json).await
        };
        return select! {
            done = submitting => done,
            signal = signals.next() => {
                print::line(&format!("interrupted: {}", submission.progress()));
                Ok(ExitCode::from(signal.exit_code()))
            }
        };
    }
    let mut new_job = describe(&args.job, &target, JobSpec::QUEUE)?;
    keep_after_disconnect(&mut new_job);
    let submission = SubmitInProgress::of(&new_job);
    let mut signals = Signals::watch()?;
    let (_, reply) = select! {
        done = submission.submit(target, new_job, VersionNotice::Always) => done?,
        signal = signals.next() => {
            submission.print_interrupted();
            return Ok(ExitCode::from(signal.exit_code()));
        }
    };
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
    print::line_on_terminal(&format!(
        "job {0} {verb}; `cc-executor tail {0}` follows it",
        job.number
    ));
    Ok(ExitCode::SUCCESS)
}

/// The NewJob that the options describe, with what it inherits from this shell: directory, umask,
/// environment and limits for a server on this machine, nothing for a server at an address.
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

/// A `job.submit` in progress.
#[derive(Debug)]
pub struct SubmitInProgress {
    /// Whether the request may have reached the server, without a reply: then the job may exist.
    pub may_exist: Cell<bool>,
    key: String,
}

impl SubmitInProgress {
    /// Before anything is sent.
    pub fn of(new_job: &Map<String, Value>) -> Self {
        let key = new_job.get("idempotency_key").and_then(Value::as_str);
        Self {
            may_exist: Cell::new(false),
            key: key.unwrap_or_default().to_owned(),
        }
    }

    /// What is known of a job of which no reply has told.
    fn unknown(&self) -> String {
        format!(
            "it is unknown whether the job was submitted; `cc-executor ls` shows it if it was, and the same \
             command with --key {} submits it only if it was not",
            self.key
        )
    }

    /// Says that a signal ended the wait for the reply, if the job may exist.
    pub fn print_interrupted(&self) {
        if self.may_exist.get() {
            print::line(&format!("interrupted: {}", self.unknown()));
        }
    }

    /// Submits until there is a reply; the idempotency key prevents a second job. Returns the
    /// connection on which the reply came, and the reply.
    pub async fn submit(
        &self,
        target: Target,
        mut new_job: Map<String, Value>,
        notice: VersionNotice,
    ) -> anyhow::Result<(Link, Value)> {
        let mut link = link::open_always(target, notice).await?;
        find_job::resolve_after(&mut link, &mut new_job, &mut HashMap::new()).await?;
        let mut new_job = Value::Object(new_job);
        let mut reply = link.submit("job.submit", &new_job, &self.may_exist).await;
        // A server of an earlier version refuses the key, and gives its own limits to every job.
        if reply.as_ref().is_err_and(does_not_know_limits) {
            if let Some(keys) = new_job.as_object_mut() {
                keys.remove("limits");
            }
            reply = link.submit("job.submit", &new_job, &self.may_exist).await;
        }
        match reply {
            Ok(reply) => Ok((link, reply)),
            Err(error) if self.may_exist.get() => Err(anyhow!("{error:#}; {}", self.unknown())),
            Err(error) => Err(error),
        }
    }
}

fn does_not_know_limits(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<RequestError>();
    matches!(refused, Some(RequestError::Refused(error)) if error.data["key"] == "limits")
}
