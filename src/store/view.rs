//! From the row of a job to the job as users see it.
//!
//! It reads; it decides nothing.

use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{
    Counts, Include, JobPage, ListFilter,
    columns::{from_json, from_json_opt, json, malformed},
    events,
};
use crate::job::{
    Command, Job, JobId, JobNumber, JobRef, Leftover, Micros, OutputPolicy, Seconds, Usage,
    WhenFull, view::Stop,
};

/// A job's row with its environment and its current attempt's wish.
pub(super) struct JobRow {
    number: i64,
    id: String,
    state: String,
    reason: Option<String>,
    queue: String,
    priority: i64,
    name: Option<String>,
    labels: String,
    argv: Option<String>,
    shell: Option<String>,
    cwd: String,
    env_names: String,
    env: Option<String>,
    umask: u32,
    stdin_bytes: Option<i64>,
    stdin: Option<String>,
    timeout_s: Option<f64>,
    stall_timeout_s: Option<f64>,
    grace_s: f64,
    leftover: String,
    output_bytes_max: Option<i64>,
    idempotency_key: Option<String>,
    attempts: u32,
    submitted_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    output_bytes: i64,
    output_sha256: Option<String>,
    spawn_error: Option<String>,
    stop: Option<String>,
    stop_wish: Option<String>,
    leaked: u32,
    survivors: String,
    user_us: i64,
    system_us: i64,
    max_rss_bytes: i64,
}

/// `SELECT` of [`JobRow`]s. `?1`: with the environment's values, `?2`: with stdin; the rest is the
/// caller's.
macro_rules! select_jobs {
    ($tail:literal, $include:expr $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            JobRow,
            r#"SELECT j.number AS "number!: i64", j.id AS "id!: String",
                j.state AS "state!: String", j.reason AS "reason: String",
                j.queue AS "queue!: String", j.priority AS "priority!: i64",
                j.name AS "name: String", j.labels AS "labels!: String",
                j.argv AS "argv: String", j.shell AS "shell: String", j.cwd AS "cwd!: String",
                e.names AS "env_names!: String",
                CASE WHEN ?1 THEN e.env END AS "env: String",
                j.umask AS "umask!: u32", octet_length(j.stdin) AS "stdin_bytes: i64",
                CASE WHEN ?2 THEN j.stdin END AS "stdin: String",
                j.timeout_s AS "timeout_s: f64", j.stall_timeout_s AS "stall_timeout_s: f64",
                j.grace_s AS "grace_s!: f64", j.leftover AS "leftover!: String",
                j.output_bytes_max AS "output_bytes_max: i64",
                j.idempotency_key AS "idempotency_key: String",
                j.attempts AS "attempts!: u32", j.submitted_at AS "submitted_at!: i64",
                j.started_at AS "started_at: i64", j.finished_at AS "finished_at: i64",
                j.exit_code AS "exit_code: i32", j.signal AS "signal: i32",
                j.output_bytes AS "output_bytes!: i64",
                j.output_sha256 AS "output_sha256: String",
                j.spawn_error AS "spawn_error: String", j.stop AS "stop: String",
                a.stop AS "stop_wish: String", j.leaked AS "leaked!: u32",
                j.survivors AS "survivors!: String", j.user_us AS "user_us!: i64",
                j.system_us AS "system_us!: i64", j.max_rss_bytes AS "max_rss_bytes!: i64"
            FROM jobs AS j
            JOIN environments AS e ON e.hash = j.environment
            LEFT JOIN attempts AS a ON a.job = j.number AND a.attempt = j.attempt "#
                + $tail,
            $include.env,
            $include.stdin
            $(, $arg)*
        )
    };
}

/// One job.
pub(super) async fn job<'e>(
    conn: impl sqlx::Executor<'e, Database = Sqlite>,
    job: JobRef,
    include: Include,
) -> sqlx::Result<Option<Job>> {
    let row = match job {
        JobRef::Number(number) => {
            select_jobs!("WHERE j.number = ?3", include, number)
                .fetch_optional(conn)
                .await?
        }
        JobRef::Id(id) => {
            let id = id.to_string();
            select_jobs!("WHERE j.id = ?3", include, id)
                .fetch_optional(conn)
                .await?
        }
    };
    row.map(|row| row.into_job(include)).transpose()
}

/// A job that is known to be there.
pub(super) async fn known(conn: &mut SqliteConnection, number: JobNumber) -> sqlx::Result<Job> {
    job(conn, JobRef::Number(number), Include::default())
        .await?
        .ok_or(sqlx::Error::RowNotFound)
}

