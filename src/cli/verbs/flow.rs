//! `flow`: runs a file of tasks as one graph of jobs, and lists, shows, waits for, cancels and tries again
//! such graphs.

use std::{cell::Cell, collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    cli::{
        connect::{
            batch::{self, BatchLimits, SharedJobs},
            client::RequestError,
            find_job,
            link::{self, Link, StartPolicy, VersionNotice},
            target::{Connect, Target},
        },
        flow::{
            again, check, file, follow,
            labels::{GATE_QUEUE, STEP, StepPart},
            new_jobs, review,
            state::{self, FlowState},
            step::FileContext,
            table,
        },
        new_job::{
            caller::ShellCaller,
            options::{self, JobOptions},
        },
        render::{
            describe, duration, exit_code,
            print::{self, PrintOptions},
            times,
        },
    },
    escape::visible,
    launch,
};

/// How many flows `ls` lists without --all.
const FLOWS_LISTED: usize = 20;
/// The most jobs of one queue at a time.
const CONCURRENCY_MAX: u32 = 1024;

/// Options of `flow`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A flow is an id as `flow ls` shows it, or `last` for the newest. Its jobs are jobs like others: `flow show` \
has their numbers, and each has the name FLOW/STEP (FLOW/STEP.2 when it runs for the second time). \
docs/flows.md describes the file.")]
pub struct FlowArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: FlowCommand,
}

#[derive(Debug, clap::Subcommand)]
enum FlowCommand {
    /// Submit the steps of a file (TOML, or YAML by its extension) as one graph of jobs
    Run(FlowRunOptions),
    /// List flows, newest first
    #[command(visible_alias = "list")]
    Ls {
        /// All flows, however old
        #[arg(long)]
        all: bool,
    },
    /// Show the steps of a flow and their jobs
    Show {
        /// The flow
        #[arg(default_value = "last")]
        flow: String,
    },
    /// Wait until a flow has ended; exit with 0 if every step has succeeded, else with 1
    Wait {
        /// The flow
        #[arg(default_value = "last")]
        flow: String,

        /// Give up after this time (90, 90s, 5m, 2h), with exit code 124
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        timeout: Option<f64>,
    },
    /// Submit the steps that have not succeeded again, within the same flow
    Retry {
        /// The flow
        flow: String,
    },
    /// End all jobs of a flow
    Cancel {
        /// The flow
        flow: String,
    },
    /// Check the step that this job waits for
    #[command(hide = true)]
    Check,
    /// Go on with the tasks of the reviewer that this job waits for
    #[command(hide = true)]
    Review,
}

#[derive(Debug, clap::Args)]
struct FlowRunOptions {
    /// The file
    file: PathBuf,

    /// Set a variable of the file; may be given several times
    #[arg(long = "var", value_name = "K=V", value_parser = options::pair)]
    variables: Vec<(String, String)>,

    /// Queue of the steps that name none [default: default]
    #[arg(long)]
    queue: Option<String>,

    /// Do not pass on this shell's environment
    #[arg(long)]
    clean_env: bool,

    /// Read and check the file, and submit nothing
    #[arg(long)]
    dry_run: bool,

    /// Show how steps end, and exit as `flow wait` does
    #[arg(long, conflicts_with = "dry_run")]
    follow: bool,
}

/// Runs the subcommand.
pub async fn flow(args: FlowArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        FlowCommand::Run(options) => args.run(options).await,
        FlowCommand::Ls { all } => args.list(*all).await,
        FlowCommand::Show { flow } => args.show(flow).await,
        FlowCommand::Wait { flow, timeout } => args.wait(flow, *timeout).await,
        FlowCommand::Retry { flow } => args.retry(flow).await,
        FlowCommand::Cancel { flow } => args.cancel(flow).await,
        FlowCommand::Check => Ok(check::check(&args.connect).await),
        FlowCommand::Review => Ok(review::review(&args.connect).await),
    }
}

