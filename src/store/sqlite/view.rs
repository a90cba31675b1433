//! Reads the row of a job as the job that users see.

use std::collections::HashMap;

use serde::Deserialize;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{
    columns::{from_json, from_json_exactly, from_json_opt, json, malformed},
    events,
};
use crate::{
    job::{
        Exit, Expectation, Job, JobId, JobNumber, JobRef, JobSpec, JobState, Micros, NotifyEntry,
        OnLost, PolicyRecord, ScheduledRun, StopRequest, Survivor, Usage, view::StopView,
    },
    store::types::Include,
};

/// A spec as its row has it: the keys that SQL needs in columns, the others as JSON.
pub(super) struct SpecRow {
    pub(super) spec: String,
    pub(super) queue: String,
    pub(super) priority: i64,
    pub(super) name: Option<String>,
    pub(super) labels: String,
    pub(super) interactive: bool,
    pub(super) on_lost: String,
    pub(super) idempotency_key: Option<String>,
    pub(super) exclusive: Option<String>,
    pub(super) notify: Option<String>,
}

impl SpecRow {
    /// The spec, without its environment and its stdin, but with the secrets of its notices.
    pub(super) fn into_spec(self) -> sqlx::Result<JobSpec> {
        Ok(JobSpec {
            queue: self.queue,
            priority: self.priority,
            name: self.name,
            labels: from_json(&self.labels)?,
            interactive: self.interactive,
            on_lost: on_lost(&self.on_lost)?,
            idempotency_key: self.idempotency_key,
            exclusive: self.exclusive,
            notify: notify(self.notify.as_deref())?,
            ..from_json_exactly(&self.spec)?
        })
    }
}

/// A job's row with its environment and its current attempt's request to stop.
pub(super) struct JobRow {
    pub(super) number: i64,
    pub(super) id: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) queue: String,
    pub(super) priority: i64,
    pub(super) name: Option<String>,
    pub(super) labels: String,
    pub(super) interactive: bool,
    pub(super) on_lost: String,
    pub(super) idempotency_key: Option<String>,
    pub(super) exclusive: Option<String>,
    pub(super) spec: String,
    pub(super) ready_at: Option<i64>,
    pub(super) failed_dependency: Option<String>,
    pub(super) unmet_expectations: Option<String>,
    pub(super) notify: Option<String>,
    pub(super) env_names: String,
    pub(super) env: Option<String>,
    pub(super) stdin_bytes: Option<i64>,
    pub(super) stdin: Option<String>,
    pub(super) retry_of: Option<String>,
    pub(super) schedule: Option<String>,
    pub(super) schedule_at: Option<i64>,
    pub(super) policy: Option<String>,
    pub(in crate::store) attempts: u32,
    pub(super) submitted_at: i64,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) output_bytes: i64,
    pub(super) dropped_bytes: i64,
    pub(super) dropped_lines: i64,
    pub(super) output_sha256: Option<String>,
    pub(super) spawn_error: Option<String>,
    pub(super) stop: Option<String>,
    pub(super) stop_wish: Option<String>,
    pub(super) leaked: u32,
    pub(super) survivors: String,
    pub(super) survivors_unknown: Option<String>,
    pub(super) user_us: i64,
    pub(super) system_us: i64,
    pub(super) max_rss_bytes: i64,
}

