//! Every state change as a row: the audit trail and the event feed.
//!
//! `job::state` says which changes are allowed.

use serde::Serialize;
use sqlx::{SqliteConnection, SqlitePool};

use super::columns::{int, json, malformed};
use crate::{
    job::{JobNumber, JobState, Micros, Reason},
    store::types::{LifeSigns, StateChange, StateMove},
};

/// A state change that is about to be written.
#[derive(Debug, Serialize)]
pub(super) struct NewEvent {
    pub job: JobNumber,
    pub attempt: Option<u32>,
    pub from: Option<JobState>,
    pub to: JobState,
    pub reason: Option<Reason>,
    pub actor: String,
    pub at: i64,
    /// Whether somebody is notified of it.
    #[serde(skip)]
    pub notify: bool,
}

impl NewEvent {
    /// What listeners are told of it.
    pub fn state_move(&self) -> StateMove {
        StateMove {
            job: self.job,
            attempt: self.attempt,
            from: self.from,
            to: self.to,
        }
    }
}

/// Writes state changes, in order, and returns the id of the first; there must be one. Their ids
/// follow each other without a gap.
pub(super) async fn insert(conn: &mut SqliteConnection, events: &[NewEvent]) -> sqlx::Result<i64> {
    let rows = json(&events)?;
    let done = sqlx::query!(
        "INSERT INTO events (job, attempt, from_state, to_state, reason, actor, at)
         SELECT value ->> 'job', value ->> 'attempt', value ->> 'from', value ->> 'to',
                value ->> 'reason', value ->> 'actor', value ->> 'at'
         FROM json_each(?1)",
        rows
    )
    .execute(conn)
    .await?;
    Ok(done.last_insert_rowid() + 1 - int(events.len() as u64))
}

/// State changes of a job after the event `after`, in order.
pub(in crate::store) async fn changes(
    readers: &SqlitePool,
    number: JobNumber,
    after: i64,
) -> sqlx::Result<Vec<StateChange>> {
    sqlx::query!(
        r#"SELECT id AS "id!: i64", to_state AS "state!: String", reason AS "reason: String",
                  at AS "at!: i64"
           FROM events WHERE job = ?1 AND id > ?2 ORDER BY id"#,
        number,
        after
    )
    .fetch_all(readers)
    .await?
    .into_iter()
    .map(|row| {
        Ok(StateChange {
            event: row.id,
            state: state(&row.state)?,
            reason: row.reason.as_deref().map(reason).transpose()?,
            at: Micros(row.at),
        })
    })
    .collect()
}

/// The id of a job's newest event; 0 where there is none.
pub(in crate::store) async fn newest(readers: &SqlitePool, number: JobNumber) -> sqlx::Result<i64> {
    let newest = sqlx::query_scalar!(
        r#"SELECT max(id) AS "id: i64" FROM events WHERE job = ?1"#,
        number
    )
    .fetch_one(readers)
    .await?;
    Ok(newest.unwrap_or(0))
}

/// The signs of life of a job's current attempt; `None` where it has none.
pub(in crate::store) async fn life_signs(
    readers: &SqlitePool,
    number: JobNumber,
) -> sqlx::Result<Option<LifeSigns>> {
    let row = sqlx::query!(
        r#"SELECT a.attempt AS "attempt!: u32", a.start_ticks AS "start_ticks?: i64",
                  e.id AS "event?: i64", e.at AS "at?: i64"
           FROM jobs AS j
           JOIN attempts AS a ON a.job = j.number AND a.attempt = j.attempt
           LEFT JOIN events AS e ON e.id =
               (SELECT max(r.id) FROM events AS r
                WHERE r.job = j.number AND r.attempt = j.attempt AND r.from_state = 'paused')
           WHERE j.number = ?1"#,
        number
    )
    .fetch_optional(readers)
    .await?;
    Ok(row.map(|row| LifeSigns {
        attempt: row.attempt,
        start_ticks: row.start_ticks.map(|ticks| ticks as u64),
        resumed: row.event.zip(row.at.map(Micros)),
    }))
}

/// The state with this name; the tables' CHECKs allow no other names.
pub(super) fn state(name: &str) -> sqlx::Result<JobState> {
    JobState::from_name(name).ok_or_else(|| malformed(format!("no state is called {name}")))
}

/// The reason with this name; the tables' CHECKs allow no other names.
pub(super) fn reason(name: &str) -> sqlx::Result<Reason> {
    Reason::from_name(name).ok_or_else(|| malformed(format!("no reason is called {name}")))
}
