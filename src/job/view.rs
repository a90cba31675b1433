//! A job as users see it: NewJob's keys with defaults filled in, and what has happened to it.
//!
//! Values of the environment and of stdin are only part of it where the caller requested them.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    attempt::{Exit, StopFacts, StopRequest, Survivor, Usage},
    command::Command,
    dependency::FailedDependency,
    expectation::UnmetExpectation,
    id::{JobId, JobNumber},
    notify::{NotifyEntry, NotifySecret},
    requester::PolicyRecord,
    schedule::ScheduledRun,
    secret::EnvValue,
    signal,
    spec::JobSpec,
    state::{JobState, Reason},
    time::Micros,
};

/// A job as users see it. Serialises as the protocol's `Job` object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// UUIDv7 of the job.
    pub id: JobId,
    /// Number of the job.
    pub number: JobNumber,
    /// Its current state.
    pub state: JobState,
    /// Why it failed; `None` in all other states.
    pub reason: Option<Reason>,
    /// How its leader ended; `None` while it has not, and where that is unknown.
    #[serde(flatten, serialize_with = "serialize_exit")]
    pub exit: Option<Exit>,
    /// What was submitted, without its environment and its stdin.
    #[serde(flatten)]
    pub spec: JobSpec,
    /// Names of the variables that it was given.
    pub env_names: Vec<String>,
    /// Length of its stdin, bytes; `None` where it has none.
    pub stdin_bytes: Option<u64>,
    /// Values of its variables, where requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, EnvValue>>,
    /// Its stdin, where requested (`Some(None)`: it has none).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Option<String>>,
    /// The job that this one repeats.
    pub retry_of: Option<JobId>,
    /// The run of a schedule that it is; `None`: somebody submitted it.
    pub schedule: Option<ScheduledRun>,
    /// The decision of the policy by which it was taken; `None`: there was no policy.
    #[serde(skip_serializing_if = "PolicyRecord::has_no_decision")]
    pub policy: Option<PolicyRecord>,
    /// How many attempts have started or may have; void ones do not count.
    pub attempts: u32,
    /// When it was acknowledged.
    pub submitted_at: Micros,
    /// When its first process was started.
    pub started_at: Option<Micros>,
    /// When it became final.
    pub finished_at: Option<Micros>,
    /// While it is scheduled: the time that it waits for.
    pub waits_until: Option<Micros>,
    /// The job that did not end as required, where the reason is `dependency`.
    pub failed_dependency: Option<FailedDependency>,
    /// What its output did not show, where the reason is `unverified`.
    pub unmet_expectations: Vec<UnmetExpectation>,
    /// The length of its output, gaps included.
    pub output_bytes: u64,
    /// How many of them `output.when_full` has dropped.
    pub dropped_bytes: u64,
    /// How many line ends were among those.
    pub dropped_lines: u64,
    /// SHA-256 over all bytes of the output; `None` before the end and where there are gaps.
    pub output_sha256: Option<String>,
    /// The stop, requested or done.
    pub stop: Option<StopView>,
    /// How many processes outlived the leader and were ended with it.
    pub leaked: u32,
    /// Processes that still live.
    pub survivors: Vec<Survivor>,
    /// Why there may be more survivors: the remains of a lost attempt could not be examined.
    pub survivors_unknown: Option<String>,
    /// The kernel's counters, summed over all attempts.
    pub usage: Usage,
}

/// Three keys, of which at most one has a value.
fn serialize_exit<S: Serializer>(exit: &Option<Exit>, serializer: S) -> Result<S::Ok, S::Error> {
    let (code, signal, error) = match exit {
        None => (None, None, None),
        Some(Exit::Code(code)) => (Some(code), None, None),
        Some(Exit::Signal(number)) => (None, Some(signal::name(*number)), None),
        Some(Exit::SpawnFailed(error)) => (None, None, Some(error)),
    };
    let mut map = serializer.serialize_map(Some(3))?;
    map.serialize_entry("exit_code", &code)?;
    map.serialize_entry("signal", &signal)?;
    map.serialize_entry("spawn_error", &error)?;
    map.end()
}

