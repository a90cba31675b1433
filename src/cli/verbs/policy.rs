//! `policy`: says what a policy makes of a command, finds rules that allow more than they seem to, and has
//! the server load its file again.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    cli::{
        connect::{
            client::Client,
            target::{Connect, Target},
        },
        render::{
            exit_code,
            print::{self, PrintOptions},
        },
    },
    config,
    job::{Command, JobSpec, Requester},
    policy::{self, JobBounds, Judged, Policy, RuleEffect, RuleReport, Verdict},
};

/// Options of `policy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --policy, `check` and `lint` take the file of the server that runs, else that of the settings. \
Exit code: 0 when the command is allowed or nothing was found, 1 when it is not or something was.")]
pub struct PolicyArgs {
    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    print: PrintOptions,

    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PolicyCommand {
    /// Say which rule decides about a command, and what of each other rule does not fit
    Check(Box<CheckOptions>),
    /// Name rules that allow more than they seem to
    Lint(FileOption),
    /// Have the server load its policy again; a file that is wrong changes nothing
    Reload,
}

#[derive(Debug, clap::Args)]
struct FileOption {
    /// Take this file
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct CheckOptions {
    #[command(flatten)]
    file: FileOption,

    /// Who asks: the name of a token
    #[arg(long = "as", value_name = "NAME", default_value = Requester::ADMIN)]
    name: String,

    /// The user who asks, on the Unix socket
    #[arg(long)]
    uid: Option<u32>,

    /// The directory, instead of this one
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// A variable that the job sets; may be given several times
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// A secret that the job refers to; may be given several times
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,

    /// A URL to which notices of the job are sent; may be given several times
    #[arg(long = "notify-url", value_name = "URL")]
    notify_urls: Vec<String>,

    /// The queue
    #[arg(long, default_value = JobSpec::QUEUE)]
    queue: String,

    /// The priority
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i64,

    /// The limit of the run time, seconds
    #[arg(long = "timeout", value_name = "SECONDS")]
    timeout_s: Option<f64>,

    /// The limit of the output, bytes
    #[arg(long, value_name = "BYTES")]
    max_output: Option<u64>,

    /// Shell text instead of a program and its words
    #[arg(long, value_name = "TEXT", conflicts_with = "argv")]
    shell: Option<String>,

    /// The program and its words
    #[arg(last = true, value_name = "ARGV", required_unless_present = "shell")]
    argv: Vec<String>,
}

/// Runs the subcommand.
pub async fn policy(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        PolicyCommand::Check(options) => args.check(options).await,
        PolicyCommand::Lint(file) => args.lint(file).await,
        PolicyCommand::Reload => args.reload().await,
    }
}

impl PolicyArgs {
    async fn check(&self, options: &CheckOptions) -> anyhow::Result<ExitCode> {
        let policy = self.read(&options.file).await?;
        let job = options.judged()?;
        let subject = policy::look_up_with_digest(&policy, &job);
        let (verdict, reports) = (policy.judge(&subject), policy.explain(&subject));
        match self.print.json {
            true => print::json(&check_json(&policy, &verdict, &reports))?,
            false => print::page(&check_page(&verdict, &reports))?,
        }
        Ok(code(verdict.effect == RuleEffect::Allow))
    }

    async fn lint(&self, file: &FileOption) -> anyhow::Result<ExitCode> {
        let findings = self.read(file).await?.lint();
        if self.print.json {
            let findings = findings.iter();
            let findings = findings
                .map(|one| json!({"rule": one.rule, "line": one.line, "message": one.message}));
            print::json(&Value::Array(findings.collect()))?;
        } else {
            let lines = findings.iter();
            let lines = lines
                .map(|one| format!("line {}: rule {:?}: {}\n", one.line, one.rule, one.message));
            print::page(&lines.collect::<String>())?;
        }
        Ok(code(findings.is_empty()))
    }

