//! What a firing of a schedule hands to the writer and gets back, and the result of setting one.

use super::types::{StopRequested, Submission, SubmitError, SubmitOutcome};
use crate::job::{Micros, PolicyDecision, Schedule, SkippedRun};

/// The result of setting a schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleSet {
    /// It is stored like this.
    Done(Box<Schedule>),
    /// There are [`Schedule::COUNT_MAX`] schedules already, and it is not among them.
    TooMany,
}

/// Runs of a schedule, all of them and the time of its next look in one commit.
#[derive(Debug, Clone)]
pub struct Firing {
    /// Name of the schedule.
    pub name: String,
    /// Its revision when the firing was decided; another one makes it stale.
    pub revision: i64,
    /// What it is about.
    pub cause: FiringCause,
    /// The runs, in order.
    pub runs: Vec<RunPlan>,
    /// Times that are over and do not run: how many, and the newest one before `runs`.
    pub missed: Option<(u64, SkippedRun)>,
    /// When it was decided, by the wall clock.
    pub at: Micros,
}

/// Why a schedule fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FiringCause {
    /// A look at the clock: the first time that had not been looked at, which fences the firing, and
    /// what it is from now on.
    Clock {
        /// Before.
        from: Micros,
        /// After; `None`: there is none.
        to: Option<Micros>,
    },
    /// The run before the first waiting one is final.
    Waiting,
    /// Somebody wants it now.
    Request,
}

/// A run that shall be submitted.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// Its time.
    pub at: Micros,
    /// The job, or why there cannot be one.
    pub submission: Result<Submission, RunRefused>,
}

/// Why a run cannot become a job.
#[derive(Debug, Clone)]
pub struct RunRefused {
    /// In words.
    pub reason: String,
    /// The decision of the policy, if that has refused it.
    pub by: Option<PolicyDecision>,
}

/// A run that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmittedRun {
    /// Its time.
    pub at: Micros,
    /// Its job.
    pub outcome: SubmitOutcome,
}

/// What became of a firing.
#[derive(Debug, Default)]
pub struct Fired {
    /// Nothing was done: the schedule was changed, or another firing came first.
    pub stale: bool,
    /// The jobs.
    pub submitted: Vec<SubmittedRun>,
    /// Times that are skipped, with the reasons.
    pub skipped: Vec<SkippedRun>,
    /// Requests to stop earlier runs, which the caller sends on.
    pub stops: Vec<StopRequested>,
    /// Why the last run was refused as a submission.
    pub refused: Option<SubmitError>,
}