/// A stop as far as it has come.
#[derive(Debug, Clone, PartialEq)]
pub enum StopView {
    /// The request is committed, and may not have reached the shim yet.
    Requested(StopRequest),
    /// The same, and the kernel did not let the shim signal these processes.
    Refused(StopRequest, Vec<Survivor>),
    /// It reached the shim before the leader's exit.
    Done(StopFacts),
}

impl StopView {
    /// The requester, or `shim` for a limit.
    pub fn by(&self) -> &str {
        match self {
            Self::Requested(request) | Self::Refused(request, _) => &request.by,
            Self::Done(facts) => &facts.by,
        }
    }
}

impl Serialize for StopView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (none, no_processes) = (&[] as &[String], &[] as &[Survivor]);
        let (cause, at) = match self {
            Self::Requested(w) | Self::Refused(w, _) => (w.cause, w.asked_at_us),
            Self::Done(d) => (d.cause, d.asked_at_us),
        };
        let (signals, killed, refused) = match self {
            Self::Requested(_) => (none, false, no_processes),
            Self::Refused(_, refused) => (none, false, refused.as_slice()),
            Self::Done(d) => (d.signals.as_slice(), d.killed, d.refused.as_slice()),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("by", self.by())?;
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

impl Job {
    /// A job that was submitted just now.
    pub fn submitted(
        (id, number): (JobId, JobNumber),
        state: JobState,
        spec: JobSpec,
        retry_of: Option<JobId>,
        submitted_at: Micros,
    ) -> Self {
        Self {
            id,
            number,
            state,
            reason: None,
            exit: None,
            env_names: spec.env.keys().cloned().collect(),
            stdin_bytes: spec.stdin.as_ref().map(|stdin| stdin.len() as u64),
            spec: spec.without_secrets(),
            env: None,
            stdin: None,
            retry_of,
            schedule: None,
            policy: None,
            attempts: 0,
            submitted_at,
            started_at: None,
            finished_at: None,
            waits_until: None,
            failed_dependency: None,
            unmet_expectations: Vec::new(),
            output_bytes: 0,
            dropped_bytes: 0,
            dropped_lines: 0,
            output_sha256: None,
            stop: None,
            leaked: 0,
            survivors: Vec::new(),
            survivors_unknown: None,
            usage: Usage::default(),
        }
    }

    /// About how many bytes of memory its texts of variable length take.
    pub fn text_bytes(&self) -> usize {
        let word = |text: &String| size_of::<String>() + text.len();
        let spec = &self.spec;
        let command = match &spec.command {
            Command::Argv(argv) => argv.iter().map(word).sum(),
            Command::Shell(line) => line.len(),
        };
        let names: usize = self.env_names.iter().map(word).sum();
        let values: usize = self
            .env
            .iter()
            .flatten()
            .map(|(_, value)| size_of::<EnvValue>() + value.len())
            .sum();
        let labels: usize = spec.labels.iter().map(|(k, v)| word(k) + word(v)).sum();
        let notify: usize = spec.notify.iter().map(NotifyEntry::text_bytes).sum();
        let stdin = self.stdin.as_ref().and_then(Option::as_ref);
        let (name, key) = (spec.name.as_ref(), spec.idempotency_key.as_ref());
        let texts = [name, key, spec.cwd.as_ref(), stdin];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        command + names + values + labels + notify + texts
    }

    /// The same NewJob again, without its idempotency key; `None` where the job was read without
    /// its environment, its stdin or the secrets of its notices.
    pub fn resubmission(&self) -> Option<JobSpec> {
        let mut notify = self.spec.notify.iter();
        if notify.any(|entry| entry.secret == NotifySecret::Hidden) {
            return None;
        }
        Some(JobSpec {
            env: self.env.clone()?,
            stdin: self.stdin.clone()?,
            idempotency_key: None,
            ..self.spec.clone()
        })
    }
}
