//! A job as users see it: NewJob's keys with defaults filled in, and what has become of it.
//!
//! Values of the environment and of stdin are never part of it unless they were asked for.

use std::collections::BTreeMap;

use serde::{Serialize, ser::SerializeMap};

use super::{
    attempt::{SpawnError, StopFacts, StopWish, Survivor, Usage},
    command::{Command, Leftover, NewJob, OnDisconnect, OutputPolicy},
    id::{JobId, JobNumber},
    limits::Limits,
    loss::OnLost,
    signal,
    state::{JobState, Reason},
    time::{Micros, Seconds},
};

/// A job as users see it. Serialises as the contract's `Job` object.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its UUIDv7.
    pub id: JobId,
    /// Its number.
    pub number: JobNumber,
    /// Where it is in its life.
    pub state: JobState,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// The leader's exit code.
    pub exit_code: Option<i32>,
    /// The number of the signal that ended the leader.
    pub signal: Option<i32>,
    /// What is executed.
    pub command: Command,
    /// Where; as stored (an absolute path).
    pub cwd: String,
    /// Names of the variables that it was given.
    pub env_names: Vec<String>,
    /// Length of its stdin, bytes; `None` where it has none.
    pub stdin_bytes: Option<u64>,
    /// Values of its variables, where asked for.
    pub env: Option<BTreeMap<String, String>>,
    /// Its stdin, where asked for (`Some(None)`: it has none).
    pub stdin: Option<Option<String>>,
    /// Whether stdin stays open for inputs.
    pub interactive: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// What the kernel bounds for its processes.
    pub limits: Limits,
    /// A name for people.
    pub name: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Its queue.
    pub queue: String,
    /// Higher first.
    pub priority: i64,
    /// Run time without pauses.
    pub timeout_s: Option<Seconds>,
    /// Time without output.
    pub stall_timeout_s: Option<Seconds>,
    /// From TERM to KILL.
    pub grace_s: Seconds,
    /// What happens to processes that outlive the leader.
    pub leftover: Leftover,
    /// What happens when nobody can know how an attempt ended.
    pub on_lost: OnLost,
    /// What the loss of the submitting connection means.
    pub on_disconnect: OnDisconnect,
    /// From that loss to the cancel.
    pub disconnect_delay_s: Seconds,
    /// How much it may write.
    pub output: OutputPolicy,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
    /// The job that this one tries again.
    pub retry_of: Option<JobId>,
    /// How many attempts have started or may have; void ones do not count.
    pub attempts: u32,
    /// When it was acknowledged.
    pub submitted_at: Micros,
    /// When its first process was started.
    pub started_at: Option<Micros>,
    /// When it became final.
    pub finished_at: Option<Micros>,
    /// The length of its output, gaps included.
    pub output_bytes: u64,
    /// How many of them `output.when_full` has dropped.
    pub dropped_bytes: u64,
    /// How many line ends were among those.
    pub dropped_lines: u64,
    /// SHA-256 over all bytes of the output; `None` before the end and where there are gaps.
    pub output_sha256: Option<String>,
    /// Why no process could be started.
    pub spawn_error: Option<SpawnError>,
    /// The stop, whether wished for or done.
    pub stop: Option<StopView>,
    /// How many processes outlived the leader and were ended with it.
    pub leaked: u32,
    /// Processes that still live.
    pub survivors: Vec<Survivor>,
    /// Why there may be others: what is left of a lost attempt could not be looked at.
    pub survivors_unknown: Option<String>,
    /// The kernel's count.
    pub usage: Usage,
}

/// A stop as far as it has come.
#[derive(Debug, Clone, PartialEq)]
pub enum StopView {
    /// Committed, and perhaps on its way.
    Wished(StopWish),
    /// The same, and the kernel did not let it reach these processes.
    Refused(StopWish, Vec<Survivor>),
    /// It reached the shim before the leader's exit.
    Done(StopFacts),
}

impl Serialize for StopView {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (none, nobody) = (&[] as &[String], &[] as &[Survivor]);
        let (by, cause, at) = match self {
            Self::Wished(w) | Self::Refused(w, _) => (&w.by, w.cause, w.asked_at_us),
            Self::Done(d) => (&d.by, d.cause, d.asked_at_us),
        };
        let (signals, killed, refused) = match self {
            Self::Wished(_) => (none, false, nobody),
            Self::Refused(_, refused) => (none, false, refused.as_slice()),
            Self::Done(d) => (d.signals.as_slice(), d.killed, d.refused.as_slice()),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("by", by)?;
        map.serialize_entry("cause", cause.name())?;
        map.serialize_entry("asked_at", &Micros(at))?;
        map.serialize_entry("signals", signals)?;
        map.serialize_entry("killed", &killed)?;
        if !refused.is_empty() {
            map.serialize_entry("refused", refused)?;
        }
        map.end()
    }
}