/// `SELECT` of [`JobRow`]s. `?1`: with the environment's values, `?2`: with stdin. `$tail` is the
/// rest of the statement, with `$arg` from `?3` on.
macro_rules! select_jobs {
    ($tail:literal, $include:expr $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            JobRow,
            r#"SELECT j.number AS "number!: i64", j.id AS "id!: String",
                j.state AS "state!: String", j.reason AS "reason: String",
                j.queue AS "queue!: String", j.priority AS "priority!: i64",
                j.name AS "name: String", j.labels AS "labels!: String",
                j.interactive AS "interactive!: bool", j.on_lost AS "on_lost!: String",
                j.idempotency_key AS "idempotency_key: String", j.exclusive AS "exclusive: String",
                j.spec AS "spec!: String", j.ready_at AS "ready_at: i64",
                j.failed_dependency AS "failed_dependency: String",
                j.unmet_expectations AS "unmet_expectations: String",
                j.notify AS "notify: String", e.names AS "env_names!: String",
                CASE WHEN ?1 THEN e.env END AS "env: String",
                octet_length(j.stdin) AS "stdin_bytes: i64",
                CASE WHEN ?2 THEN j.stdin END AS "stdin: String",
                j.retry_of AS "retry_of: String", j.schedule AS "schedule: String",
                j.schedule_at AS "schedule_at: i64", j.policy AS "policy: String",
                j.attempts AS "attempts!: u32", j.submitted_at AS "submitted_at!: i64",
                j.started_at AS "started_at: i64", j.finished_at AS "finished_at: i64",
                j.exit_code AS "exit_code: i32", j.signal AS "signal: i32",
                j.output_bytes AS "output_bytes!: i64",
                j.dropped_bytes AS "dropped_bytes!: i64", j.dropped_lines AS "dropped_lines!: i64",
                j.output_sha256 AS "output_sha256: String",
                j.spawn_error AS "spawn_error: String", j.stop AS "stop: String",
                a.stop AS "stop_wish: String", j.leaked AS "leaked!: u32",
                j.survivors AS "survivors!: String",
                j.survivors_unknown AS "survivors_unknown: String", j.user_us AS "user_us!: i64",
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

pub(super) use select_jobs;

/// One job.
pub(in crate::store) async fn job<'e>(
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

/// What a job expects of its output.
pub(in crate::store) async fn expectations(
    readers: &SqlitePool,
    job: JobNumber,
) -> sqlx::Result<Vec<Expectation>> {
    let stored = sqlx::query_scalar!(
        r#"SELECT spec -> '$.expect' AS "expect: String" FROM jobs WHERE number = ?1"#,
        job
    )
    .fetch_optional(readers)
    .await?;
    Ok(from_json_opt(stored.flatten().as_deref())?.unwrap_or_default())
}

/// A job that must exist; an error where it does not.
pub(super) async fn known(conn: &mut SqliteConnection, number: JobNumber) -> sqlx::Result<Job> {
    job(conn, JobRef::Number(number), Include::default())
        .await?
        .ok_or(sqlx::Error::RowNotFound)
}

/// Those of these jobs that exist, with the secrets of their notices.
pub(super) async fn with_notify(
    conn: &mut SqliteConnection,
    numbers: &[JobNumber],
) -> sqlx::Result<HashMap<JobNumber, Job>> {
    let include = Include {
        notify_secrets: true,
        ..Include::default()
    };
    let numbers = json(&numbers)?;
    let rows = select_jobs!(
        "WHERE j.number IN (SELECT value FROM json_each(?3))",
        include,
        numbers,
    )
    .fetch_all(conn)
    .await?;
    let jobs = rows.into_iter().map(|row| row.into_job(include));
    jobs.map(|job| job.map(|job| (job.number, job))).collect()
}

impl JobRow {
    pub(super) fn into_job(self, include: Include) -> sqlx::Result<Job> {
        let state = events::state(&self.state)?;
        let (stop, exit) = (self.stop(state.is_active())?, self.exit()?);
        let spec = SpecRow {
            spec: self.spec,
            queue: self.queue,
            priority: self.priority,
            name: self.name,
            labels: self.labels,
            interactive: self.interactive,
            on_lost: self.on_lost,
            idempotency_key: self.idempotency_key,
            exclusive: self.exclusive,
            notify: self.notify,
        };
        let mut spec = spec.into_spec()?;
        if !include.notify_secrets {
            spec = spec.without_secrets();
        }
        let waits_until = self.ready_at.filter(|_| state == JobState::Scheduled);
        Ok(Job {
            id: job_id(&self.id)?,
            number: self.number,
            state,
            reason: self.reason.as_deref().map(events::reason).transpose()?,
            exit,
            spec,
            env_names: from_json(&self.env_names)?,
            stdin_bytes: self.stdin_bytes.map(|bytes| bytes as u64),
            env: from_json_opt(self.env.as_deref())?,
            stdin: include.stdin.then_some(self.stdin),
            retry_of: self.retry_of.as_deref().map(job_id).transpose()?,
            schedule: scheduled_run(self.schedule, self.schedule_at),
            policy: from_json_opt(self.policy.as_deref())?,
            attempts: self.attempts,
            submitted_at: Micros(self.submitted_at),
            started_at: self.started_at.map(Micros),
            finished_at: self.finished_at.map(Micros),
            waits_until: waits_until.map(Micros),
            failed_dependency: from_json_opt(self.failed_dependency.as_deref())?,
            unmet_expectations: from_json_opt(self.unmet_expectations.as_deref())?
                .unwrap_or_default(),
            output_bytes: self.output_bytes as u64,
            dropped_bytes: self.dropped_bytes as u64,
            dropped_lines: self.dropped_lines as u64,
            output_sha256: self.output_sha256,
            stop,
            leaked: self.leaked,
            survivors: from_json(&self.survivors)?,
            survivors_unknown: self.survivors_unknown,
            usage: Usage {
                user_s: seconds(self.user_us),
                system_s: seconds(self.system_us),
                max_rss_bytes: self.max_rss_bytes as u64,
            },
        })
    }

    fn exit(&self) -> sqlx::Result<Option<Exit>> {
        Ok(match (self.exit_code, self.signal) {
            (Some(code), _) => Some(Exit::Code(code)),
            (None, Some(signal)) => Some(Exit::Signal(signal)),
            (None, None) => from_json_opt(self.spawn_error.as_deref())?.map(Exit::SpawnFailed),
        })
    }

    /// While an attempt is active the request is shown; afterwards only what has really happened.
    fn stop(&self, active: bool) -> sqlx::Result<Option<StopView>> {
        if active {
            let stored: Option<StoredStopRequest> = from_json_opt(self.stop_wish.as_deref())?;
            return Ok(stored.map(StoredStopRequest::into_stop));
        }
        Ok(from_json_opt(self.stop.as_deref())?.map(StopView::Done))
    }
}

/// A request to stop as the attempt's row has it.
#[derive(Deserialize)]
struct StoredStopRequest {
    #[serde(flatten)]
    request: StopRequest,
    /// Processes that the kernel did not let it reach, as far as the shim has reported.
    #[serde(default)]
    refused: Vec<Survivor>,
}

impl StoredStopRequest {
    fn into_stop(self) -> StopView {
        match self.refused.is_empty() {
            true => StopView::Requested(self.request),
            false => StopView::Refused(self.request, self.refused),
        }
    }
}

fn scheduled_run(name: Option<String>, at: Option<i64>) -> Option<ScheduledRun> {
    Some(ScheduledRun {
        name: name?,
        at: Micros(at?),
    })
}

pub(super) fn job_id(text: &str) -> sqlx::Result<JobId> {
    uuid::Uuid::try_parse(text).map(JobId).map_err(malformed)
}

pub(super) fn on_lost(name: &str) -> sqlx::Result<OnLost> {
    OnLost::from_name(name).ok_or_else(|| malformed(format!("on_lost cannot be {name}")))
}

/// The entries of a job's `notify`, with their secrets.
pub(super) fn notify(column: Option<&str>) -> sqlx::Result<Vec<NotifyEntry>> {
    from_json_opt(column).map(Option::unwrap_or_default)
}

/// The decision of the policy, as the column has it.
pub(super) fn policy_text(policy: Option<&PolicyRecord>) -> sqlx::Result<Option<String>> {
    let stored = policy.map(PolicyRecord::stored).transpose();
    stored.map_err(malformed)
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
