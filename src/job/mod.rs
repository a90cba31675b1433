//! The domain types: what a job, an attempt, a state and a chunk of output are.
//!
//! Everything here is pure: no I/O, no async, no clock, no SQL. The rest of the crate uses these
//! types, so every rule about jobs is here.

pub mod attempt;
pub mod chain;
pub mod change;
pub mod command;
pub mod dependency;
pub mod expectation;
mod fields;
mod fingerprint;
pub mod id;
pub mod input;
pub mod limits;
pub mod loss;
pub mod notice;
pub mod notify;
pub mod output;
pub mod policy;
pub mod queue;
pub mod read;
mod refusal;
pub mod requester;
pub mod retention;
pub mod retry;
pub mod schedule;
pub mod secret;
pub mod signal;
pub mod spec;
pub mod state;
pub mod time;
pub mod timetable;
pub mod verification;
pub mod view;
mod words;

pub use attempt::{
    Exit, ExitFacts, SpawnError, StopCause, StopFacts, StopRequest, Survivor, Usage,
};
pub use change::JobChange;
pub use command::{Command, Umask};
pub use dependency::{Dependency, DependencyCondition, DependencyTarget, FailedDependency};
pub use expectation::{Expectation, UnmetExpectation};
pub use id::{JobId, JobNumber, JobRef};
pub use input::{Input, InputAnswer};
pub use limits::{Limits, ResourceBound};
pub use loss::OnLost;
pub use notice::{Delivery, Notice, NoticeState};
pub use notify::{NotifyEntry, NotifySecret, NotifyTarget, StateSet, WebhookSecret};
pub use output::{Chunk, Dropped, Gap, GapReason, Offset, Stream, StreamCounts};
pub use policy::{Leftover, OnDisconnect, OutputPolicy, WhenFull};
pub use queue::{Queue, QueueChange};
pub use refusal::NewJobRefusal;
pub use requester::{PolicyDecision, PolicyRecord, Requester};
pub use retention::{
    RetentionBounds, RetentionCandidate, RetentionCount, RetentionFilter, RetentionRule,
    RetentionScope,
};
pub use retry::RetryPolicy;
pub use schedule::{CatchUp, Overlap, Schedule, ScheduleChange, ScheduledRun, SkippedRun};
pub use secret::{EnvValue, SecretName, SecretText, SecretVariable};
pub use spec::JobSpec;
pub use state::{JobState, Reason};
pub use time::{Micros, Seconds};
pub use timetable::{DueTimes, Timetable};
pub use verification::{Fault, Finding, Verification, VerificationProblem};
pub use view::Job;