impl Serialize for Job {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let m = &mut map;
        m.serialize_entry("id", &self.id)?;
        m.serialize_entry("number", &self.number)?;
        m.serialize_entry("state", &self.state)?;
        m.serialize_entry("reason", &self.reason)?;
        m.serialize_entry("exit_code", &self.exit_code)?;
        m.serialize_entry("signal", &self.signal.map(signal::name))?;
        self.serialize_submitted::<S>(m)?;
        m.serialize_entry("retry_of", &self.retry_of)?;
        m.serialize_entry("attempts", &self.attempts)?;
        m.serialize_entry("submitted_at", &self.submitted_at)?;
        m.serialize_entry("started_at", &self.started_at)?;
        m.serialize_entry("finished_at", &self.finished_at)?;
        m.serialize_entry("output_bytes", &self.output_bytes)?;
        m.serialize_entry("dropped_bytes", &self.dropped_bytes)?;
        m.serialize_entry("dropped_lines", &self.dropped_lines)?;
        m.serialize_entry("output_sha256", &self.output_sha256)?;
        m.serialize_entry("spawn_error", &self.spawn_error)?;
        m.serialize_entry("stop", &self.stop)?;
        m.serialize_entry("leaked", &self.leaked)?;
        m.serialize_entry("survivors", &self.survivors)?;
        m.serialize_entry("survivors_unknown", &self.survivors_unknown)?;
        m.serialize_entry("usage", &self.usage)?;
        map.end()
    }
}

impl Job {
    /// What those of its texts take in memory that may be long, about, bytes.
    pub fn text_bytes(&self) -> usize {
        let word = |text: &String| size_of::<String>() + text.len();
        let command = match &self.command {
            Command::Argv(argv) => argv.iter().map(word).sum(),
            Command::Shell(line) => line.len(),
        };
        let names: usize = self.env_names.iter().map(word).sum();
        let values: usize = self
            .env
            .iter()
            .flatten()
            .map(|(_, value)| word(value))
            .sum();
        let labels: usize = self.labels.iter().map(|(k, v)| word(k) + word(v)).sum();
        let stdin = self.stdin.as_ref().and_then(Option::as_ref);
        let texts = [self.name.as_ref(), self.idempotency_key.as_ref(), stdin];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        command + names + values + labels + texts + self.cwd.len()
    }

    /// The same NewJob once more, without its idempotency key; `None` where the job was read
    /// without its environment or stdin.
    pub fn again(&self) -> Option<NewJob> {
        Some(NewJob {
            cwd: Some(self.cwd.clone()),
            env: self.env.clone()?,
            umask: self.umask,
            limits: self.limits,
            stdin: self.stdin.clone()?,
            interactive: self.interactive,
            name: self.name.clone(),
            labels: self.labels.clone(),
            queue: self.queue.clone(),
            priority: self.priority,
            timeout_s: self.timeout_s,
            stall_timeout_s: self.stall_timeout_s,
            grace_s: self.grace_s,
            leftover: self.leftover,
            on_lost: self.on_lost,
            on_disconnect: self.on_disconnect,
            disconnect_delay_s: self.disconnect_delay_s,
            output: self.output,
            ..NewJob::new(self.command.clone())
        })
    }

    /// NewJob's keys with defaults filled in; those that cannot be set yet show their defaults.
    fn serialize_submitted<S: serde::Serializer>(
        &self,
        m: &mut S::SerializeMap,
    ) -> Result<(), S::Error> {
        let (argv, shell) = match &self.command {
            Command::Argv(argv) => (Some(argv), None),
            Command::Shell(line) => (None, Some(line)),
        };
        m.serialize_entry("argv", &argv)?;
        m.serialize_entry("shell", &shell)?;
        m.serialize_entry("cwd", &self.cwd)?;
        m.serialize_entry("umask", &format!("{:03o}", self.umask))?;
        m.serialize_entry("env_names", &self.env_names)?;
        m.serialize_entry("stdin_bytes", &self.stdin_bytes)?;
        if let Some(env) = &self.env {
            m.serialize_entry("env", env)?;
        }
        if let Some(stdin) = &self.stdin {
            m.serialize_entry("stdin", stdin)?;
        }
        m.serialize_entry("interactive", &self.interactive)?;
        m.serialize_entry("pty", &false)?;
        m.serialize_entry("name", &self.name)?;
        m.serialize_entry("labels", &self.labels)?;
        m.serialize_entry("queue", &self.queue)?;
        m.serialize_entry("priority", &self.priority)?;
        m.serialize_entry("exclusive", &None::<String>)?;
        m.serialize_entry("after", &[] as &[String])?;
        m.serialize_entry("run_at", &None::<String>)?;
        m.serialize_entry("timeout_s", &self.timeout_s)?;
        m.serialize_entry("stall_timeout_s", &self.stall_timeout_s)?;
        m.serialize_entry("grace_s", &self.grace_s)?;
        m.serialize_entry("retry", &serde_json::json!({"max_attempts": 1}))?;
        m.serialize_entry("on_lost", &self.on_lost)?;
        m.serialize_entry("on_disconnect", &self.on_disconnect)?;
        m.serialize_entry("disconnect_delay_s", &self.disconnect_delay_s)?;
        m.serialize_entry("leftover", &self.leftover)?;
        m.serialize_entry("idempotency_key", &self.idempotency_key)?;
        m.serialize_entry("limits", &(!self.limits.is_none()).then_some(self.limits))?;
        m.serialize_entry("user", &None::<String>)?;
        m.serialize_entry("output", &self.output)?;
        m.serialize_entry("notify", &[] as &[String])
    }
}