impl FlowArgs {
    async fn run(&self, options: &FlowRunOptions) -> anyhow::Result<ExitCode> {
        let target = self.connect.target()?;
        let context = FileContext {
            variables: options.variables.iter().cloned().collect(),
            base: options.base(&target)?,
        };
        let read = file::read(&options.file, &context)?;
        let id = new_jobs::new_id(&read.name);
        let jobs = new_jobs::of_file(&read, &id, &program(&target));
        new_jobs::check_count(&jobs)?;
        if options.dry_run {
            let text = table::file(&read);
            return print::page(&text).map(|()| ExitCode::SUCCESS);
        }
        let mut link = link::open_always(target, VersionNotice::Always).await?;
        let place = |step: &str| {
            let step = read.steps.iter().find(|known| known.name == step)?;
            Some(format!("{}:{}: ", options.file.display(), step.place))
        };
        let submitted = submit(&mut link, &id, jobs, place).await?;
        match (self.print.json, options.follow) {
            (true, _) => print::json(&json!({"flow": id, "jobs": submitted}))?,
            (false, _) => print::page(&format!("{id}\n"))?,
        }
        if options.follow {
            return to_end(&mut link, &id, None, print::line).await;
        }
        print::line_on_terminal(&format!(
            "submitted {}; `cc-executor flow show {id}` shows them",
            jobs_of(submitted.len())
        ));
        Ok(ExitCode::SUCCESS)
    }

