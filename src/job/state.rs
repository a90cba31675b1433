//! The states of a job, and the only table of its transitions.
//!
//! The table is pure; `store` turns each row of it into one UPDATE that names the state it leaves.

use serde::{Deserialize, Serialize};

/// The state of a job. The last three are final and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a time or for a retry.
    Scheduled,
    /// Waits for other jobs.
    Blocked,
    /// Waits for a slot.
    Queued,
    /// An attempt holds a slot.
    Running,
    /// The attempt's process tree is stopped; it keeps its slot.
    Paused,
    /// The leader exited with 0.
    Succeeded,
    /// It ended otherwise; the reason says how.
    Failed,
    /// A stop reached it before it ended by itself.
    Cancelled,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name of this state on the wire and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether a job in this state never changes again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether an attempt of the job holds a slot.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// Why a job is `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The leader exited with another code than 0.
    ExitCode,
    /// The leader was ended by a signal that was not sent to stop the job.
    Signal,
    /// `timeout_s` was over.
    Timeout,
    /// `stall_timeout_s` passed without output.
    Stalled,
    /// No process could be started.
    Spawn,
    /// `output.max_bytes` was reached.
    OutputLimit,
    /// A job that it depends on did not end as required.
    Dependency,
    /// The transcript did not show what was expected.
    Unverified,
    /// It is unknown how the process ended.
    Lost,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::ExitCode,
        Self::Signal,
        Self::Timeout,
        Self::Stalled,
        Self::Spawn,
        Self::OutputLimit,
        Self::Dependency,
        Self::Unverified,
        Self::Lost,
    ];

    /// The name of this reason on the wire and in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExitCode => "exit_code",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Spawn => "spawn",
            Self::OutputLimit => "output_limit",
            Self::Dependency => "dependency",
            Self::Unverified => "unverified",
            Self::Lost => "lost",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What a job waits for, before it waits for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nothing else.
    Slot,
    /// A time.
    Time,
    /// Other jobs, and then perhaps a time.
    Jobs,
}

impl WaitsFor {
    fn state(self) -> JobState {
        match self {
            Self::Slot => JobState::Queued,
            Self::Time => JobState::Scheduled,
            Self::Jobs => JobState::Blocked,
        }
    }
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A user handed it in.
    Submitted(WaitsFor),
    /// Every job that it waited for has ended as required; it may still wait for a time.
    Unblocked(WaitsFor),
    /// A job that it waited for has not ended as required.
    DependencyFailed,
    /// The time that it waited for has come.
    Due,
    /// It is given another time before which it does not start.
    Postponed,
    /// It got a slot and a shim.
    Claimed,
    /// Its attempt was proven never to have started: the job waits again.
    Voided,
    /// Its attempt was lost and it is to run again: it waits for the next one.
    Requeued,
    /// Its attempt failed and it is to run again after a pause.
    Retried,
    /// The shim stopped the process tree.
    Paused,
    /// The shim let the process tree go on.
    Resumed,
    /// It was cancelled while no attempt was running.
    Withdrawn,
    /// Its attempt ended in this final state.
    Ended(JobState),
}

/// Where `event` takes a job that is in `state` (`None`: not yet submitted), or `None` where the
/// event cannot happen there.
pub fn next(state: Option<JobState>, event: Event) -> Option<JobState> {
    use JobState::{Blocked, Cancelled, Failed, Paused, Queued, Running, Scheduled};
    match (state, event) {
        (None, Event::Submitted(wait)) => Some(wait.state()),
        (Some(Blocked), Event::Unblocked(wait)) if wait != WaitsFor::Jobs => Some(wait.state()),
        (Some(Blocked), Event::DependencyFailed) => Some(Failed),
        (Some(Scheduled), Event::Due) => Some(Queued),
        (Some(Queued), Event::Postponed) => Some(Scheduled),
        (Some(Queued), Event::Claimed) => Some(Running),
        (Some(Running | Paused), Event::Voided | Event::Requeued) => Some(Queued),
        (Some(Running | Paused), Event::Retried) => Some(Scheduled),
        (Some(Running), Event::Paused) => Some(Paused),
        (Some(Paused), Event::Resumed) => Some(Running),
        (Some(Scheduled | Blocked | Queued), Event::Withdrawn) => Some(Cancelled),
        // A cancelled claim that never ran, or was lost, need not be queued first.
        (Some(Running | Paused), Event::Withdrawn) => Some(Cancelled),
        (Some(Running | Paused), Event::Ended(end)) if end.is_final() => Some(end),
        _ => None,
    }
}

