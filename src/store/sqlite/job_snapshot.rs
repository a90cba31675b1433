//! The state of jobs, read inside the transaction that is about to change it.
//!
//! Here the pure table of transitions meets the rows: a write asks `job::state::next` about the
//! state that it found, and its UPDATE then names that state again.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;
use serde_json::Value;
use sqlx::{Sqlite, SqliteConnection};

use super::{
    columns::{from_json_opt, json, malformed},
    events,
    keys::DigestKey,
    notice_counts::NoticesChanged,
    releases::Releases,
    tally::{CountedAs, Tally},
    view,
};
use crate::audit::AuditEntry;
use crate::job::{
    JobId, JobNumber, JobRef, JobState, Micros, NotifyEntry, OnLost, Reason, RetryPolicy, StateSet,
    StopRequest,
    state::{Event, next},
};
use crate::store::types::StateMove;

/// A transaction of the writer: its connection, and the state changes that it has made so far,
/// which become rows at its end, all in one statement.
pub(super) struct WriteBatch<'c> {
    pub conn: &'c mut SqliteConnection,
    pub events: Vec<events::NewEvent>,
    /// What it has changed in the outbox of notices.
    pub notices: NoticesChanged,
    /// Follows every change.
    pub tally: &'c mut Tally,
    /// The secret key of digests.
    pub key: &'c DigestKey,
    /// The state changes that have become rows.
    pub moves: Vec<StateMove>,
    /// What becomes rows of the audit trail at its end, the ends of jobs aside.
    pub entries: Vec<AuditEntry>,
    /// What the rows of jobs say that it has ended with their attempts; those of others are read.
    pub ends: HashMap<JobNumber, Value>,
    /// Exclusive keys whose jobs have moved.
    pub touched_keys: BTreeSet<String>,
    /// Final jobs that others wait for.
    pub releases: &'c mut Releases,
}

/// What a write must know about a job before it moves it.
#[derive(Debug, Clone)]
pub(super) struct JobSnapshot {
    pub number: JobNumber,
    pub state: JobState,
    pub queue: String,
    /// Its exclusive key.
    pub exclusive: Option<String>,
    /// Whether it may not be claimed for the sake of that key.
    pub waits_for_key: bool,
    /// When it may start at the earliest.
    pub ready_at: Option<Micros>,
    /// The current or last attempt; 0 before the first.
    pub attempt: u32,
    /// The id of that attempt's shim; `None` before the first attempt.
    pub shim: Option<String>,
    pub stop: Option<StopRequest>,
    pub pause: bool,
    /// Whether its stdin takes inputs.
    pub interactive: bool,
    /// Its policy for a lost attempt, and how many of its attempts have been lost.
    pub on_lost: OnLost,
    pub lost: u32,
    /// Its policy for a failed attempt, where it asks for more than one.
    pub retry: Option<RetryPolicy>,
    /// How many attempts have begun, the void ones aside.
    pub attempts: u32,
    /// Whether an attempt has started or may have; void ones do not count.
    pub begun: bool,
    /// The states of which somebody is notified.
    pub notify: StateSet,
    /// Whether rows of segments exist.
    pub has_segments: bool,
}

/// One allowed step of a job, as its UPDATE names it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Transition {
    pub number: JobNumber,
    pub attempt: u32,
    pub from: JobState,
    pub to: JobState,
    /// Whether somebody is notified of it.
    #[serde(skip)]
    pub notify: bool,
}

impl JobSnapshot {
    /// The step that `event` makes this job take, if the table of transitions has one.
    pub fn step(&self, event: Event) -> Option<Transition> {
        let to = next(Some(self.state), event)?;
        Some(Transition {
            number: self.number,
            attempt: self.attempt,
            from: self.state,
            to,
            notify: self.notify.contains(to),
        })
    }

    /// The same, for a write about `attempt`: one that is not the current one is stale. (One that
    /// has ended is too, because the table has no such step.)
    pub fn step_of(&self, attempt: u32, event: Event) -> Option<Transition> {
        self.step(event).filter(|_| self.attempt == attempt)
    }

    /// How it counts.
    pub fn counted(&self) -> CountedAs {
        self.counted_in(self.state)
    }

    /// How it would count in another state: where it has a key, it is queued behind the others until
    /// it is its turn.
    fn counted_in(&self, state: JobState) -> CountedAs {
        let waits_for_key = match state == self.state {
            true => self.waits_for_key,
            false => self.exclusive.is_some(),
        };
        CountedAs {
            state,
            waits_for_key,
        }
    }
}

