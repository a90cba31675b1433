//! The options that describe a new job, and the NewJob that they make. `caller` reads what the job
//! inherits from the shell.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::{caller::ShellCaller, notify::NotifyOptions, waiting::WaitingOptions};
use crate::{
    cli::render::{duration, size},
    job::SecretName,
    sys::waiting_io::WaitingIo,
};

/// Prefix of the idempotency keys that the command line generates.
pub const GENERATED_KEY: &str = "cli-";

/// A job's command and how to run it.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(group = clap::ArgGroup::new("command").required(true).args(["shell", "argv"]))]
#[command(group = clap::ArgGroup::new("bound").multiple(true).args(["max_output", "max_lines"]))]
pub struct JobOptions {
    /// Run this line with /bin/sh -c instead of a command
    #[arg(long, value_name = "CMD", help_heading = "Job")]
    shell: Option<String>,

    /// Name that people see and that verbs take for the job
    #[arg(long, help_heading = "Job")]
    name: Option<String>,

    /// Label; may be given several times
    #[arg(long = "label", value_name = "K=V", value_parser = pair, help_heading = "Job")]
    labels: Vec<(String, String)>,

    /// Queue to wait in [default: `interactive` for run, `default` for submit]
    #[arg(long, help_heading = "Job")]
    queue: Option<String>,

    /// Priority; jobs with a higher one start first, equal ones in the order of submission
    #[arg(long, allow_negative_numbers = true, help_heading = "Job")]
    priority: Option<i64>,

    /// End the job after this run time (90, 90s, 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = "Job")]
    timeout: Option<f64>,

    /// End the job after this time without output
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = "Job")]
    stall_timeout: Option<f64>,

    /// Time between SIGTERM and SIGKILL when the job is stopped [default: 10]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = "Job")]
    grace: Option<f64>,

    /// What happens to processes that outlive the command [default: kill]
    #[arg(long, value_enum, help_heading = "Job")]
    leftover: Option<LeftoverOption>,

    /// What happens when it is unknown how the job ended: the job fails, or it runs again, up to
    /// three times [default: fail]
    #[arg(long, value_enum, value_name = "POLICY", help_heading = "Job")]
    on_lost: Option<OnLostOption>,

    /// Working directory [default: this one]
    #[arg(long, value_name = "DIR", help_heading = "Job")]
    cwd: Option<PathBuf>,

    /// Set an environment variable; may be given several times
    #[arg(long = "env", value_name = "K=V", value_parser = pair, help_heading = "Job")]
    env: Vec<(String, String)>,

    /// Set an environment variable to the value that a secret of the server has when the job starts; may be
    /// given several times
    #[arg(long = "env-secret", value_name = "K=SECRET", value_parser = secret, help_heading = "Job")]
    env_secrets: Vec<(String, String)>,

    /// Do not pass on this shell's environment
    #[arg(long, help_heading = "Job")]
    clean_env: bool,

    /// File mode creation mask in octal [default: this shell's]
    #[arg(long, value_name = "MASK", help_heading = "Job")]
    umask: Option<String>,

    /// Keep the job's stdin open for input; `run` forwards its own stdin
    #[arg(short, long, help_heading = "Job")]
    pub interactive: bool,

    /// Give the job the content of this UTF-8 file as stdin (- for this command's stdin)
    #[arg(long, value_name = "FILE", help_heading = "Job")]
    stdin_file: Option<PathBuf>,

    /// Keep at most this many bytes of output (64M, 1G)
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Job")]
    max_output: Option<u64>,

    /// Keep up to this many lines of output; with --when-full drop-oldest, at least this many
    #[arg(
        long,
        value_name = "LINES",
        value_parser = clap::value_parser!(u64).range(1..),
        help_heading = "Job"
    )]
    max_lines: Option<u64>,

    /// What happens when the job writes more: it ends, or the server drops and counts the excess
    /// [default: fail]
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        requires = "bound",
        help_heading = "Job"
    )]
    when_full: Option<WhenFullOption>,

    /// Do not mask the values of the job's secrets in its output
    #[arg(long, help_heading = "Job")]
    no_redact: bool,

    #[command(flatten)]
    waiting: WaitingOptions,

    #[command(flatten)]
    notify: NotifyOptions,

    /// Idempotency key: submitting the same job with the same key again returns the first job. Each job of
    /// `submit --many` has this key with its place in the file
    #[arg(long, value_name = "KEY", help_heading = "Job")]
    key: Option<String>,

    /// The command and its arguments; options of cc-executor must come before it
    #[arg(value_name = "ARGV", trailing_var_arg = true, num_args = 1..)]
    argv: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LeftoverOption {
    Kill,
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnLostOption {
    Fail,
    Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WhenFullOption {
    /// The job ends as failed.
    Fail,
    /// The beginning and the newest output are kept; needs at least 16M.
    DropOldest,
    /// The oldest output is kept.
    DropNewest,
}

impl WhenFullOption {
    fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        }
    }
}