    async fn list(&self, all: bool) -> anyhow::Result<ExitCode> {
        let mut flows = Vec::new();
        let mut is_cut = false;
        if let Some(mut link) = self.open().await? {
            let max = if all { usize::MAX } else { FLOWS_LISTED };
            let mut ids = state::ids(&mut link, max.saturating_add(1)).await?;
            is_cut = ids.len() > max;
            ids.truncate(max);
            for id in ids {
                flows.push(state::load(&mut link, &id).await?);
            }
        }
        if self.print.json {
            let flows = flows.iter().map(table::flow_json);
            print::json(&flows.collect())?;
        } else if flows.is_empty() {
            print::line_on_terminal("no flows; `cc-executor flow run FILE` runs one");
        } else {
            print::out(table::list(&flows, &self.print, times::now()).as_bytes())?;
        }
        if is_cut {
            print::line(&format!(
                "the newest {FLOWS_LISTED} are shown; --all lists all"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn show(&self, name: &str) -> anyhow::Result<ExitCode> {
        let (_, flow) = self.find(name).await?;
        if self.print.json {
            print::json(&table::flow_json(&flow))?;
        } else {
            print::out(table::flow(&flow, &self.print, times::now()).as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn wait(&self, name: &str, timeout: Option<f64>) -> anyhow::Result<ExitCode> {
        let deadline = match timeout.map(Duration::try_from_secs_f64) {
            None => None,
            Some(Ok(length)) => Instant::now().checked_add(length),
            Some(Err(_)) => bail!("--timeout is too long; leave it out for none"),
        };
        let (mut link, flow) = self.find(name).await?;
        to_end(&mut link, &flow.id, deadline, print::line_on_terminal).await
    }

    async fn retry(&self, name: &str) -> anyhow::Result<ExitCode> {
        let (mut link, flow) = self.find(name).await?;
        let program = program(&self.connect.target()?);
        let jobs = again::new_jobs(&mut link, &flow, &program).await?;
        let submitted = submit(&mut link, &flow.id, jobs, |_| None).await?;
        match self.print.json {
            true => print::json(&json!({"flow": flow.id, "jobs": submitted}))?,
            false => print::page(&format!(
                "{}: submitted {} again\n",
                flow.id,
                jobs_of(submitted.len())
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn cancel(&self, name: &str) -> anyhow::Result<ExitCode> {
        let (mut link, flow) = self.find(name).await?;
        let count = follow::cancel(&mut link, &flow.id).await?;
        print::page(&format!("{}: cancelling {}\n", flow.id, jobs_of(count)))?;
        Ok(ExitCode::SUCCESS)
    }

    /// A connection; `None` if the data directory has no database.
    async fn open(&self) -> anyhow::Result<Option<Link>> {
        let target = self.connect.target()?;
        link::open(target, StartPolicy::IfData, VersionNotice::Always).await
    }

    async fn find(&self, name: &str) -> anyhow::Result<(Link, FlowState)> {
        let Some(mut link) = self.open().await? else {
            return find_job::no_jobs();
        };
        let flow = state::find(&mut link, name).await?;
        Ok((link, flow))
    }
}

impl FlowRunOptions {
    /// The keys that every step has unless its file says otherwise: what it inherits from this shell, and
    /// its queue.
    fn base(&self, target: &Target) -> anyhow::Result<Map<String, Value>> {
        let mut caller = match target {
            Target::Local(_) => Some(ShellCaller::of_this_process()),
            Target::Remote { .. } => None,
        };
        if let Some(caller) = caller.as_mut().filter(|_| self.clean_env) {
            caller.env.clear();
        }
        let mut base = JobOptions::default().template(caller.as_ref())?;
        if let Some(queue) = &self.queue {
            if queue == GATE_QUEUE {
                bail!(
                    "--queue {GATE_QUEUE}: this queue is for the jobs that decide about steps; choose another"
                );
            }
            base.insert("queue".to_owned(), json!(queue));
        }
        Ok(base)
    }
}

fn jobs_of(count: usize) -> String {
    format!("{count} job{}", if count == 1 { "" } else { "s" })
}

/// The program that runs our verbs in jobs: this one, or on another machine the one in its `PATH`.
fn program(target: &Target) -> String {
    match target {
        Target::Local(_) => launch::program().display().to_string(),
        Target::Remote { .. } => "cc-executor".to_owned(),
    }
}

/// Submits all jobs in one commit; the server's answer has them in the same order. A refusal names the step,
/// and its `place`.
async fn submit(
    link: &mut Link,
    flow: &str,
    jobs: Vec<Map<String, Value>>,
    place: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Vec<Value>> {
    if jobs.iter().any(new_jobs::is_gate) {
        make_queue(link).await?;
    }
    let labels = jobs.iter().map(|job| job.get("labels").cloned());
    let labels: Vec<Value> = labels.map(Option::unwrap_or_default).collect();
    let shared = SharedJobs::new(jobs, BatchLimits::of(link).await?);
    let may_exist = Cell::new(false);
    let submitted = batch::submit(&shared.defaults, &shared.jobs, async |params| {
        batch::send(link, params, &may_exist).await
    });
    match submitted.await {
        Ok(submitted) => Ok(submitted),
        Err(error) => {
            let why = of_step(&error, &labels, place).unwrap_or_else(|| format!("{error:#}"));
            match may_exist.get() {
                false => bail!("{why} (nothing was submitted)"),
                true => bail!(
                    "{why}; it is unknown whether the jobs were submitted: `cc-executor flow show {flow}` shows \
                     them if they were"
                ),
            }
        }
    }
}

/// A refusal that is about one of the jobs, which have these `labels`, as one of its step.
fn of_step(
    error: &anyhow::Error,
    labels: &[Value],
    place: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let Some(RequestError::Refused(refusal)) = error.downcast_ref() else {
        return None;
    };
    let index = refusal.data["index"].as_u64()?;
    let labels = labels.get(usize::try_from(index).ok()?)?;
    let (step, _) = StepPart::read(labels[STEP].as_str()?)?;
    let message = visible(&refusal.message);
    let message = message.strip_prefix(&format!("jobs[{index}]: "));
    let place = place(step).unwrap_or_default();
    Some(format!("{place}step {step:?}: {}", message?))
}

/// Makes the queue of the jobs that decide about steps, unless there is one: it may be paused, or have
/// fewer slots, because somebody wants that.
async fn make_queue(link: &mut Link) -> anyhow::Result<()> {
    let mut params = json!({});
    loop {
        let mut page = link.request("queue.list", &params).await?;
        let mut queues = page["queues"].as_array().into_iter().flatten();
        if queues.any(|queue| queue["queue"] == GATE_QUEUE) {
            return Ok(());
        }
        match page["next_cursor"].take() {
            Value::Null => break,
            cursor => params["cursor"] = cursor,
        }
    }
    let queue = json!({"queue": GATE_QUEUE, "concurrency": CONCURRENCY_MAX});
    link.request("queue.set", &queue).await?;
    Ok(())
}

/// Waits for the end of a flow, and says how its jobs end.
async fn to_end(
    link: &mut Link,
    id: &str,
    deadline: Option<Instant>,
    say: fn(&str),
) -> anyhow::Result<ExitCode> {
    let mut told = BTreeSet::new();
    let tell = |flow: &FlowState| {
        for job in flow.jobs.iter().filter(|job| job.shown.is_final()) {
            if told.insert(job.shown.number) {
                let name = job
                    .shown
                    .name
                    .as_deref()
                    .map_or_else(|| job.step.clone(), visible);
                say(&format!(
                    "{name} (job {}) {}",
                    job.shown.number,
                    describe::of(&job.shown)
                ));
            }
        }
        Ok(())
    };
    let Some(flow) = follow::to_end(link, id, deadline, tell).await? else {
        return Ok(ExitCode::from(exit_code::TIMED_OUT));
    };
    Ok(match flow.state() {
        "succeeded" => ExitCode::SUCCESS,
        _ => ExitCode::from(exit_code::FAILURE),
    })
}
