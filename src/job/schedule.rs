//! Schedules: which job is submitted when, and what happens where a run meets the one before it.
//! `timetable` says when.

use serde_json::{Map, Value};

use super::{
    JobNumber, JobSpec, Micros, NewJobRefusal, Requester, read::NAME_BYTES_MAX, words::words,
};

/// What happens to a run whose predecessor is not final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// It does not run.
    #[default]
    Skip,
    /// It is submitted when the one before it is final.
    Queue,
    /// The one before it is cancelled.
    Replace,
}

words!(Overlap: Skip = "skip", Queue = "queue", Replace = "replace");

/// What happens to times at which no server looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// They do not run.
    None,
    /// The newest one runs.
    #[default]
    Last,
    /// All run, in order.
    All,
}

words!(CatchUp: None = "none", Last = "last", All = "all");

/// The run of a schedule that a job is. Serialises as `schedule` of `Job`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ScheduledRun {
    /// Name of the schedule.
    pub name: String,
    /// The time that it was submitted for, not the moment of the submission.
    pub at: Micros,
}

/// A run that did not take place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SkippedRun {
    /// The time that it would have had.
    pub at: Micros,
    /// Why it was not submitted.
    pub reason: String,
}

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// The name of the time zone.
    pub timezone: String,
    /// What happens to a run whose predecessor is not final.
    pub overlap: Overlap,
    /// What happens to times at which no server looked.
    pub catch_up: CatchUp,
    /// Whether it does not fire.
    pub paused: bool,
    /// The NewJob of each run as it was given, with its secrets.
    pub job: Map<String, Value>,
    /// Who has set it, for the policy that its runs are judged by; `None`: that is not known.
    pub requester: Option<Requester>,
    /// Counts its changes; fences a firing that was decided before one.
    pub revision: i64,
    /// The first time that has not been looked at.
    pub next_at: Option<Micros>,
    /// Runs that wait until the one before them is final.
    pub waiting: Vec<Micros>,
    /// The time of the newest run, and its job.
    pub last: Option<(Micros, JobNumber)>,
    /// How many runs have been submitted.
    pub runs: u64,
    /// How many times have been skipped.
    pub skipped: u64,
    /// The newest of them.
    pub last_skip: Option<SkippedRun>,
}

/// A requested change of a schedule; `None` leaves a value as it is, or takes the default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScheduleChange {
    /// Name of the schedule.
    pub name: String,
    /// The cron expression; a new schedule needs one.
    pub cron: Option<String>,
    /// The name of the time zone.
    pub timezone: Option<String>,
    /// What happens to a run whose predecessor is not final.
    pub overlap: Option<Overlap>,
    /// What happens to times at which no server looked.
    pub catch_up: Option<CatchUp>,
    /// Whether it does not fire.
    pub paused: Option<bool>,
    /// The NewJob of each run; a new schedule needs one.
    pub job: Option<Map<String, Value>>,
}

/// Keys of a NewJob that a schedule decides, or that make no sense without a submitting client.
const NOT_SCHEDULED: [(&str, &str); 6] = [
    ("idempotency_key", "each run is a job of its own"),
    ("tail", "it belongs to job.submit"),
    ("run_at", "the schedule says when"),
    ("delay_s", "the schedule says when"),
    ("after", "a run waits for no other job"),
    ("on_disconnect", "no connection submits the runs"),
];

impl Schedule {
    /// The most schedules.
    pub const COUNT_MAX: u32 = 1000;
    /// The longest NewJob of a schedule as JSON, bytes.
    pub const JOB_BYTES_MAX: usize = 256 << 10;
    /// The most runs that wait for the one before them; further ones are skipped.
    pub const WAITING_MAX: usize = 100;
    /// How many of the next times are shown.
    pub const NEXT_SHOWN: usize = 5;

    /// Why a schedule cannot have this name, if it cannot: the rules are those of queues.
    pub fn check_name(name: &str) -> Result<(), NewJobRefusal> {
        if !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control) {
            return Ok(());
        }
        let message = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
        Err(NewJobRefusal::invalid("name", message))
    }

    /// Refuses keys that no run of a schedule can have, and a job that is too large.
    pub fn check_job(job: &Map<String, Value>) -> Result<(), NewJobRefusal> {
        let set = |key: &&(&str, &str)| job.get(key.0).is_some_and(|value| !value.is_null());
        if let Some((key, why)) = NOT_SCHEDULED.iter().find(set) {
            let message = format!("a schedule's job has no such key: {why}; leave it out");
            return Err(NewJobRefusal::invalid(key, message).within("job"));
        }
        let bytes = serde_json::to_vec(job).map_or(usize::MAX, |json| json.len());
        if bytes > Self::JOB_BYTES_MAX {
            let message = format!("at most {} bytes of JSON", Self::JOB_BYTES_MAX);
            return Err(NewJobRefusal::invalid("job", message));
        }
        Ok(())
    }

    /// The actor of what it does.
    pub fn actor(name: &str) -> String {
        format!("schedule:{name}")
    }

    /// The NewJob as every client may see it: of variables the names, of stdin the length.
    pub fn shown_job(&self) -> Map<String, Value> {
        let mut job = self.job.clone();
        if let Some(Value::Object(env)) = job.remove("env") {
            let names = env.into_iter().map(|(name, _)| Value::String(name));
            job.insert("env_names".to_owned(), Value::Array(names.collect()));
        }
        if let Some(Value::String(stdin)) = job.remove("stdin") {
            job.insert("stdin_bytes".to_owned(), Value::from(stdin.len()));
        }
        job
    }

    /// The queue of its runs.
    pub fn queue(&self) -> &str {
        let queue = self.job.get("queue").and_then(Value::as_str);
        queue.unwrap_or(JobSpec::QUEUE)
    }
}