/// A page of jobs, newest first. Each state's newest are found through its index, so that a few
/// queued jobs are found quickly behind a million final ones.
pub(super) async fn list(readers: &SqlitePool, filter: &ListFilter) -> sqlx::Result<JobPage> {
    let states = match filter.states.as_slice() {
        [] => json(&crate::job::JobState::ALL)?,
        some => json(&some)?,
    };
    let labels = json(&filter.labels)?;
    let below = filter.below.unwrap_or(JobNumber::MAX);
    let since = filter.since.map(|at| at.0);
    // One more than asked for tells whether there is a next page.
    let wanted = i64::from(filter.limit) + 1;
    let include = Include::default();
    let rows = select_jobs!(
        "WHERE j.number IN (
             SELECT n.number FROM json_each(?3) AS s, jobs AS n WHERE n.number IN (
                 SELECT c.number FROM jobs AS c
                 WHERE c.state = s.value AND c.number < ?4
                   AND (?5 IS NULL OR c.queue = ?5)
                   AND (?6 IS NULL OR c.name = ?6)
                   AND (?7 IS NULL OR c.submitted_at >= ?7)
                   AND NOT EXISTS (
                       SELECT 1 FROM json_each(?8) AS w WHERE NOT EXISTS (
                           SELECT 1 FROM json_each(c.labels) AS h
                           WHERE h.key = w.key AND h.value = w.value))
                 ORDER BY c.number DESC LIMIT ?9))
         ORDER BY j.number DESC LIMIT ?9",
        include,
        states,
        below,
        filter.queue,
        filter.name,
        since,
        labels,
        wanted,
    )
    .fetch_all(readers)
    .await?;
    let more = rows.len() > filter.limit as usize;
    let jobs: Vec<Job> = rows
        .into_iter()
        .take(filter.limit as usize)
        .map(|row| row.into_job(include))
        .collect::<sqlx::Result<_>>()?;
    let next = jobs.last().filter(|_| more).map(|job| job.number);
    Ok(JobPage { jobs, next })
}

/// How many jobs are in each state; states without jobs are missing.
pub(super) async fn counts(readers: &SqlitePool) -> sqlx::Result<Counts> {
    sqlx::query!(
        r#"SELECT state AS "state!: String", count(*) AS "jobs!: i64" FROM jobs GROUP BY state"#
    )
    .fetch_all(readers)
    .await?
    .into_iter()
    .map(|row| Ok((events::state(&row.state)?, row.jobs as u64)))
    .collect()
}

impl JobRow {
    fn into_job(self, include: Include) -> sqlx::Result<Job> {
        let state = events::state(&self.state)?;
        let stop = self.stop(state.is_active())?;
        Ok(Job {
            id: job_id(&self.id)?,
            number: self.number,
            state,
            reason: self.reason.as_deref().map(events::reason).transpose()?,
            exit_code: self.exit_code,
            signal: self.signal,
            command: command(self.argv.as_deref(), self.shell)?,
            cwd: self.cwd,
            env_names: from_json(&self.env_names)?,
            stdin_bytes: self.stdin_bytes.map(|bytes| bytes as u64),
            env: from_json_opt(self.env.as_deref())?,
            stdin: include.stdin.then_some(self.stdin),
            umask: self.umask,
            name: self.name,
            labels: from_json(&self.labels)?,
            queue: self.queue,
            priority: self.priority,
            timeout_s: self.timeout_s.map(Seconds),
            stall_timeout_s: self.stall_timeout_s.map(Seconds),
            grace_s: Seconds(self.grace_s),
            leftover: leftover(&self.leftover)?,
            output: output_policy(self.output_bytes_max),
            idempotency_key: self.idempotency_key,
            attempts: self.attempts,
            submitted_at: Micros(self.submitted_at),
            started_at: self.started_at.map(Micros),
            finished_at: self.finished_at.map(Micros),
            output_bytes: self.output_bytes as u64,
            output_sha256: self.output_sha256,
            spawn_error: from_json_opt(self.spawn_error.as_deref())?,
            stop,
            leaked: self.leaked,
            survivors: from_json(&self.survivors)?,
            usage: Usage {
                user_s: seconds(self.user_us),
                system_s: seconds(self.system_us),
                max_rss_bytes: self.max_rss_bytes as u64,
            },
        })
    }

    /// While an attempt is active the wish is shown; afterwards only what has really happened.
    fn stop(&self, active: bool) -> sqlx::Result<Option<Stop>> {
        if active {
            return Ok(from_json_opt(self.stop_wish.as_deref())?.map(Stop::Wished));
        }
        Ok(from_json_opt(self.stop.as_deref())?.map(Stop::Done))
    }
}

pub(super) fn job_id(text: &str) -> sqlx::Result<JobId> {
    uuid::Uuid::try_parse(text).map(JobId).map_err(malformed)
}

pub(super) fn command(argv: Option<&str>, shell: Option<String>) -> sqlx::Result<Command> {
    match (argv, shell) {
        (Some(argv), None) => from_json(argv).map(Command::Argv),
        (None, Some(line)) => Ok(Command::Shell(line)),
        _ => Err(malformed("a job has neither or both of argv and shell")),
    }
}

pub(super) fn leftover(name: &str) -> sqlx::Result<Leftover> {
    match name {
        "kill" => Ok(Leftover::Kill),
        "keep" => Ok(Leftover::Keep),
        other => Err(malformed(format!("leftover cannot be {other}"))),
    }
}

pub(super) fn output_policy(bytes_max: Option<i64>) -> OutputPolicy {
    OutputPolicy {
        max_bytes: bytes_max.map(|bytes| bytes as u64),
        when_full: WhenFull::Fail,
    }
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
