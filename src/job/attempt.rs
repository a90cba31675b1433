//! How one try of a job ends, and what was asked of it while it ran.
//!
//! These facts are what the shim writes into the exit record and tells the server; nothing here
//! decides anything but the outcome that follows from them.

use serde::{Deserialize, Serialize};

use super::{
    output::{Dropped, Offset},
    state::{JobState, Reason},
    time::Micros,
};

/// How the leader of an attempt's process tree ended, as the kernel told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// `exit(code)`, 0 to 255.
    Code(i32),
    /// Ended by this signal.
    Signal(i32),
    /// There never was a process: fork, the working directory or exec failed.
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
    /// Somebody asked for it, with grace.
    Cancel,
    /// Somebody asked for it, without grace.
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

    /// Whether the stop was somebody's wish rather than a limit of the job.
    pub fn is_request(self) -> bool {
        matches!(self, Self::Cancel | Self::Kill)
    }
}

/// Somebody's wish that an attempt ends. Committed first, then sent to the shim, and sent again
/// after every adoption: a level, not an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// Who asked: a session, `cli`, a program's own word.
    pub by: String,
    /// `Cancel` or `Kill`.
    pub cause: StopCause,
    /// When it was asked.
    pub asked_at_us: i64,
    /// From TERM to KILL, milliseconds; 0 for a kill.
    pub grace_ms: u64,
}

/// A stop that reached the shim before the leader had exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopFacts {
    /// Who asked: the wish's `by`, or `shim` for a limit.
    pub by: String,
    /// Why.
    pub cause: StopCause,
    /// When it was asked.
    pub asked_at_us: i64,
    /// Names of the signals that were delivered to a process at least, in order.
    pub signals: Vec<String>,
    /// Whether SIGKILL was needed, and delivered.
    pub killed: bool,
    /// Processes that the kernel did not let us signal (EPERM, kill(2)) when it was tried last: they
    /// have become another user's. At most 100 are named.
    #[serde(default)]
    pub refused: Vec<Survivor>,
    /// The leader was one of them, and no signal of the stop has ever reached it: it ended by itself.
    #[serde(default)]
    pub spared: bool,
}

impl StopFacts {
    /// Whether it decides how the attempt ended. At the bound of the output something is missing,
    /// whoever was reached.
    fn has_counted(&self) -> bool {
        !self.spared || self.cause == StopCause::OutputLimit
    }

    /// Of a wish that no shim has heard: no attempt was running, or it is gone.
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

/// Everything the shim knows about the end of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitFacts {
    /// How the leader ended.
    pub exit: Exit,
    /// When the process was started; `None` where there never was one.
    pub started_at_us: Option<i64>,
    /// When the tree was gone, or the spawn had failed.
    pub ended_at_us: i64,
    /// The stop that came before the leader's exit, if any.
    pub stop: Option<StopFacts>,
    /// How many processes outlived the leader and were ended with it.
    pub leaked: u32,
    /// Processes that still live.
    pub survivors: Vec<Survivor>,
    /// The kernel's count for the tree.
    pub usage: Usage,
    /// The offset behind the attempt's last byte, dropped ones included.
    pub end_offset: Offset,
    /// What `output.when_full` has dropped of it.
    #[serde(default)]
    pub dropped: Dropped,
}

impl ExitFacts {
    /// The final state that follows from these facts, and its reason.
    ///
    /// A wish makes it `cancelled`, whatever the exit looked like (also where it came before there
    /// was a process); a limit names itself; otherwise, and where the kernel did not let the stop
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