impl JobOptions {
    /// The NewJob for `job.submit`. `caller` is the shell that it inherits from, if it does.
    ///
    /// It always has an idempotency key, so that submitting it again after a lost reply cannot
    /// make a second job.
    pub fn new_job(
        &self,
        caller: Option<&ShellCaller>,
        queue: &str,
    ) -> anyhow::Result<Map<String, Value>> {
        let mut job = self.plain(queue);
        let stdin = self.stdin_file.as_deref().map(read_stdin).transpose()?;
        put(&mut job, "stdin", stdin);
        put(&mut job, "cwd", self.directory(caller)?);
        let inherited = caller.filter(|_| !self.clean_env).map(|c| c.env.as_slice());
        let env = inherited.unwrap_or_default().iter().chain(&self.env);
        let secrets = self.env_secrets.iter();
        let secrets = secrets.map(|(k, name)| (k.clone(), json!({"secret": name})));
        let env: Map<String, Value> = env
            .map(|(k, v)| (k.clone(), json!(v)))
            .chain(secrets)
            .collect();
        if !env.is_empty() {
            job.insert("env".into(), Value::Object(env));
        }
        let inherited = caller
            .and_then(|c| c.umask)
            .map(|mask| format!("{mask:03o}"));
        put(&mut job, "umask", self.umask.clone().or(inherited));
        let limits = caller.map(|caller| caller.limits);
        put(
            &mut job,
            "limits",
            limits.filter(|limits| !limits.is_none()),
        );
        put(&mut job, "notify", self.notify.entries()?);
        Ok(job)
    }

    /// The keys that need nothing but the options themselves.
    fn plain(&self, queue: &str) -> Map<String, Value> {
        let mut job = Map::new();
        match &self.shell {
            Some(line) => put(&mut job, "shell", Some(line)),
            None => put(&mut job, "argv", Some(&self.argv)),
        }
        put(&mut job, "interactive", self.interactive.then_some(true));
        put(&mut job, "name", self.name.as_ref());
        put(
            &mut job,
            "queue",
            Some(self.queue.as_deref().unwrap_or(queue)),
        );
        put(&mut job, "priority", self.priority);
        put(&mut job, "timeout_s", self.timeout);
        put(&mut job, "stall_timeout_s", self.stall_timeout);
        put(&mut job, "grace_s", self.grace);
        let leftover = self.leftover.map(|leftover| match leftover {
            LeftoverOption::Kill => "kill",
            LeftoverOption::Keep => "keep",
        });
        put(&mut job, "leftover", leftover);
        let on_lost = self.on_lost.map(|on_lost| match on_lost {
            OnLostOption::Fail => "fail",
            OnLostOption::Retry => "retry",
        });
        put(&mut job, "on_lost", on_lost);
        put(&mut job, "output", self.output());
        self.waiting.add_to(&mut job);
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(k, v)| (k.clone(), json!(v)));
            job.insert("labels".into(), Value::Object(labels.collect()));
        }
        put(&mut job, "idempotency_key", Some(self.idempotency_key()));
        job
    }

    /// The idempotency key that was given, or a new one.
    pub fn idempotency_key(&self) -> String {
        let generated = || format!("{GENERATED_KEY}{}", uuid::Uuid::now_v7());
        self.key.clone().unwrap_or_else(generated)
    }

    fn output(&self) -> Option<Map<String, Value>> {
        let mut output = Map::new();
        put(&mut output, "max_bytes", self.max_output);
        put(&mut output, "max_lines", self.max_lines);
        put(
            &mut output,
            "when_full",
            self.when_full.map(WhenFullOption::name),
        );
        put(&mut output, "redact", self.no_redact.then_some(false));
        (!output.is_empty()).then_some(output)
    }

    /// Defaults for the jobs of `--many`: all keys of the options except command and idempotency
    /// key.
    pub fn template(&self, caller: Option<&ShellCaller>) -> anyhow::Result<Map<String, Value>> {
        let mut template = self.new_job(caller, "")?;
        for key in ["argv", "shell", "idempotency_key"] {
            template.remove(key);
        }
        if self.queue.is_none() {
            template.remove("queue");
        }
        keep_after_disconnect(&mut template);
        Ok(template)
    }

    /// The job's directory: `--cwd`, relative to the shell's, which is the default.
    fn directory(&self, caller: Option<&ShellCaller>) -> anyhow::Result<Option<String>> {
        let path = match (&self.cwd, caller) {
            (Some(cwd), _) if cwd.is_absolute() => cwd.clone(),
            (Some(cwd), Some(caller)) => caller.directory()?.join(cwd),
            (Some(_), None) => anyhow::bail!("with --server, --cwd must be an absolute path"),
            (None, Some(caller)) => caller.directory()?.clone(),
            (None, None) => return Ok(None),
        };
        let text = path.into_os_string().into_string().map_err(|_| {
            anyhow::anyhow!(
                "the working directory's path is not valid UTF-8; give another one with --cwd"
            )
        })?;
        Ok(Some(text))
    }
}