    async fn reload(&self) -> anyhow::Result<ExitCode> {
        let mut client = Client::connect(&self.connect.target()?).await?;
        let status = client.request("policy.reload", &json!({})).await?;
        match self.print.json {
            true => print::json(&status)?,
            false => print::page(&format!(
                "{} is in force: {} rules, SHA-256 {}\n",
                status["file"].as_str().unwrap_or_default(),
                status["rules"],
                status["digest"].as_str().unwrap_or_default()
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn read(&self, file: &FileOption) -> anyhow::Result<Policy> {
        let (path, digest) = match &file.policy {
            Some(path) => (path.clone(), None),
            None => self.in_force().await?,
        };
        let policy = policy::read_file(Path::new(&path))?;
        if digest.is_some_and(|digest| digest != policy.digest) {
            print::line(
                "the server has another version of this file in force; `cc-executor policy reload` loads this one",
            );
        }
        Ok(policy)
    }

    /// The file of the server that runs, and its digest; else the file of the settings.
    async fn in_force(&self) -> anyhow::Result<(PathBuf, Option<String>)> {
        let target = self.connect.target()?;
        if let Ok(mut client) = Client::connect(&target).await {
            let info = client.request("server.info", &json!({})).await?;
            let text = |key: &str| info["policy"][key].as_str().map(str::to_owned);
            let file =
                text("file").context("the server has no policy; name a file with --policy")?;
            return Ok((file.into(), text("digest")));
        }
        let Target::Local(layout) = target else {
            anyhow::bail!("the server does not answer; name a file with --policy");
        };
        let options = [("data_dir".to_owned(), layout.root().into())].into();
        let file = config::load(None, &options)?.settings.policy;
        let file = file.context("there is no policy in the settings; name a file with --policy")?;
        Ok((file, None))
    }
}

impl CheckOptions {
    fn judged(&self) -> anyhow::Result<Judged> {
        let cwd = match &self.cwd {
            Some(cwd) => std::path::absolute(cwd)?,
            None => std::env::current_dir()?,
        };
        let name = |text: &String| {
            text.split_once('=')
                .map_or(text.clone(), |(name, _)| name.to_owned())
        };
        let path = self.env.iter().find_map(|text| text.strip_prefix("PATH="));
        Ok(Judged {
            requester: Requester {
                name: self.name.clone(),
                uid: self.uid,
            },
            command: match &self.shell {
                Some(text) => Command::Shell(text.clone()),
                None => Command::Argv(self.argv.clone()),
            },
            cwd: cwd.display().to_string(),
            path: path.map(str::to_owned),
            names: self.env.iter().map(name).collect(),
            secrets: self.secrets.clone(),
            urls: self.notify_urls.clone(),
            bounds: JobBounds {
                queue: self.queue.clone(),
                priority: self.priority,
                timeout_s: self.timeout_s,
                output_bytes: self.max_output,
            },
        })
    }
}

fn code(is_fine: bool) -> ExitCode {
    match is_fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit_code::FAILURE),
    }
}

fn check_page(verdict: &Verdict, reports: &[RuleReport]) -> String {
    let line = |report: &RuleReport| {
        let (rule, effect) = (&report.rule, report.effect.name());
        match &report.failure {
            None => format!("{effect} {rule:?}: matches\n"),
            Some(failure) => format!(
                "{effect} {rule:?}: {}: {}\n",
                failure.predicate.name(),
                failure.message
            ),
        }
    };
    let decision = match verdict.effect {
        RuleEffect::Allow => "allowed",
        RuleEffect::Deny => "denied",
    };
    let lines: String = reports.iter().map(line).collect();
    format!("{lines}{decision}: {}\n", verdict.why)
}

fn check_json(policy: &Policy, verdict: &Verdict, reports: &[RuleReport]) -> Value {
    let rule = |report: &RuleReport| {
        json!({
            "rule": report.rule,
            "decision": report.effect.name(),
            "matches": report.failure.is_none(),
            "predicate": report.failure.as_ref().map(|failure| failure.predicate.name()),
            "why": report.failure.as_ref().map(|failure| &failure.message),
        })
    };
    json!({
        "decision": verdict.effect.name(),
        "rule": verdict.rule,
        "why": verdict.why,
        "policy": policy.digest,
        "rules": reports.iter().map(rule).collect::<Vec<_>>(),
    })
}