impl WriteBatch<'_> {
    /// Snapshots of these jobs. Numbers that no job has are missing.
    pub async fn snapshots(
        &mut self,
        numbers: &[JobNumber],
    ) -> sqlx::Result<HashMap<JobNumber, JobSnapshot>> {
        let numbers = json(&numbers)?;
        sqlx::query!(
            r#"SELECT j.number AS "number!: i64", j.state AS "state!: String",
                      j.queue AS "queue!: String", j.attempt AS "attempt!: u32", a.shim AS "shim: String",
                      j.exclusive AS "exclusive: String", j.waits_for_key AS "waits_for_key!: bool",
                      j.ready_at AS "ready_at: i64",
                      nullif(j.spec -> '$.retry', 'null') AS "retry: String",
                      j.attempts AS "attempts!: u32",
                      a.stop AS "stop: String", coalesce(a.pause, 0) AS "pause!: bool",
                      j.interactive AS "interactive!: bool", j.on_lost AS "on_lost!: String",
                      (SELECT count(*) FROM attempts AS l
                       WHERE l.job = j.number AND l.state = 'lost') AS "lost!: u32",
                      j.attempts > 0 AS "begun!: bool", j.notify AS "notify: String",
                      EXISTS (SELECT 1 FROM segments s WHERE s.job = j.number)
                          AS "has_segments!: bool"
               FROM jobs j LEFT JOIN attempts a ON a.job = j.number AND a.attempt = j.attempt
               WHERE j.number IN (SELECT value FROM json_each(?1))"#,
            numbers
        )
        .fetch_all(&mut *self.conn)
        .await?
        .into_iter()
        .map(|row| {
            let snapshot = JobSnapshot {
                number: row.number,
                state: events::state(&row.state)?,
                queue: row.queue,
                exclusive: row.exclusive,
                waits_for_key: row.waits_for_key,
                ready_at: row.ready_at.map(Micros),
                retry: from_json_opt(row.retry.as_deref())?,
                attempts: row.attempts,
                attempt: row.attempt,
                shim: row.shim,
                stop: from_json_opt(row.stop.as_deref())?,
                pause: row.pause,
                interactive: row.interactive,
                on_lost: view::on_lost(&row.on_lost)?,
                lost: row.lost,
                begun: row.begun,
                notify: NotifyEntry::states(&view::notify(row.notify.as_deref())?),
                has_segments: row.has_segments,
            };
            Ok((row.number, snapshot))
        })
        .collect()
    }

    /// The snapshot of one job.
    pub async fn snapshot(&mut self, job: JobRef) -> sqlx::Result<Option<JobSnapshot>> {
        let Some(number) = self.resolve(job).await? else {
            return Ok(None);
        };
        Ok(self.snapshots(&[number]).await?.remove(&number))
    }

    async fn resolve(&mut self, job: JobRef) -> sqlx::Result<Option<JobNumber>> {
        match job {
            JobRef::Number(number) => Ok(Some(number)),
            JobRef::Id(id) => number_of(&mut *self.conn, id).await,
        }
    }

    /// Counts a step that a job has taken, adds its event, and remembers whom it concerns: jobs that
    /// wait for it, and those with its exclusive key.
    pub fn record(
        &mut self,
        job: &JobSnapshot,
        step: Transition,
        reason: Option<Reason>,
        actor: &str,
        at: Micros,
    ) {
        let (from, to) = (job.counted_in(step.from), job.counted_in(step.to));
        self.tally.moved(&job.queue, Some(from), Some(to));
        self.touched_keys.extend(job.exclusive.clone());
        if step.to.is_final() && self.tally.blocked() > 0 {
            self.releases.add(step.number);
        }
        self.add_event(step, reason, actor, at);
    }

    /// Adds the event of a step that is counted already.
    pub fn add_event(&mut self, step: Transition, reason: Option<Reason>, actor: &str, at: Micros) {
        self.events.push(events::NewEvent {
            job: step.number,
            attempt: (step.attempt > 0).then_some(step.attempt),
            from: Some(step.from),
            to: step.to,
            reason,
            actor: actor.to_owned(),
            at: at.0,
            notify: step.notify,
        });
    }
}

/// An UPDATE that names the state it leaves must find every row: the rows were read in the same
/// transaction.
pub(super) fn all_moved(affected: u64, expected: usize) -> sqlx::Result<()> {
    if affected == expected as u64 {
        return Ok(());
    }
    Err(malformed(format!(
        "{expected} rows should have moved, {affected} did"
    )))
}

/// The number of the job with this id.
pub(in crate::store) async fn number_of<'e>(
    conn: impl sqlx::Executor<'e, Database = Sqlite>,
    id: JobId,
) -> sqlx::Result<Option<JobNumber>> {
    let id = id.to_string();
    sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs WHERE id = ?1"#,
        id
    )
    .fetch_optional(conn)
    .await
}

/// The id of the job with this number.
pub(in crate::store) async fn id_of<'e>(
    conn: impl sqlx::Executor<'e, Database = Sqlite>,
    number: JobNumber,
) -> sqlx::Result<Option<JobId>> {
    let id = sqlx::query_scalar!(
        r#"SELECT id AS "id!: String" FROM jobs WHERE number = ?1"#,
        number
    )
    .fetch_optional(conn)
    .await?;
    id.as_deref().map(view::job_id).transpose()
}
