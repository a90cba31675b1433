//! The rows of the database, read by a plain `sqlite3` that may only read. Knows their columns and
//! judges nothing.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::plan::Key;

const JOBS: &str = "SELECT number, id, idempotency_key, state, reason, attempts,
    failed_dependency ->> 'job' AS on_job, failed_dependency ->> 'state' AS on_state FROM jobs
    WHERE schedule IS NULL";
const RUNS: &str =
    "SELECT number, id, schedule, schedule_at, idempotency_key, state, reason, submitted_at
    FROM jobs WHERE schedule IS NOT NULL ORDER BY number";
const ATTEMPTS: &str = "SELECT job, attempt, state, shim, claimed_at, started_at, ended_at
    FROM attempts ORDER BY job, attempt";
const EVENTS: &str = "SELECT id, job, attempt, from_state, to_state, reason, at
    FROM events ORDER BY id";
const DEPENDENCIES: &str = "SELECT count(*) AS n FROM dependencies WHERE waiting = 1";

/// What the database says of all jobs.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    pub jobs: Vec<JobRow>,
    pub attempts: Vec<AttemptRow>,
    pub events: Vec<EventRow>,
    /// The jobs of schedules, in order.
    pub runs: Vec<RunRow>,
    pub segments: Vec<SegmentRow>,
    /// Inputs that wait for a start.
    pub inputs: u64,
    /// Dependencies that somebody still waits for.
    pub dependencies: u64,
    /// What `PRAGMA integrity_check` and `foreign_key_check` say; `ok` is all.
    pub integrity: String,
}

/// A row of `jobs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRow {
    pub number: u64,
    pub id: String,
    pub idempotency_key: String,
    pub state: String,
    pub reason: String,
    pub attempts: u64,
    /// The id of the job because of which it failed, and how that one had ended.
    pub failed_dependency: (String, String),
}

/// A row of `jobs` that a schedule submitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRow {
    pub number: u64,
    pub id: String,
    pub schedule: String,
    /// The time for which it was due, microseconds.
    pub at: u64,
    /// Of one that was asked for.
    pub idempotency_key: String,
    pub state: String,
    pub reason: String,
    pub submitted_at: u64,
}

/// A row of `attempts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptRow {
    pub job: u64,
    pub attempt: u32,
    pub state: String,
    pub shim: String,
    pub claimed_at: u64,
    pub started_at: Option<u64>,
    pub ended_at: Option<u64>,
}

/// A row of `events`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventRow {
    pub id: u64,
    pub job: u64,
    pub attempt: u32,
    pub from: Option<String>,
    pub to: String,
    pub reason: String,
    pub at: u64,
}

/// A row of `segments`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentRow {
    pub job: u64,
    pub attempt: u32,
    pub first_offset: u64,
    pub file_bytes: u64,
}

impl Rows {
    /// Reads the database of a data directory.
    pub fn read(data_dir: &Path) -> Self {
        let file = data_dir.join("cc-executor.db");
        let ask = |sql: &str| ask(&file, sql);
        let checked = ask("PRAGMA integrity_check");
        let broken = ask("PRAGMA foreign_key_check");
        Self {
            jobs: ask(JOBS).iter().map(JobRow::of).collect(),
            attempts: ask(ATTEMPTS).iter().map(AttemptRow::of).collect(),
            events: ask(EVENTS).iter().map(EventRow::of).collect(),
            runs: ask(RUNS).iter().map(RunRow::of).collect(),
            segments: ask("SELECT job, attempt, first_offset, file_bytes FROM segments")
                .iter()
                .map(SegmentRow::of)
                .collect(),
            inputs: number(&ask("SELECT count(*) AS n FROM inputs")[0]["n"]),
            dependencies: number(&ask(DEPENDENCIES)[0]["n"]),
            integrity: match (checked.len(), broken.len()) {
                (1, 0) => text(&checked[0]["integrity_check"]),
                _ => format!("{checked:?} {broken:?}"),
            },
        }
    }
}