/// Whether some event takes a job from `from` to `to`.
pub fn may_follow(from: Option<JobState>, to: JobState) -> bool {
    let events = [
        Event::Submitted(WaitsFor::Slot),
        Event::Submitted(WaitsFor::Time),
        Event::Submitted(WaitsFor::Jobs),
        Event::Unblocked(WaitsFor::Slot),
        Event::Unblocked(WaitsFor::Time),
        Event::DependencyFailed,
        Event::Due,
        Event::Postponed,
        Event::Claimed,
        Event::Voided,
        Event::Requeued,
        Event::Retried,
        Event::Paused,
        Event::Resumed,
        Event::Withdrawn,
        Event::Ended(to),
    ];
    events
        .into_iter()
        .any(|event| next(from, event) == Some(to))
}

#[cfg(test)]
mod tests {
    use super::{JobState::*, *};

    const EVENTS: [Event; 20] = [
        Event::Submitted(WaitsFor::Slot),
        Event::Submitted(WaitsFor::Time),
        Event::Submitted(WaitsFor::Jobs),
        Event::Unblocked(WaitsFor::Slot),
        Event::Unblocked(WaitsFor::Time),
        Event::Unblocked(WaitsFor::Jobs),
        Event::DependencyFailed,
        Event::Due,
        Event::Postponed,
        Event::Claimed,
        Event::Voided,
        Event::Requeued,
        Event::Retried,
        Event::Paused,
        Event::Resumed,
        Event::Withdrawn,
        Event::Ended(Succeeded),
        Event::Ended(Failed),
        Event::Ended(Cancelled),
        Event::Ended(Running),
    ];

    /// All states × all events, written out.
    #[test]
    fn the_whole_table() {
        let legal = [
            (None, Event::Submitted(WaitsFor::Slot), Queued),
            (None, Event::Submitted(WaitsFor::Time), Scheduled),
            (None, Event::Submitted(WaitsFor::Jobs), Blocked),
            (Some(Scheduled), Event::Due, Queued),
            (Some(Blocked), Event::Unblocked(WaitsFor::Slot), Queued),
            (Some(Blocked), Event::Unblocked(WaitsFor::Time), Scheduled),
            (Some(Blocked), Event::DependencyFailed, Failed),
            (Some(Queued), Event::Postponed, Scheduled),
            (Some(Running), Event::Retried, Scheduled),
            (Some(Paused), Event::Retried, Scheduled),
            (Some(Scheduled), Event::Withdrawn, Cancelled),
            (Some(Blocked), Event::Withdrawn, Cancelled),
            (Some(Queued), Event::Claimed, Running),
            (Some(Queued), Event::Withdrawn, Cancelled),
            (Some(Running), Event::Voided, Queued),
            (Some(Running), Event::Requeued, Queued),
            (Some(Running), Event::Paused, Paused),
            (Some(Running), Event::Withdrawn, Cancelled),
            (Some(Running), Event::Ended(Succeeded), Succeeded),
            (Some(Running), Event::Ended(Failed), Failed),
            (Some(Running), Event::Ended(Cancelled), Cancelled),
            (Some(Paused), Event::Voided, Queued),
            (Some(Paused), Event::Requeued, Queued),
            (Some(Paused), Event::Resumed, Running),
            (Some(Paused), Event::Withdrawn, Cancelled),
            (Some(Paused), Event::Ended(Succeeded), Succeeded),
            (Some(Paused), Event::Ended(Failed), Failed),
            (Some(Paused), Event::Ended(Cancelled), Cancelled),
        ];
        let states = std::iter::once(None).chain(JobState::ALL.map(Some));
        for state in states {
            for event in EVENTS {
                let expected = legal
                    .iter()
                    .find(|(from, by, _)| *from == state && *by == event)
                    .map(|(_, _, to)| *to);
                assert_eq!(next(state, event), expected, "{state:?} × {event:?}");
            }
        }
    }

    #[test]
    fn final_states_never_change() {
        for state in JobState::ALL.into_iter().filter(|s| s.is_final()) {
            for event in EVENTS {
                assert_eq!(next(Some(state), event), None);
            }
        }
    }

    #[test]
    fn names_go_both_ways() {
        for state in JobState::ALL {
            assert_eq!(JobState::from_name(state.name()), Some(state));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
    }
}
