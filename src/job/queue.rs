//! Queues: how many jobs run side by side, how queues compete, and the defaults of their jobs. The
//! store assigns the slots.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    NewJobRefusal,
    expectation::{self, Expectation},
    read::NAME_BYTES_MAX,
    spec::JobSpec,
};

/// A queue as users see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Queue {
    /// Its name.
    #[serde(rename = "queue")]
    pub name: String,
    /// The most jobs of it that run at a time.
    pub concurrency: u32,
    /// Whether it starts no new jobs.
    pub paused: bool,
    /// Why it is paused, if that was said.
    pub pause_reason: Option<String>,
    /// Whether it takes no new jobs; those that it has are started.
    pub drain: bool,
    /// The most starts in any [`Queue::RATE_WINDOW`]; `None`: no bound.
    pub starts_per_minute: Option<u32>,
    /// Its weight where queues compete for shims: a queue with twice the weight gets twice the starts.
    pub weight: u32,
    /// NewJob keys that a job gets if it does not name them.
    pub defaults: Map<String, Value>,
    /// Jobs that hold a slot: running or paused.
    pub running: u64,
    /// Jobs that wait for one.
    pub queued: u64,
}

/// A requested change of a queue; `None` leaves a value as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueChange {
    /// Name of the queue.
    pub name: String,
    /// The most jobs that run at a time, 1 to [`Queue::CONCURRENCY_MAX`].
    pub concurrency: Option<u32>,
    /// Whether it starts no new jobs. Without a pause there is no reason for one.
    pub paused: Option<bool>,
    /// Why it is paused.
    pub pause_reason: Option<String>,
    /// Whether it takes no new jobs.
    pub drain: Option<bool>,
    /// The most starts in a minute, 1 to [`Queue::STARTS_PER_MINUTE_MAX`]; `Some(None)`: no bound.
    pub starts_per_minute: Option<Option<u32>>,
    /// The weight, 1 to [`Queue::WEIGHT_MAX`].
    pub weight: Option<u32>,
    /// All defaults; they replace the old ones.
    pub defaults: Option<Map<String, Value>>,
}

impl Queue {
    /// The most slots of a queue.
    pub const CONCURRENCY_MAX: u32 = 1024;
    /// The largest weight.
    pub const WEIGHT_MAX: u32 = 1000;
    /// The most queues: the server keeps all of them in memory.
    pub const COUNT_MAX: u32 = 1000;
    /// The longest `defaults` as JSON, bytes: 10,000 jobs of one batch may each get them.
    pub const DEFAULTS_BYTES_MAX: usize = 16 << 10;
    /// The longest reason of a pause, bytes.
    pub const PAUSE_REASON_BYTES_MAX: usize = 1024;
    /// The most starts in a minute that a queue can be bounded to.
    pub const STARTS_PER_MINUTE_MAX: u32 = 6000;
    /// What `starts_per_minute` calls a minute: any stretch of this length.
    pub const RATE_WINDOW: Duration = Duration::from_secs(60);
    /// Queues that always exist.
    pub const BUILT_IN: [&'static str; 2] = ["default", "interactive"];

    /// Why a queue cannot have this name, if it cannot.
    pub fn check_name(name: &str) -> Result<(), NewJobRefusal> {
        if !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control) {
            return Ok(());
        }
        let message = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
        Err(NewJobRefusal::invalid("queue", message))
    }

    /// Why a pause cannot have this reason, if it cannot.
    pub fn check_pause_reason(reason: &str) -> Result<(), NewJobRefusal> {
        let max = Self::PAUSE_REASON_BYTES_MAX;
        if (1..=max).contains(&reason.len()) && !reason.contains('\0') {
            return Ok(());
        }
        let message = format!("must have 1 to {max} bytes and no NUL");
        Err(NewJobRefusal::invalid("pause_reason", message))
    }

    /// The queue as every client may see it: of the defaults' variables only the names, as
    /// `env_names` of a job.
    pub fn without_values(mut self) -> Self {
        if let Some(Value::Object(env)) = self.defaults.remove("env") {
            let names = env.into_iter().map(|(name, _)| Value::String(name));
            let names = Value::Array(names.collect());
            self.defaults.insert("env_names".to_owned(), names);
        }
        self.without_secrets()
    }