impl JobRow {
    fn of(row: &Value) -> Self {
        Self {
            number: number(&row["number"]),
            id: text(&row["id"]),
            idempotency_key: text(&row["idempotency_key"]),
            state: text(&row["state"]),
            reason: text(&row["reason"]),
            attempts: number(&row["attempts"]),
            failed_dependency: (text(&row["on_job"]), text(&row["on_state"])),
        }
    }

    /// Which job of the run it is.
    pub fn key(&self) -> Option<Key> {
        self.idempotency_key.strip_prefix("chaos-")?.parse().ok()
    }
}

impl RunRow {
    fn of(row: &Value) -> Self {
        Self {
            number: number(&row["number"]),
            id: text(&row["id"]),
            schedule: text(&row["schedule"]),
            at: number(&row["schedule_at"]),
            idempotency_key: text(&row["idempotency_key"]),
            state: text(&row["state"]),
            reason: text(&row["reason"]),
            submitted_at: number(&row["submitted_at"]),
        }
    }

    /// The key of the request that it was submitted for.
    pub fn request(&self) -> Option<&str> {
        let key = self.idempotency_key.strip_prefix("schedule:")?;
        key.strip_prefix(self.schedule.as_str())?.strip_prefix(':')
    }
}

impl AttemptRow {
    fn of(row: &Value) -> Self {
        Self {
            job: number(&row["job"]),
            attempt: number(&row["attempt"]) as u32,
            state: text(&row["state"]),
            shim: text(&row["shim"]),
            claimed_at: number(&row["claimed_at"]),
            started_at: row["started_at"].as_u64(),
            ended_at: row["ended_at"].as_u64(),
        }
    }
}

impl EventRow {
    fn of(row: &Value) -> Self {
        Self {
            id: number(&row["id"]),
            job: number(&row["job"]),
            attempt: number(&row["attempt"]) as u32,
            from: row["from_state"].as_str().map(str::to_owned),
            to: text(&row["to_state"]),
            reason: text(&row["reason"]),
            at: number(&row["at"]),
        }
    }
}

impl SegmentRow {
    fn of(row: &Value) -> Self {
        Self {
            job: number(&row["job"]),
            attempt: number(&row["attempt"]) as u32,
            first_offset: number(&row["first_offset"]),
            file_bytes: number(&row["file_bytes"]),
        }
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        format!("{}.{}.{}.seg", self.job, self.attempt, self.first_offset)
    }
}

/// Everything that the database has about one job, for people.
pub fn tell(data_dir: &Path, key: Key) -> String {
    let file = data_dir.join("cc-executor.db");
    let of_job = format!("(SELECT number FROM jobs WHERE idempotency_key = 'chaos-{key}')");
    let mut told = String::new();
    for sql in [
        format!("SELECT * FROM jobs WHERE number = {of_job}"),
        format!("SELECT * FROM attempts WHERE job = {of_job}"),
        format!("SELECT * FROM dependencies WHERE job = {of_job}"),
        format!("SELECT * FROM events WHERE job = {of_job} ORDER BY id"),
        format!("SELECT * FROM segments WHERE job = {of_job}"),
    ] {
        let mut sqlite3 = Command::new("sqlite3");
        sqlite3.args(["-readonly", "-line"]).arg(&file).arg(sql);
        let output = sqlite3.output().expect("sqlite3");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text
            .lines()
            .map(str::trim)
            .map(|line| format!("{line:.600}"));
        told += &lines.collect::<Vec<_>>().join(" | ");
        told.push('\n');
    }
    told
}

fn ask(file: &Path, sql: &str) -> Vec<Value> {
    let asked = Command::new("sqlite3")
        .args(["-readonly", "-json"])
        .arg(file)
        .arg(sql)
        .output();
    let output = asked.expect("sqlite3 is installed (scripts/test does it)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{sql}: {said}");
    match output.stdout.is_empty() {
        true => Vec::new(),
        false => serde_json::from_slice(&output.stdout).expect("sqlite3 writes JSON"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
