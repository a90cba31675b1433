//! A job as the server describes it: the keys that the command line uses. Parsed leniently, so that
//! a newer server's additional keys, states and reasons do no harm.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::shell::shell_word;

/// The contract's `Job`, as far as the command line needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownJob {
    /// The job's UUIDv7.
    pub id: String,
    /// The job's number in its data directory.
    pub number: i64,
    /// `queued`, `running`, `succeeded`, …; a newer server may have more.
    pub state: String,
    /// Why the job failed: `exit_code`, `signal`, `timeout`, …; `None` if it has not failed.
    pub reason: Option<String>,
    /// The leader's exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The name of the signal that ended the leader, if one did.
    pub signal: Option<String>,
    /// The command as words; `None` if it is a shell line.
    pub argv: Option<Vec<String>>,
    /// The command as a line for `/bin/sh -c`.
    pub shell: Option<String>,
    /// The name that the user gave.
    #[serde(default)]
    pub name: Option<String>,
    /// The name of its queue.
    #[serde(default)]
    pub queue: String,
    /// The jobs that it waits or has waited for.
    #[serde(default)]
    pub after: Vec<ShownDependency>,
    /// The time that it waits for.
    #[serde(default)]
    pub waits_until: Option<DateTime<Utc>>,
    /// The job because of which it failed.
    #[serde(default)]
    pub failed_dependency: Option<ShownFailedDependency>,
    /// What its output did not show.
    #[serde(default)]
    pub unmet_expectations: Vec<Value>,
    /// When the submit was acknowledged.
    #[serde(default)]
    pub submitted_at: Option<DateTime<Utc>>,
    /// When its first process was started; `None` before that.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it became final; `None` before that.
    #[serde(default)]
    pub finished_at: Option<DateTime<Utc>>,
    /// Longest run time, seconds; `None` if there is no limit.
    #[serde(default)]
    pub timeout_s: Option<f64>,
    /// Longest time without output, seconds; `None` if there is no limit.
    #[serde(default)]
    pub stall_timeout_s: Option<f64>,
    /// The length of its output, bytes.
    #[serde(default)]
    pub output_bytes: u64,
    /// Why no process could be started.
    #[serde(default)]
    pub spawn_error: Option<ShownSpawnError>,
    /// The stop that was requested or done; `None` if there was none.
    #[serde(default)]
    pub stop: Option<ShownStop>,
}

/// Why no process could be started.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownSpawnError {
    /// The errno(3) of the system call that failed.
    pub errno: i32,
    /// Its name, such as `ENOENT`.
    pub name: String,
    /// What failed: `exec no-such-program`, …
    pub what: String,
}

/// A job that another one waits for.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownDependency {
    /// Its id.
    pub job: String,
}

/// A job that did not end as another one needed it.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownFailedDependency {
    /// Its number.
    pub number: i64,
    /// How it ended.
    pub state: String,
}

/// A stop of a job.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownStop {
    /// The client that asked for it; empty if none did.
    #[serde(default)]
    pub by: String,
    /// Why: `cancel`, `kill`, `timeout`, …
    #[serde(default)]
    pub cause: String,
    /// Whether SIGKILL was needed.
    #[serde(default)]
    pub killed: bool,
    /// Processes that the kernel did not allow the shim to signal.
    #[serde(default)]
    pub refused: Vec<ShownRefusal>,
}

/// A process that could not be signalled.
#[derive(Debug, Clone, Deserialize)]
pub struct ShownRefusal {
    /// Its process id.
    pub pid: i32,
    /// Its program's name (proc_pid_comm(5)).
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

    /// The command as a shell line, harmless for a terminal.
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

    /// How long it ran, or has been running at `now`, seconds; `None` if it has not started, or if
    /// the clock was set back since and the times do not tell.
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
