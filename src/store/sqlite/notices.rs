//! The outbox of notices: rows that are written with the state changes that they tell of, and what
//! becomes of them.
//!
//! `notice_list` reads it; what a notice says is in `job::notice`.

use serde::Serialize;
use sqlx::SqliteConnection;

use super::{
    columns::{json, malformed},
    events::NewEvent,
    job_snapshot::WriteBatch,
    view,
};
use crate::{
    job::{
        Job, JobNumber, JobState, Micros, NotifyEntry, NotifySecret, NotifyTarget, Requester,
        notice::{body, notice_id},
    },
    store::types::{DeliveryOutcome, NoticeRef, NoticeRetried, NoticeTried},
};

/// How many jobs one statement reads: a job's texts may have a megabyte, and a notice has them again.
const JOBS_AT_ONCE: usize = 32;
/// How many delivered ones are kept, and how many that were given up: the newest.
const KEPT_MAX: i64 = 1000;

/// A row of the outbox.
#[derive(Serialize)]
struct NoticeRow<'a> {
    id: String,
    job: JobNumber,
    queue: &'a str,
    /// Left out where there is none: as JSON null it would not be NULL.
    #[serde(skip_serializing_if = "Option::is_none")]
    requester: Option<&'a Requester>,
    on: JobState,
    at: i64,
    entry: u32,
    url: Option<&'a str>,
    argv: Option<String>,
    destination: String,
    secret: Option<&'a str>,
    body: &'a str,
}

/// Writes the notices of these events, whose ids begin with `first`; returns how many there are. Each
/// job must still be as its event has left it.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    first: i64,
    events: &[NewEvent],
) -> sqlx::Result<u64> {
    let events = events.iter().zip(first..);
    let noticed: Vec<_> = events.filter(|(event, _)| event.notify).collect();
    let mut inserted = 0;
    for some in noticed.chunks(JOBS_AT_ONCE) {
        let numbers: Vec<_> = some.iter().map(|(event, _)| event.job).collect();
        let jobs = view::with_notify(conn, &numbers).await?;
        let mut rows = Vec::new();
        for (event, id) in some {
            let job = jobs.get(&event.job);
            let job = job.ok_or_else(|| malformed("a job with an event exists"))?;
            debug_assert_eq!(job.state, event.to, "written right after its change");
            rows.push((job, *id, Micros(event.at)));
        }
        inserted += insert_rows(conn, &rows).await?;
    }
    Ok(inserted)
}

async fn insert_rows(
    conn: &mut SqliteConnection,
    changes: &[(&Job, i64, Micros)],
) -> sqlx::Result<u64> {
    let mut rows = Vec::new();
    for (job, event, at) in changes {
        for (entry, receiver) in (0..).zip(&job.spec.notify) {
            if receiver.on.contains(job.state) {
                let id = notice_id(job.id, *event, entry);
                let body = body(&id, *event, *at, job);
                let body = body.map_err(|error| sqlx::Error::Encode(error.into()))?;
                rows.push(json(&row(job, receiver, id, entry, *at, &body)?)?);
            }
        }
    }
    let rows = format!("[{}]", rows.join(","));
    let done = sqlx::query!(
        "INSERT INTO notices (id, job, queue, requester, on_state, at, entry, url, argv, destination,
             has_secret, secret, body, since, due_at)
         SELECT value ->> 'id', value ->> 'job', value ->> 'queue', value -> 'requester',
                value ->> 'on', value ->> 'at', value ->> 'entry', value ->> 'url', value ->> 'argv', value ->> 'destination',
                value ->> 'secret' IS NOT NULL, value ->> 'secret', value ->> 'body',
                value ->> 'at', value ->> 'at'
         FROM json_each(?1)",
        rows
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

fn row<'a>(
    job: &'a Job,
    receiver: &'a NotifyEntry,
    id: String,
    entry: u32,
    at: Micros,
    body: &'a str,
) -> sqlx::Result<NoticeRow<'a>> {
    let (url, argv) = match &receiver.target {
        NotifyTarget::Url(url) => (Some(url.as_str()), None),
        NotifyTarget::Argv(argv) => (None, Some(json(argv)?)),
    };
    let secret = match &receiver.secret {
        NotifySecret::Known(secret) => Some(secret.text()),
        NotifySecret::None => None,
        NotifySecret::Hidden => return Err(malformed("a notice needs the job's secrets")),
    };
    Ok(NoticeRow {
        id,
        job: job.number,
        queue: &job.spec.queue,
        requester: job.policy.as_ref().map(|record| &record.requester),
        on: job.state,
        at: at.0,
        entry,
        url,
        argv,
        destination: receiver.target.destination(),
        secret,
        body,
    })
}

