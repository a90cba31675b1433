//! A job as the server describes it: the keys that the command line looks at.
//!
//! Read leniently, so that a newer server's additional keys, states and reasons do no harm.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::shell::shell_word;

/// The contract's `ShownJob`, as far as the command line needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownJob {
    /// UUIDv7.
    pub id: String,
    /// Its small number.
    pub number: i64,
    /// Where it is in its life.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// The leader's exit code.
    pub exit_code: Option<i32>,
    /// The name of the signal that ended the leader.
    pub signal: Option<String>,
    /// What is executed, as words.
    pub argv: Option<Vec<String>>,
    /// What is executed, as a line for `/bin/sh -c`.
    pub shell: Option<String>,
    /// A name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Its queue.
    #[serde(default)]
    pub queue: String,
    /// When it was acknowledged.
    #[serde(default)]
    pub submitted_at: Option<DateTime<Utc>>,
    /// When its first process was started.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it became final.
    #[serde(default)]
    pub finished_at: Option<DateTime<Utc>>,
    /// Run time allowed, seconds.
    #[serde(default)]
    pub timeout_s: Option<f64>,
    /// Silence allowed, seconds.
    #[serde(default)]
    pub stall_timeout_s: Option<f64>,
    /// The length of its output.
    #[serde(default)]
    pub output_bytes: u64,
    /// Why no process could be started.
    #[serde(default)]
    pub spawn_error: Option<ShownSpawnError>,
    /// The stop, wished for or done.
    #[serde(default)]
    pub stop: Option<ShownStop>,
}

/// Why no process could be started.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownSpawnError {
    /// errno(3).
    pub errno: i32,
    /// Its name, such as `ENOENT`.
    pub name: String,
    /// What was tried: `exec no-such-program`, …
    pub what: String,
}

/// A stop.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownStop {
    /// Who asked.
    #[serde(default)]
    pub by: String,
    /// Why: `cancel`, `kill`, `timeout`, …
    #[serde(default)]
    pub cause: String,
    /// Whether SIGKILL was needed.
    #[serde(default)]
    pub killed: bool,
    /// Whom the kernel did not let it signal.
    #[serde(default)]
    pub refused: Vec<ShownRefusal>,
}

/// A process that could not be signalled.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownRefusal {
    /// Its number.
    pub pid: i32,
    /// Its name.
    #[serde(default)]
    pub comm: String,
}

impl ShownJob {
    /// Reads a job from a reply.
    pub fn read(value: &Value) -> anyhow::Result<Self> {
        Self::deserialize(value)
            .map_err(|error| anyhow::anyhow!("the server described a job in a way that this version does not understand ({error}); `cc-executor restart` starts the server in this version"))
    }

    /// Whether it never changes again.
    pub fn is_final(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// What is executed, as a line that a person could type; harmless for a terminal.
    pub fn command(&self) -> String {
        let line = match (&self.argv, &self.shell) {
            (Some(argv), _) => {
                let words: Vec<_> = argv.iter().map(|word| shell_word(word)).collect();
                words.join(" ")
            }
            (None, Some(line)) => line.clone(),
            (None, None) => String::new(),
        };
        crate::escape::visible(&line)
    }

    /// How long it ran, or has been running at `now`, seconds; `None` where the clock was put back
    /// meanwhile, and nobody can tell from it.
    pub fn run_seconds(&self, now: DateTime<Utc>) -> Option<f64> {
        let end = self.finished_at.unwrap_or(now);
        let seconds = super::times::seconds_between(self.started_at?, end);
        (seconds >= 0.0).then_some(seconds)
    }
}

/// A job for tests, made from the given keys over harmless ones.
#[cfg(test)]
pub fn sample(keys: Value) -> ShownJob {
    let mut object = serde_json::json!({
        "id": "01939b9e-0000-7000-8000-000000000000", "number": 42, "state": "queued",
        "reason": null, "exit_code": null, "signal": null, "argv": ["true"], "shell": null,
        "queue": "default",
    });
    for (key, value) in keys.as_object().expect("an object") {
        object[key] = value.clone();
    }
    ShownJob::read(&object).expect("a job")
}
