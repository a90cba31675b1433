//! What a user submits, NewJob: its keys, their defaults, and how it is read and written.
//!
//! To add a key, add one field here: the store keeps it, `Job` shows it and the fingerprint
//! includes it without another line. Stored jobs are read by the same code, so the allowed values
//! of a key can be widened later, never narrowed.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};
use serde_path_to_error::Track;

use super::{
    command::{Command, Umask},
    dependency::{self, Dependency},
    expectation::{self, Expectation},
    fields,
    limits::Limits,
    loss::OnLost,
    notify::{self, NotifyEntry},
    policy::{Leftover, OnDisconnect, OutputPolicy},
    read,
    refusal::NewJobRefusal,
    retry::RetryPolicy,
    secret::{self, EnvValue},
    state::Reason,
    time::{Micros, Seconds},
};

/// A job as submitted, defaults filled in. Two submissions are the same job if and only if their
/// specs are equal, the idempotency key aside.
///
/// Serialised it is NewJob's object with every key but `env` and `stdin`: they may hold secrets,
/// and are stored and shown separately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default = "JobSpec::nothing")]
pub struct JobSpec {
    /// What is executed.
    #[serde(flatten, skip_deserializing)]
    pub command: Command,
    /// Working directory, absolute; `None`: the home of the server's user.
    #[serde(deserialize_with = "read::text")]
    pub cwd: Option<String>,
    /// Added to the clean base environment.
    #[serde(skip_serializing, deserialize_with = "read::environment")]
    pub env: BTreeMap<String, EnvValue>,
    /// File mode creation mask.
    pub umask: Umask,
    /// Resource limits of its processes.
    #[serde(serialize_with = "some_limits")]
    pub limits: Limits,
    /// Text that is written to the process's stdin first.
    #[serde(skip_serializing, deserialize_with = "read::text")]
    pub stdin: Option<String>,
    /// Whether stdin stays open for inputs; else it is closed after `stdin`, or is `/dev/null`.
    #[serde(deserialize_with = "read::flag")]
    pub interactive: bool,
    /// A name for people; not unique.
    #[serde(deserialize_with = "read::name_or_none")]
    pub name: Option<String>,
    /// The user's own key-value pairs, for filters.
    #[serde(deserialize_with = "read::labels")]
    pub labels: BTreeMap<String, String>,
    /// The queue it waits in.
    #[serde(deserialize_with = "read::name")]
    pub queue: String,
    /// The higher one starts first.
    #[serde(deserialize_with = "read::priority")]
    pub priority: i64,
    /// Of the jobs with the same key one runs at a time, in all queues together; `None`: no key.
    #[serde(deserialize_with = "read::name_or_none")]
    pub exclusive: Option<String>,
    /// The jobs that it waits for.
    #[serde(deserialize_with = "dependency::after")]
    pub after: Vec<Dependency>,
    /// It does not start before; `None`: at once.
    #[serde(deserialize_with = "read::moment")]
    pub run_at: Option<Micros>,
    /// The same as a time from the submission on; `None`: at once.
    #[serde(deserialize_with = "read::seconds")]
    pub delay_s: Option<Seconds>,
    /// What happens when an attempt fails.
    #[serde(serialize_with = "some_retry")]
    pub retry: RetryPolicy,
    /// Limit of the run time without pauses, per attempt; `None`: no limit.
    #[serde(deserialize_with = "read::positive")]
    pub timeout_s: Option<Seconds>,
    /// Limit of the time without output, per attempt; `None`: no limit.
    #[serde(deserialize_with = "read::positive")]
    pub stall_timeout_s: Option<Seconds>,
    /// Time from SIGTERM to SIGKILL.
    pub grace_s: Seconds,
    /// What happens to processes that outlive the leader.
    pub leftover: Leftover,
    /// What happens when it is unknown how an attempt ended.
    pub on_lost: OnLost,
    /// What happens when the submitting connection is lost.
    pub on_disconnect: OnDisconnect,
    /// Time from the loss of that connection to the cancel.
    pub disconnect_delay_s: Seconds,
    /// How much output it may write.
    pub output: OutputPolicy,
    /// What its output must show for it to succeed, attempt by attempt.
    #[serde(deserialize_with = "expectation::list")]
    pub expect: Vec<Expectation>,
    /// Who is notified of which of its states. The database has it in a column of its own, because
    /// the secrets in it are never serialised.
    #[serde(deserialize_with = "notify::entries")]
    pub notify: Vec<NotifyEntry>,
    /// A second submission with the same key stores no second job; `None`: no key.
    #[serde(deserialize_with = "read::name_or_none")]
    pub idempotency_key: Option<String>,
}

