//! THE WORDS: what a job, an attempt, a state and a chunk of output are.
//!
//! Everything here is pure: no I/O, no async, no clock, no SQL. The rest of the crate speaks in
//! these types, so a rule about jobs is changed here or nowhere.

pub mod attempt;
pub mod chain;
pub mod change;
pub mod command;
pub mod id;
pub mod input;
pub mod limits;
pub mod loss;
pub mod output;
pub mod parse;
pub mod queue;
pub mod signal;
pub mod state;
pub mod time;
pub mod verdict;
pub mod view;

pub use attempt::{Exit, ExitFacts, SpawnError, StopCause, StopFacts, StopWish, Survivor, Usage};
pub use change::JobChange;
pub use command::{Command, Leftover, NewJob, OnDisconnect, OutputPolicy, WhenFull};
pub use id::{JobId, JobNumber, JobRef};
pub use input::{Input, InputAnswer};
pub use limits::{Limits, ResourceBound};
pub use loss::OnLost;
pub use output::{Chunk, Dropped, Gap, GapReason, Offset, Stream};
pub use parse::NewJobRefusal;
pub use queue::{Queue, QueueChange};
pub use state::{JobState, Reason};
pub use time::{Micros, Seconds};
pub use verdict::{Fault, Finding, Verification, VerificationProblem};
pub use view::Job;