/// Stores what became of an attempt. One about a notice that is not waiting changes nothing.
pub(super) async fn tried(batch: &mut WriteBatch<'_>, tried: &NoticeTried) -> sqlx::Result<()> {
    let (state, error, due_at) = match &tried.outcome {
        DeliveryOutcome::Delivered => ("delivered", None, None),
        DeliveryOutcome::Retry { error, due_at } => ("waiting", Some(error), Some(due_at.0)),
        DeliveryOutcome::GivenUp { error } => ("given_up", Some(error), None),
    };
    let done = sqlx::query!(
        "UPDATE notices SET state = ?2, attempts = attempts + 1, tried_at = ?3, error = ?4,
             due_at = coalesce(?5, due_at),
             body = CASE ?2 WHEN 'delivered' THEN NULL ELSE body END,
             secret = CASE ?2 WHEN 'delivered' THEN NULL ELSE secret END
         WHERE number = ?1 AND state = 'waiting'",
        tried.number,
        state,
        tried.at.0,
        error,
        due_at
    )
    .execute(&mut *batch.conn)
    .await?;
    let changed = done.rows_affected() as i64;
    match &tried.outcome {
        DeliveryOutcome::Delivered => batch.notices.waiting -= changed,
        DeliveryOutcome::Retry { .. } => {}
        DeliveryOutcome::GivenUp { .. } => {
            batch.notices.waiting -= changed;
            batch.notices.given_up += changed;
        }
    }
    Ok(())
}

/// Makes a notice due at `at`, with all the attempts that a new one has.
pub(super) async fn retry(
    batch: &mut WriteBatch<'_>,
    notice: &NoticeRef,
    at: Micros,
) -> sqlx::Result<NoticeRetried> {
    let (number, id) = match notice {
        NoticeRef::Number(number) => (Some(*number), None),
        NoticeRef::Id(id) => (None, Some(id)),
    };
    let row = sqlx::query!(
        r#"SELECT number AS "number!: i64", state AS "state!: String" FROM notices
           WHERE number = ?1 OR id = ?2"#,
        number,
        id
    )
    .fetch_optional(&mut *batch.conn)
    .await?;
    let Some(row) = row else {
        return Ok(NoticeRetried::NotFound);
    };
    if row.state == "delivered" {
        return Ok(NoticeRetried::Delivered);
    }
    sqlx::query!(
        "UPDATE notices SET state = 'waiting', attempts = 0, since = ?2, due_at = ?2
         WHERE number = ?1 AND state <> 'delivered'",
        row.number,
        at.0
    )
    .execute(&mut *batch.conn)
    .await?;
    if row.state == "given_up" {
        batch.notices.given_up -= 1;
        batch.notices.waiting += 1;
    }
    batch.notices.due = true;
    Ok(NoticeRetried::Done)
}

/// Forgets the oldest delivered ones and the oldest that were given up, beyond [`KEPT_MAX`] of each.
pub(super) async fn forget_old(batch: &mut WriteBatch<'_>) -> sqlx::Result<()> {
    let forgotten = sqlx::query!(
        r#"DELETE FROM notices WHERE
               (state = 'delivered' AND number <=
                   (SELECT number FROM notices WHERE state = 'delivered'
                    ORDER BY number DESC LIMIT 1 OFFSET ?1))
               OR (state = 'given_up' AND number <=
                   (SELECT number FROM notices WHERE state = 'given_up'
                    ORDER BY number DESC LIMIT 1 OFFSET ?1))
           RETURNING state AS "state!: String""#,
        KEPT_MAX
    )
    .fetch_all(&mut *batch.conn)
    .await?;
    let given_up = forgotten.iter().filter(|row| row.state == "given_up");
    batch.notices.given_up -= given_up.count() as i64;
    Ok(())
}