/// Lets the job go on when the command that submits it has ended, whatever its queue says about jobs whose
/// connection is lost.
pub fn keep_after_disconnect(job: &mut Map<String, Value>) {
    put(job, "on_disconnect", Some("continue"));
}

fn put(job: &mut Map<String, Value>, key: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        job.insert(key.to_owned(), json!(value));
    }
}

fn read_stdin(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        WaitingIo(std::io::stdin())
            .read_to_string(&mut text)
            .context("stdin cannot be given to the job; it must be UTF-8")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "{} cannot be given to the job as stdin; it must be UTF-8",
            path.display()
        )
    })
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// `VARIABLE=SECRET`.
fn secret(text: &str) -> Result<(String, String), String> {
    let (variable, name) = pair(text).map_err(|_| "write VARIABLE=SECRET".to_owned())?;
    let name = SecretName::read(&name).map_err(|wrong| format!("SECRET {wrong}"))?;
    Ok((variable, name.into()))
}

/// A number of bytes above 0.
pub fn bytes(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        0 => Err(format!(
            "{text:?} is nothing; leave the option out for no bound"
        )),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::job::{JobSpec, JobState, Limits, ResourceBound, Umask};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        job: JobOptions,
    }

    fn options(words: &[&str]) -> JobOptions {
        let words = std::iter::once(&"run").chain(words);
        Line::try_parse_from(words).expect("valid").job
    }

    fn new_job(words: &[&str], caller: Option<&ShellCaller>) -> Map<String, Value> {
        options(words)
            .new_job(caller, "interactive")
            .expect("a job")
    }

    fn shell() -> ShellCaller {
        ShellCaller {
            cwd: Some("/src".into()),
            umask: Some(0o022),
            env: vec![
                ("PATH".into(), "/bin".into()),
                ("A".into(), "theirs".into()),
            ],
            limits: Limits {
                open_files: Some(ResourceBound::Both(64)),
                nice: Some(10),
                ..Limits::default()
            },
        }
    }

    #[test]
    fn the_first_word_that_is_no_option_ends_our_options() {
        for (words, argv) in [
            (
                &["make", "-j4", "--name", "x"][..],
                &["make", "-j4", "--name", "x"][..],
            ),
            (
                &["--name", "n", "sh", "-c", "exit 3"],
                &["sh", "-c", "exit 3"],
            ),
            (&["--", "--name", "x"], &["--name", "x"]),
            (
                &["--", "sh", "-c", "x", "--", "a"],
                &["sh", "-c", "x", "--", "a"],
            ),
            (&["git", "log", "--", "file"], &["git", "log", "--", "file"]),
            (&["echo", "--help"], &["echo", "--help"]),
            (&["--", "a", "", "-"], &["a", "", "-"]),
        ] {
            assert_eq!(options(words).argv, argv, "{words:?}");
        }
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for words in [
            &[][..],
            &["--"],
            &["--nmae", "x", "true"],
            &["--shell", "true", "--", "true"],
            &["--timeout", "soon", "true"],
            &["--label", "novalue", "true"],
            &["--env", "=x", "true"],
            &["--env-secret", "A=../x", "true"],
            &["--env-secret", "token", "true"],
            &["--max-output", "0", "true"],
            &["--max-output", "1M", "--when-full", "explode", "true"],
            &["--when-full", "drop-newest", "true"],
            &["--max-lines", "0", "true"],
            &["--max-lines", "1K", "true"],
            &["--max-output", "99999999999T", "true"],
        ] {
            let line = Line::try_parse_from(std::iter::once(&"run").chain(words));
            assert!(line.is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_job_inherits_the_shell_that_it_was_called_in() {
        let job = new_job(&["--env", "A=ours", "true"], Some(&shell()));
        assert_eq!(job["cwd"], "/src");
        assert_eq!(job["umask"], "022");
        assert_eq!(job["env"], json!({"PATH": "/bin", "A": "ours"}));
        assert_eq!(job["limits"], json!({"open_files": 64, "nice": 10}));
        let clean = new_job(&["--clean-env", "--cwd", "sub", "true"], Some(&shell()));
        assert_eq!(clean["cwd"], "/src/sub");
        assert!(!clean.contains_key("env"));
    }

    #[test]
    fn nothing_of_the_shell_goes_to_another_machine() {
        let job = new_job(&["true"], None);
        for key in ["cwd", "env", "umask", "limits"] {
            assert!(!job.contains_key(key), "{key}");
        }
        assert!(
            options(&["--cwd", "sub", "true"])
                .new_job(None, "q")
                .is_err()
        );
    }

    #[test]
    fn every_option_becomes_a_key_that_the_server_reads() {
        let words = [
            "-i",
            "--name",
            "n",
            "--label",
            "k=v=w",
            "--queue",
            "q",
            "--priority",
            "-3",
            "--timeout",
            "1m",
            "--stall-timeout",
            "30",
            "--grace",
            "0",
            "--leftover",
            "keep",
            "--cwd",
            "/tmp",
            "--env",
            "A=b",
            "--env-secret",
            "T=gh-token",
            "--no-redact",
            "--umask",
            "027",
            "--max-output",
            "2K",
            "--max-lines",
            "7",
            "--when-full",
            "drop-newest",
            "--notify-url",
            "https://example.com/hook",
            "--notify-secret",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "--notify-command",
            "mail me",
            "--notify-on",
            "failed,paused",
            "--key",
            "once",
            "--shell",
            "make",
        ];
        let object = new_job(&words, None);
        let job = JobSpec::read(object).expect("a job that the server takes");
        assert!(job.interactive);
        assert_eq!(job.labels["k"], "v=w");
        assert_eq!((job.priority, job.umask), (-3, Umask(0o027)));
        assert_eq!(job.timeout_s.map(|s| s.0), Some(60.0));
        assert_eq!(
            (job.stall_timeout_s.map(|s| s.0), job.grace_s.0),
            (Some(30.0), 0.0)
        );
        let states = [JobState::Paused, JobState::Failed].into_iter().collect();
        let receivers = job.notify.iter().map(|entry| entry.on == states);
        assert_eq!(receivers.collect::<Vec<_>>(), [true, true]);
        let token = job.env["T"].secret().map(SecretName::as_str);
        assert_eq!((job.env["A"].text(), token), (Some("b"), Some("gh-token")));
        assert!(!job.output.redact);
        assert_eq!(job.output.max_bytes, Some(2048));
        assert_eq!(job.output.max_lines, Some(7));
        assert_eq!(job.output.when_full, crate::job::WhenFull::DropNewest);
        assert_eq!(job.idempotency_key.as_deref(), Some("once"));
        assert_eq!((job.queue.as_str(), job.name.as_deref()), ("q", Some("n")));
    }

    #[test]
    fn two_calls_are_two_jobs() {
        let key = || new_job(&["true"], None)["idempotency_key"].clone();
        assert!(key().is_string());
        assert_ne!(key(), key());
        assert_eq!(new_job(&["true"], None)["queue"], "interactive");
    }
}
