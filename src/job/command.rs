//! What a user submits: the validated form of NewJob, defaults filled in.
//!
//! Reading it from JSON and refusing what is wrong is `parse`'s work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{limits::Limits, loss::OnLost, time::Seconds};

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Executed directly; the first word is looked up in the job's PATH. Never empty, no NUL.
    Argv(Vec<String>),
    /// Run by `/bin/sh -c`.
    Shell(String),
}

impl Command {
    /// The words that are executed.
    pub fn to_argv(&self) -> Vec<String> {
        match self {
            Self::Argv(argv) => argv.clone(),
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        }
    }
}

/// What happens to processes that outlive the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leftover {
    /// They end with it.
    #[default]
    Kill,
    /// They stay and are named in `survivors`.
    Keep,
}

/// What happens when a job has written `max_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The job ends with `output_limit`.
    #[default]
    Fail,
    /// The oldest segments behind the first one go.
    DropOldest,
    /// What comes later is counted and forgotten.
    DropNewest,
}

impl WhenFull {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::Fail, Self::DropOldest, Self::DropNewest];

    /// The name of this policy on the wire and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        }
    }

    /// The policy with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// What the loss of the connection that submitted a job means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// Nothing.
    #[default]
    Continue,
    /// The job is cancelled, unless somebody asks for it within the delay.
    Cancel,
}

impl OnDisconnect {
    /// The name on the wire and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Cancel => "cancel",
        }
    }

    /// The policy with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Continue, Self::Cancel]
            .into_iter()
            .find(|policy| policy.name() == name)
    }
}

/// How much output a job may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputPolicy {
    /// Over all attempts, bytes; `None`: no bound.
    pub max_bytes: Option<u64>,
    /// What happens at the bound.
    pub when_full: WhenFull,
}

impl OutputPolicy {
    /// Least `max_bytes` with [`WhenFull::DropOldest`], bytes: whole segments are dropped, and the
    /// first one is kept.
    pub const DROP_OLDEST_BYTES_MIN: u64 = 16 << 20;
}

/// A job as submitted, defaults filled in. Two submissions are the same job if and only if their
/// `NewJob`s are equal, the idempotency key aside.
///
/// A key that came after the first version leaves no trace where it has its default: the same job
/// keeps its fingerprint across an upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// What is executed.
    pub command: Command,
    /// Absolute; `None`: the home of the server's user.
    pub cwd: Option<String>,
    /// Added to the clean base environment.
    pub env: BTreeMap<String, String>,
    /// File mode creation mask, 0 to 0o777.
    pub umask: u32,
    /// What the kernel bounds for its processes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// Written to the process's stdin first.
    pub stdin: Option<String>,
    /// Stdin stays open for inputs; else it is closed behind `stdin`, or `/dev/null`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interactive: bool,
    /// A name for people; not unique.
    pub name: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The queue it waits in.
    pub queue: String,
    /// Higher first.
    pub priority: i64,
    /// Run time without pauses, per attempt.
    pub timeout_s: Option<Seconds>,
    /// Time without output, per attempt.
    pub stall_timeout_s: Option<Seconds>,
    /// From TERM to KILL.
    pub grace_s: Seconds,
    /// What happens to processes that outlive the leader.
    pub leftover: Leftover,
    /// What happens when nobody can know how an attempt ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_lost: OnLost,
    /// What the loss of the submitting connection means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_disconnect: OnDisconnect,
    /// From the loss of that connection to the cancel.
    #[serde(
        default = "NewJob::disconnect_delay",
        skip_serializing_if = "NewJob::is_usual_delay"
    )]
    pub disconnect_delay_s: Seconds,
    /// How much it may write.
    pub output: OutputPolicy,
    /// Makes submitting it twice one job.
    pub idempotency_key: Option<String>,
}

impl NewJob {
    /// The umask of a job that names none.
    pub const UMASK: u32 = 0o077;
    /// The grace of a job that names none.
    pub const GRACE: Seconds = Seconds(10.0);
    /// The delay of a job that names none.
    pub const DISCONNECT_DELAY: Seconds = Seconds(10.0);
    /// The queue of a job that names none.
    pub const QUEUE: &'static str = "default";
    /// The queue of `run`.
    pub const INTERACTIVE_QUEUE: &'static str = "interactive";

    /// A job with all defaults.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            cwd: None,
            env: BTreeMap::new(),
            umask: Self::UMASK,
            limits: Limits::default(),
            stdin: None,
            interactive: false,
            name: None,
            labels: BTreeMap::new(),
            queue: Self::QUEUE.to_owned(),
            priority: 0,
            timeout_s: None,
            stall_timeout_s: None,
            grace_s: Self::GRACE,
            leftover: Leftover::default(),
            on_lost: OnLost::default(),
            on_disconnect: OnDisconnect::default(),
            disconnect_delay_s: Self::DISCONNECT_DELAY,
            output: OutputPolicy::default(),
            idempotency_key: None,
        }
    }

    fn disconnect_delay() -> Seconds {
        Self::DISCONNECT_DELAY
    }

    fn is_usual_delay(delay: &Seconds) -> bool {
        *delay == Self::DISCONNECT_DELAY
    }

    /// What is compared when an idempotency key is used again: everything but the key itself.
    pub fn fingerprint_source(&self) -> Self {
        Self {
            idempotency_key: None,
            ..self.clone()
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
