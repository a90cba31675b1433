//! How one attempt of a job ends, and which stop was requested while it ran.
//!
//! The shim writes these facts into the exit record and sends them to the server; the outcome
//! follows from them alone.

use serde::{Deserialize, Serialize};

use super::{
    output::{Dropped, Offset},
    state::{JobState, Reason},
    time::Micros,
};

/// How the leader of an attempt's process tree ended, as the kernel reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// `exit(code)`, 0 to 255.
    Code(i32),
    /// Ended by this signal.
    Signal(i32),
    /// There was no process: fork, the working directory or exec failed.
    SpawnFailed(SpawnError),
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnError {
    /// errno(3).
    pub errno: i32,
    /// Its symbolic name, such as `ENOENT`.
    pub name: String,
    /// What was tried: `exec no-such-program`, `chdir /gone`, …
    pub what: String,
}

/// Why an attempt was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// A user or program requested it, with grace.
    Cancel,
    /// A user or program requested it, without grace.
    Kill,
    /// The run time was over.
    Timeout,
    /// No output for too long.
    Stalled,
    /// `output.max_bytes` was reached.
    OutputLimit,
}

impl StopCause {
    /// The name of this cause on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Kill => "kill",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::OutputLimit => "output_limit",
        }
    }

    /// Whether a user or program requested the stop, rather than a limit of the job.
    pub fn is_request(self) -> bool {
        matches!(self, Self::Cancel | Self::Kill)
    }
}

/// A request that an attempt ends. Committed first, then sent to the shim, and sent again after
/// every adoption: a level (a state that is wanted), not an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// The requester: a session, `cli`, or a name that a program has given.
    pub by: String,
    /// `Cancel` or `Kill`.
    pub cause: StopCause,
    /// When it was requested, µs since 1970.
    pub asked_at_us: i64,
    /// Time from SIGTERM to SIGKILL, milliseconds; 0 for a kill.
    pub grace_ms: u64,
}

/// A stop that reached the shim before the leader had exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopFacts {
    /// The requester: the request's `by`, or `shim` for a limit.
    pub by: String,
    /// Which request or limit caused it.
    pub cause: StopCause,
    /// When it was requested, µs since 1970.
    pub asked_at_us: i64,
    /// Names of the signals that were delivered to at least one process, in order.
    pub signals: Vec<String>,
    /// Whether SIGKILL was needed, and delivered.
    pub killed: bool,
    /// Processes that the kernel did not let the shim signal at its last try (EPERM, kill(2)): they
    /// have become another user's. At most 100 are named.
    #[serde(default)]
    pub refused: Vec<Survivor>,
    /// The leader was one of them, and no signal of the stop reached it: it ended by itself.
    #[serde(default)]
    pub spared: bool,
}

impl StopFacts {
    /// Whether it decides how the attempt ended. At the bound of the output bytes are missing,
    /// whether or not a signal reached the leader.
    fn has_counted(&self) -> bool {
        !self.spared || self.cause == StopCause::OutputLimit
    }

    /// Facts of a request that no shim has received: no attempt was running, or it is lost.
    pub fn undelivered(request: &StopRequest) -> Self {
        Self {
            by: request.by.clone(),
            cause: request.cause,
            asked_at_us: request.asked_at_us,
            signals: Vec::new(),
            killed: false,
            refused: Vec::new(),
            spared: false,
        }
    }
}

/// What the kernel counted for the whole process tree of an attempt (getrusage(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, seconds.
    pub user_s: f64,
    /// CPU time in the kernel, seconds.
    pub system_s: f64,
    /// The largest resident set of any one process, bytes.
    pub max_rss_bytes: u64,
}

/// A process that outlived its attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its process id at that time.
    pub pid: i32,
    /// Its command name (`/proc/PID/comm`).
    pub comm: String,
}

/// Everything that the shim knows about the end of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitFacts {
    /// How the leader ended.
    pub exit: Exit,
    /// When the process was started, µs since 1970; `None` where there was none.
    pub started_at_us: Option<i64>,
    /// When the tree was gone, or the spawn had failed, µs since 1970.
    pub ended_at_us: i64,
    /// The stop that came before the leader's exit, if any.
    pub stop: Option<StopFacts>,
    /// How many processes outlived the leader and were ended with it.
    pub leaked: u32,
    /// Processes that still live.
    pub survivors: Vec<Survivor>,
    /// The kernel's counters for the tree.
    pub usage: Usage,
    /// The offset after the attempt's last byte, dropped ones included.
    pub end_offset: Offset,
    /// How much of the attempt's output `output.when_full` has dropped.
    #[serde(default)]
    pub dropped: Dropped,
}

impl ExitFacts {
    /// The final state that follows from these facts, and its reason.
    ///
    /// A request makes it `cancelled`, whatever the exit was (also where it came before there was a
    /// process). A limit gives the reason. Otherwise, and where the kernel did not let the stop
    /// reach the leader, the leader's exit decides.
    pub fn outcome(&self) -> (JobState, Option<Reason>) {
        let stop = self.stop.as_ref().filter(|stop| stop.has_counted());
        let cause = stop.map(|stop| stop.cause);
        if let (Exit::SpawnFailed(_), None) = (&self.exit, cause.filter(|c| c.is_request())) {
            return (JobState::Failed, Some(Reason::Spawn));
        }
        match cause {
            Some(StopCause::Cancel | StopCause::Kill) => (JobState::Cancelled, None),
            Some(StopCause::Timeout) => (JobState::Failed, Some(Reason::Timeout)),
            Some(StopCause::Stalled) => (JobState::Failed, Some(Reason::Stalled)),
            Some(StopCause::OutputLimit) => (JobState::Failed, Some(Reason::OutputLimit)),
            None => match self.exit {
                Exit::Code(0) => (JobState::Succeeded, None),
                Exit::Code(_) => (JobState::Failed, Some(Reason::ExitCode)),
                Exit::Signal(_) | Exit::SpawnFailed(_) => (JobState::Failed, Some(Reason::Signal)),
            },
        }
    }

    /// When the process tree was gone.
    pub fn ended_at(&self) -> Micros {
        Micros(self.ended_at_us)
    }
}