/// Keys that the protocol has and this version does not support yet.
const UNSUPPORTED_KEYS: [&str; 3] = ["pty", "user", "prompt"];

/// A key of `job.submit` itself, beside those of the job.
const TAIL: &str = "tail";

/// Keys that belong to a single job: a queue has no default for them.
const NO_DEFAULTS: [&str; 8] = [
    "argv",
    "shell",
    "queue",
    "stdin",
    "after",
    "run_at",
    "idempotency_key",
    TAIL,
];

/// Keys of a NewJob that this version understands.
static KNOWN_KEYS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let fields = fields::listed_by(|list| JobSpec::deserialize(list).err());
    [&Command::KEYS, fields, &[TAIL]].concat()
});

impl JobSpec {
    /// Keys whose entries are the user's own: those of defaults and of a job are merged.
    pub const MERGED_KEYS: [&'static str; 2] = ["env", "labels"];
    /// The queue of a job that names none.
    pub const QUEUE: &'static str = "default";
    /// The queue of `run`.
    pub const INTERACTIVE_QUEUE: &'static str = "interactive";

    /// The keys of a NewJob that this version understands.
    pub fn keys() -> &'static [&'static str] {
        &KNOWN_KEYS[..KNOWN_KEYS.len() - 1]
    }

    /// Bytes of the texts of a job that can be long: its command, environment, labels, notices and stdin.
    pub fn text_bytes(&self) -> usize {
        let command = match &self.command {
            Command::Argv(words) => words.iter().map(String::len).sum(),
            Command::Shell(text) => text.len(),
        };
        let env = self.env.iter();
        let env: usize = env.map(|(name, value)| name.len() + value.len()).sum();
        let labels = self.labels.iter();
        let labels: usize = labels.map(|(name, value)| name.len() + value.len()).sum();
        let notify = self.notify.iter().map(NotifyEntry::text_bytes);
        command + env + labels + notify.sum::<usize>() + self.stdin.as_ref().map_or(0, String::len)
    }

    /// A job with all defaults.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            cwd: None,
            env: BTreeMap::new(),
            umask: Umask::default(),
            limits: Limits::default(),
            stdin: None,
            interactive: false,
            name: None,
            labels: BTreeMap::new(),
            queue: Self::QUEUE.to_owned(),
            priority: 0,
            exclusive: None,
            after: Vec::new(),
            run_at: None,
            delay_s: None,
            retry: RetryPolicy::default(),
            timeout_s: None,
            stall_timeout_s: None,
            grace_s: Seconds(10.0),
            leftover: Leftover::default(),
            on_lost: OnLost::default(),
            on_disconnect: OnDisconnect::default(),
            disconnect_delay_s: Seconds(10.0),
            output: OutputPolicy::default(),
            expect: Vec::new(),
            notify: Vec::new(),
            idempotency_key: None,
        }
    }

    /// The defaults, with an empty command that `of_object` replaces.
    fn nothing() -> Self {
        Self::new(Command::Argv(Vec::new()))
    }

    /// Reads a NewJob. Null means the same as a missing key. The key `tail` belongs to `job.submit`
    /// itself and is ignored.
    ///
    /// # Errors
    ///
    /// A key is unknown or not supported yet, or a value is wrong.
    pub fn read(mut object: Map<String, Value>) -> Result<Self, NewJobRefusal> {
        refuse_unknown(&object)?;
        object.remove(TAIL);
        let job = Self::of_object(object)?;
        if let Some(cwd) = &job.cwd {
            read::check_directory(cwd).map_err(|wrong| NewJobRefusal::invalid("cwd", wrong))?;
        }
        job.output.check()?;
        job.retry.check()?;
        if job.run_at.is_some() && job.delay_s.is_some() {
            let message = "give run_at or delay_s, not both";
            return Err(NewJobRefusal::invalid("delay_s", message));
        }
        Ok(job)
    }

    /// Checks that its retries can take place. Only for what a user asks for, with the queue's defaults filled
    /// in: a default of a queue suits some of its jobs.
    ///
    /// # Errors
    ///
    /// None of the failures that `retry.on` names can happen to this job.
    pub fn check_retry(&self) -> Result<(), NewJobRefusal> {
        let needs = |key, is_missing: bool| is_missing.then_some(key);
        self.retry.check_can_match(|reason| match reason {
            Reason::Timeout => needs("timeout_s", self.timeout_s.is_none()),
            Reason::Stalled => needs("stall_timeout_s", self.stall_timeout_s.is_none()),
            Reason::Unverified => needs("expect", self.expect.is_empty()),
            _ => None,
        })
    }

    /// Checks NewJob keys that become a queue's defaults.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], for the keys inside `defaults`; or a key belongs to a single job.
    pub fn check_defaults(defaults: &Map<String, Value>) -> Result<(), NewJobRefusal> {
        let own = defaults
            .iter()
            .find(|(key, value)| NO_DEFAULTS.contains(&key.as_str()) && !value.is_null());
        if let Some((key, _)) = own {
            let message = "every job has its own; a queue has no default for it";
            return Err(NewJobRefusal::invalid(key, message).within("defaults"));
        }
        let mut job = defaults.clone();
        job.insert("argv".to_owned(), Value::from(vec!["true"]));
        let read = Self::read(job).map(drop);
        read.map_err(|refusal| refusal.within("defaults"))
    }

    /// When it may start at the earliest, if it was submitted `at`; `None`: at once.
    pub fn earliest_start(&self, at: Micros) -> Option<Micros> {
        self.run_at.or(self.delay_s.map(|delay| at.after(delay)))
    }

    /// The job without what may hold secrets: its environment, its stdin, the secrets of its notices.
    pub fn without_secrets(self) -> Self {
        let notify = self.notify.into_iter();
        Self {
            env: BTreeMap::new(),
            stdin: None,
            notify: notify.map(NotifyEntry::without_secret).collect(),
            ..self
        }
    }

    fn of_object(mut object: Map<String, Value>) -> Result<Self, NewJobRefusal> {
        let command = Command::take(&mut object)?;
        remove_nulls(&mut object);
        let mut track = Track::new();
        let object = Value::Object(object);
        let read = Self::deserialize(serde_path_to_error::Deserializer::new(object, &mut track));
        let read = read.map_err(|wrong| (track.path().to_string(), wrong.to_string()));
        let job = read.map_err(|(key, wrong)| NewJobRefusal::invalid(&key, wrong))?;
        Ok(Self { command, ..job })
    }
}