    /// The queue without the secrets of its defaults' notices, which no client sees: of each only
    /// whether there is one, as in a job.
    pub fn without_secrets(mut self) -> Self {
        let entries = self
            .defaults
            .get_mut("notify")
            .and_then(Value::as_array_mut);
        for entry in entries
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            let secret = entry.remove("secret");
            let has_secret = secret.is_some_and(|secret| !secret.is_null());
            entry.insert("has_secret".to_owned(), Value::Bool(has_secret));
        }
        self
    }

    /// Defaults as they are stored: checked like a NewJob's keys, without those that are null.
    pub fn read_defaults(object: &Map<String, Value>) -> Result<Map<String, Value>, NewJobRefusal> {
        JobSpec::check_defaults(object)?;
        let mut defaults = object.clone();
        defaults.retain(|_, value| !value.is_null());
        let bytes = serde_json::to_vec(&defaults).map_or(usize::MAX, |json| json.len());
        if bytes > Self::DEFAULTS_BYTES_MAX {
            let message = format!("at most {} bytes of JSON", Self::DEFAULTS_BYTES_MAX);
            return Err(NewJobRefusal::invalid("defaults", message));
        }
        Ok(defaults)
    }

    /// Whether a job with these defaults has its secrets masked in its output.
    pub fn redacts(defaults: &Map<String, Value>) -> bool {
        let redact = defaults
            .get("output")
            .and_then(|output| output.get("redact"));
        redact.and_then(Value::as_bool).unwrap_or(true)
    }

    /// What defaults that were read before expect of the output of jobs.
    pub fn default_expectations(defaults: &Map<String, Value>) -> Vec<Expectation> {
        let expect = defaults.get("expect").cloned().unwrap_or_default();
        expectation::list(expect).unwrap_or_default()
    }

    /// A NewJob with a queue's defaults: keys that it names, even with null, stay as they are;
    /// `env` and `labels` are merged, and the job's own entries win.
    pub fn fill_in(defaults: &Map<String, Value>, job: &Map<String, Value>) -> Map<String, Value> {
        let mut filled = job.clone();
        for (key, default) in defaults {
            match (filled.get_mut(key), default) {
                (None, _) => {
                    filled.insert(key.clone(), default.clone());
                }
                (Some(Value::Object(own)), Value::Object(entries))
                    if JobSpec::MERGED_KEYS.contains(&key.as_str()) =>
                {
                    for (name, value) in entries {
                        own.entry(name).or_insert_with(|| value.clone());
                    }
                }
                (Some(_), _) => {}
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn names_are_short_and_visible() {
        for fine in ["a", "größe ✓", "with space", &"x".repeat(1024)] {
            assert_eq!(Queue::check_name(fine), Ok(()), "{fine}");
        }
        for wrong in ["", "a\nb", "\u{1b}[2J", "\u{9b}", "\0", &"x".repeat(1025)] {
            assert!(Queue::check_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn defaults_are_keys_of_a_job_that_is_not_there_yet() {
        let all = map(json!({
            "cwd": "/", "env": {"A": "b"}, "umask": "022", "name": "n", "labels": {"k": "v"},
            "priority": 5, "timeout_s": 1, "stall_timeout_s": 1, "grace_s": 0,
            "leftover": "keep", "interactive": true, "on_disconnect": "cancel",
            "disconnect_delay_s": 1, "output": {"max_bytes": 5}, "timeout": null,
        }));
        assert!(
            Queue::read_defaults(&all).is_err(),
            "null or not, the key is unknown"
        );
        let mut fine = all;
        fine.remove("timeout");
        fine.insert("timeout_s".into(), json!(null));
        let read = Queue::read_defaults(&fine).expect("valid");
        assert_eq!((read.len(), read.get("timeout_s")), (fine.len() - 1, None));
        for (wrong, key) in [
            (json!({"argv": ["true"]}), "defaults.argv"),
            (json!({"shell": "true"}), "defaults.shell"),
            (json!({"queue": "q"}), "defaults.queue"),
            (json!({"idempotency_key": "k"}), "defaults.idempotency_key"),
            (json!({"stdin": "x"}), "defaults.stdin"),
            (json!({"tail": {}}), "defaults.tail"),
            (json!({"colour": 1}), "defaults.colour"),
            (json!({"timeout_s": 0}), "defaults.timeout_s"),
            (
                json!({"output": {"max_bytes": 0}}),
                "defaults.output.max_bytes",
            ),
            (json!({"pty": true}), "defaults.pty"),
            (json!({"env": {"A": "x".repeat(17 << 10)}}), "defaults"),
        ] {
            let refused = Queue::read_defaults(&map(wrong.clone())).expect_err("refused");
            assert_eq!(refused.key(), key, "{wrong}");
        }
    }

    #[test]
    fn values_of_variables_are_taken_out_and_their_names_stay() {
        let queue = |defaults| Queue {
            name: "q".to_owned(),
            concurrency: 1,
            paused: false,
            pause_reason: None,
            drain: false,
            starts_per_minute: None,
            weight: 1,
            defaults: map(defaults),
            running: 0,
            queued: 0,
        };
        let shown = queue(json!({"env": {"B": "x", "A": "y"}, "umask": "022"})).without_values();
        let expected = map(json!({"env_names": ["A", "B"], "umask": "022"}));
        assert_eq!(shown.defaults, expected);
        assert_eq!(queue(json!({})).without_values().defaults, Map::new());
    }

    #[test]
    fn what_a_job_names_stays_and_the_rest_is_filled_in() {
        let defaults = map(json!({
            "timeout_s": 5, "priority": 1, "env": {"A": "queue", "B": "queue"},
            "output": {"max_bytes": 9},
        }));
        let filled = |job: Value| Value::Object(Queue::fill_in(&defaults, &map(job)));
        let expected = json!({
            "argv": ["x"], "timeout_s": null, "priority": 7, "env": {"A": "job", "B": "queue"},
            "output": {},
        });
        let job = json!({"argv": ["x"], "timeout_s": null, "priority": 7, "env": {"A": "job"},
                         "output": {}});
        assert_eq!(filled(job), expected);
        assert_eq!(filled(json!({"env": null}))["env"], json!(null));
        assert_eq!(filled(json!({"env": "wrong"}))["env"], "wrong");
        let all = filled(json!({}));
        assert_eq!(all, Value::Object(defaults.clone()));
    }
}
