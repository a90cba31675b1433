//! A job's policies: for processes that outlive the leader, for a lost connection, for output that
//! reaches its limit.

use serde::{Deserialize, Serialize};

use super::{NewJobRefusal, read, words::words};

/// What happens to processes that outlive the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leftover {
    /// They are killed when the leader has ended.
    #[default]
    Kill,
    /// They stay and are named in `survivors`.
    Keep,
}

words!(Leftover: Kill = "kill", Keep = "keep");

/// What happens when a job has written as much output as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The job ends with `output_limit`.
    #[default]
    Fail,
    /// The oldest segments after the first one are dropped.
    DropOldest,
    /// Later output is counted and dropped.
    DropNewest,
}

words!(WhenFull: Fail = "fail", DropOldest = "drop_oldest", DropNewest = "drop_newest");

/// What happens when the connection that submitted a job is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDisconnect {
    /// The job goes on.
    #[default]
    Continue,
    /// The job is cancelled, unless a client names it within the delay.
    Cancel,
}

words!(OnDisconnect: Continue = "continue", Cancel = "cancel");

/// How much output a job may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputPolicy {
    /// Over all attempts, bytes; `None`: no limit.
    #[serde(deserialize_with = "read::count")]
    pub max_bytes: Option<u64>,
    /// Over all attempts, lines: bytes 0x0A of all streams; `None`: no limit.
    #[serde(deserialize_with = "read::count")]
    pub max_lines: Option<u64>,
    /// What happens at the limit that is reached first.
    pub when_full: WhenFull,
    /// Whether the values of the job's secrets are masked in it.
    #[serde(deserialize_with = "read::flag")]
    pub redact: bool,
}

impl Default for OutputPolicy {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_lines: None,
            when_full: WhenFull::default(),
            redact: true,
        }
    }
}

impl OutputPolicy {
    /// The least `max_bytes` with [`WhenFull::DropOldest`], bytes: whole segments are dropped, and
    /// the first one is kept.
    pub const DROP_OLDEST_BYTES_MIN: u64 = 16 << 20;

    /// Dropping needs a limit, and dropping whole segments needs a large one.
    pub(super) fn check(&self) -> Result<(), NewJobRefusal> {
        let least = match self.when_full {
            WhenFull::Fail => return Ok(()),
            WhenFull::DropNewest => 1,
            WhenFull::DropOldest => Self::DROP_OLDEST_BYTES_MIN,
        };
        let fits = match self.max_bytes {
            Some(max) => max >= least,
            None => self.max_lines.is_some(),
        };
        if fits {
            return Ok(());
        }
        let (name, key) = (self.when_full.name(), "output.max_bytes");
        let message = match self.max_bytes {
            Some(_) => format!("must be at least {least} where output.when_full is {name:?}"),
            None => format!(
                "output.when_full is {name:?}: give output.max_bytes (at least {least}) or \
                 output.max_lines"
            ),
        };
        Err(NewJobRefusal::invalid(key, message))
    }
}