/// Only for a user's submission: a stored job, or one from another version, may have other keys.
fn refuse_unknown(object: &Map<String, Value>) -> Result<(), NewJobRefusal> {
    for (key, value) in object {
        match UNSUPPORTED_KEYS.contains(&key.as_str()) {
            true if value.is_null() => {}
            true => return Err(NewJobRefusal::unsupported(key)),
            false => refuse_others(key, &KNOWN_KEYS)?,
        }
    }
    for (outer, known) in [
        ("limits", fields::of::<Limits>()),
        ("output", fields::of::<OutputPolicy>()),
        ("retry", fields::of::<RetryPolicy>()),
    ] {
        let Some(value) = object.get(outer).filter(|value| !value.is_null()) else {
            continue;
        };
        let wrong = || NewJobRefusal::invalid(outer, "must be an object");
        let keys = value.as_object().ok_or_else(wrong)?.iter();
        for (key, _) in keys.filter(|(_, value)| !value.is_null()) {
            refuse_others(key, known).map_err(|refusal| refusal.within(outer))?;
        }
    }
    secret::refuse_wrong_references(object.get("env"))?;
    refuse_unknown_of_notify(object.get("notify"))
}

/// The same for the entries of `notify`. What follows may then rely on their being objects.
fn refuse_unknown_of_notify(notify: Option<&Value>) -> Result<(), NewJobRefusal> {
    let Some(notify) = notify.filter(|notify| !notify.is_null()) else {
        return Ok(());
    };
    let wrong = || NewJobRefusal::invalid("notify", "must be a list of objects");
    for (index, entry) in notify.as_array().ok_or_else(wrong)?.iter().enumerate() {
        for key in entry.as_object().ok_or_else(wrong)?.keys() {
            refuse_others(key, &NotifyEntry::KEYS)
                .map_err(|refusal| refusal.within(&format!("notify[{index}]")))?;
        }
    }
    Ok(())
}

fn refuse_others(key: &str, known: &[&str]) -> Result<(), NewJobRefusal> {
    if known.contains(&key) {
        return Ok(());
    }
    let message = format!("unknown key; known keys are {}", known.join(", "));
    Err(NewJobRefusal::invalid(key, message))
}

/// Null means the same as a missing key, also inside of an object whose keys are the protocol's.
fn remove_nulls(object: &mut Map<String, Value>) {
    object.retain(|_, value| !value.is_null());
    for (key, value) in object {
        if let Value::Object(inner) = value
            && !JobSpec::MERGED_KEYS.contains(&key.as_str())
        {
            inner.retain(|_, value| !value.is_null());
        }
    }
}

/// Null if no limit is set.
fn some_limits<S: Serializer>(limits: &Limits, serializer: S) -> Result<S::Ok, S::Error> {
    (!limits.is_none()).then_some(limits).serialize(serializer)
}

/// Null if there is one attempt.
fn some_retry<S: Serializer>(retry: &RetryPolicy, serializer: S) -> Result<S::Ok, S::Error> {
    (retry.max_attempts > 1)
        .then_some(retry)
        .serialize(serializer)
}

impl Serialize for JobSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for JobSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Map::deserialize(deserializer)?;
        // One of `argv` and `shell` is null.
        object.retain(|_, value| !value.is_null());
        Self::of_object(object).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::WhenFull;

    fn parse(value: Value) -> Result<JobSpec, NewJobRefusal> {
        JobSpec::read(value.as_object().expect("an object").clone())
    }

    fn with(key: &str, value: Value) -> Result<JobSpec, NewJobRefusal> {
        let mut object = json!({"argv": ["true"]});
        object[key] = value;
        parse(object)
    }

    #[test]
    fn defaults_are_filled_in() {
        let job = parse(json!({"argv": ["echo", "hi"]})).expect("valid");
        let expected = JobSpec::new(Command::Argv(vec!["echo".into(), "hi".into()]));
        assert_eq!(job, expected);
        assert_eq!((job.umask, job.queue.as_str()), (Umask(0o077), "default"));
    }

    #[test]
    fn every_key_is_read() {
        let job = parse(json!({
            "shell": "make", "cwd": "/src", "env": {"A": "b"}, "umask": "022", "stdin": "x",
            "name": "n", "labels": {"k": "v"}, "queue": "q", "priority": -3, "timeout_s": 1.5,
            "stall_timeout_s": 2, "grace_s": 0, "leftover": "keep",
            "output": {"max_bytes": 10, "when_full": "drop_newest"}, "idempotency_key": "key",
            "interactive": true, "on_disconnect": "cancel", "disconnect_delay_s": 0,
            "on_lost": "retry",
        }))
        .expect("valid");
        assert_eq!(job.command, Command::Shell("make".into()));
        assert_eq!(job.umask, Umask(0o022));
        assert_eq!(job.timeout_s, Some(Seconds(1.5)));
        assert_eq!(job.grace_s, Seconds(0.0));
        assert_eq!(job.output.max_bytes, Some(10));
        assert_eq!(job.output.when_full, WhenFull::DropNewest);
        assert!(job.interactive);
        assert_eq!(job.on_disconnect, OnDisconnect::Cancel);
        assert_eq!(job.disconnect_delay_s, Seconds(0.0));
        assert_eq!(job.leftover, Leftover::Keep);
        assert_eq!(job.on_lost, OnLost::Retry);
    }

    #[test]
    fn wrong_values_are_invalid() {
        for (key, value) in [
            ("argv", json!([])),
            ("argv", json!([""])),
            ("argv", json!(["a\0b"])),
            ("argv", json!("true")),
            ("argv", json!([1])),
            ("shell", json!("both")),
            ("cwd", json!("relative")),
            ("env", json!({"A": 1})),
            ("env", json!({"": "x"})),
            ("env", json!({"A=B": "x"})),
            ("umask", json!(22)),
            ("umask", json!("888")),
            ("umask", json!("+22")),
            ("umask", json!("1777")),
            ("priority", json!(1.5)),
            ("priority", json!(1u64 << 40)),
            ("timeout_s", json!(0)),
            ("timeout_s", json!(-1)),
            ("timeout_s", json!(1e18)),
            ("timeout_s", json!("5")),
            ("grace_s", json!(-0.5)),
            ("leftover", json!("maybe")),
            ("output", json!({"max_bytes": 0})),
            ("output", json!({"when_full": "explode"})),
            ("output", json!({"when_full": "drop_newest"})),
            ("output", json!({"when_full": "drop_oldest"})),
            (
                "output",
                json!({"when_full": "drop_oldest", "max_bytes": (16 << 20) - 1}),
            ),
            ("interactive", json!("yes")),
            ("on_lost", json!("explode")),
            ("on_disconnect", json!("explode")),
            ("disconnect_delay_s", json!(-1)),
            ("output", json!({"colour": 1})),
            ("idempotency_key", json!("")),
            ("labels", json!(["a"])),
            ("colour", json!(1)),
        ] {
            assert!(
                matches!(with(key, value.clone()), Err(NewJobRefusal::Invalid { .. })),
                "{key} = {value}"
            );
        }
        assert!(parse(json!({})).is_err());
    }

    #[test]
    fn what_comes_later_is_unsupported() {
        for key in UNSUPPORTED_KEYS {
            let refused = with(key, json!(true));
            assert_eq!(refused, Err(NewJobRefusal::unsupported(key)));
        }
    }

    #[test]
    fn a_refusal_names_its_key() {
        for (key, value, named) in [
            ("argv", json!(["a", 1]), "argv"),
            ("shell", json!("both"), "argv"),
            ("env", json!({"A": 1}), "env"),
            ("env", json!({"A": {"secret": "a/b"}}), "env.A.secret"),
            ("output", json!({"redact": 1}), "output.redact"),
            ("labels", json!({"a": null}), "labels"),
            ("umask", json!(22), "umask"),
            ("grace_s", json!([]), "grace_s"),
            ("output", json!([]), "output"),
            ("output", json!({"max_bytes": 0}), "output.max_bytes"),
            ("output", json!({"when_full": 1}), "output.when_full"),
            (
                "output",
                json!({"when_full": "drop_newest"}),
                "output.max_bytes",
            ),
            ("output", json!({"colour": 1}), "output.colour"),
            ("limits", json!("none"), "limits"),
            (
                "limits",
                json!({"cpu_s": {"soft": 2, "hard": 1}}),
                "limits.cpu_s",
            ),
            ("limits", json!({"nice": 20}), "limits.nice"),
            ("limits", json!({"cpu": 1}), "limits.cpu"),
            ("leftover", json!({"kill": null}), "leftover"),
            ("colour", json!(null), "colour"),
        ] {
            let refusal = with(key, value.clone()).expect_err("refused");
            assert_eq!(refusal.key(), named, "{key} = {value}");
        }
    }

    #[test]
    fn null_is_as_good_as_left_out() {
        let mut nulls: Map<String, Value> = KNOWN_KEYS
            .iter()
            .chain(&UNSUPPORTED_KEYS)
            .map(|key| ((*key).to_owned(), Value::Null))
            .collect();
        let refused = JobSpec::read(nulls.clone()).expect_err("no command");
        assert_eq!(refused.key(), "argv");
        JobSpec::check_defaults(&nulls).expect("no defaults");
        nulls.insert("argv".into(), json!(["true"]));
        nulls.insert(
            "output".into(),
            json!({"max_bytes": null, "when_full": null, "x": null}),
        );
        nulls.insert("limits".into(), json!({"nice": null}));
        let job = JobSpec::read(nulls.clone()).expect("valid");
        assert_eq!(job, JobSpec::new(Command::Argv(vec!["true".into()])));
        nulls.insert("argv".into(), Value::Null);
        nulls.insert("shell".into(), json!("true"));
        let job = JobSpec::read(nulls).expect("valid");
        assert_eq!(job, JobSpec::new(Command::Shell("true".into())));
    }

    /// The home of the server's user stands in for a directory that was not named, and may be
    /// anything.
    #[test]
    fn a_stored_directory_is_read_and_a_users_is_checked() {
        let stored = json!({"argv": ["true"], "cwd": ""}).to_string();
        let job: JobSpec = serde_json::from_str(&stored).expect("a stored job");
        assert_eq!(job.cwd.as_deref(), Some(""));
        for wrong in ["", "relative", "/with\0nul"] {
            let object = json!({"argv": ["true"], "cwd": wrong});
            let object = object.as_object().cloned().expect("an object");
            let refused = JobSpec::read(object).map_err(|refusal| format!("{refusal:?}"));
            assert!(refused.is_err_and(|text| text.contains("cwd")), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_has_no_secret() {
        let job = parse(json!({
            "shell": "make", "cwd": "/src", "env": {"A": "s3cret"}, "umask": "022", "stdin": "s3cret",
            "limits": {"cpu_s": {"soft": 1, "hard": null}}, "timeout_s": 0.1, "on_lost": "retry",
            "output": {"max_bytes": 10, "when_full": "drop_newest"}, "labels": {"k": "v"},
        }))
        .expect("valid");
        let written = serde_json::to_string(&job).expect("JSON");
        assert!(!written.contains("s3cret"), "{written}");
        let read: JobSpec = serde_json::from_str(&written).expect("a job");
        assert_eq!(read, job.without_secrets());
    }
}
