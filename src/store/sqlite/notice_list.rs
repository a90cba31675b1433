//! Reads the outbox of notices: what is due, and lists for users.

use sqlx::SqlitePool;

use super::{
    columns::{from_json, from_json_opt, json, malformed},
    events,
};
use crate::{
    job::{Delivery, JobNumber, JobSpec, Micros, Notice, NoticeState, NotifyTarget, WebhookSecret},
    store::types::{NoticeFilter, WaitingNotice},
};

/// Up to `limit` waiting notices that are due in the range from `after` (exclusive) to `until`, the
/// earliest first, without those with one of `numbers` or to one of `destinations`.
pub(in crate::store) async fn waiting(
    readers: &SqlitePool,
    (after, until): (Micros, Micros),
    numbers: &[i64],
    destinations: &[String],
    limit: u32,
) -> sqlx::Result<Vec<WaitingNotice>> {
    let (numbers, destinations) = (json(&numbers)?, json(&destinations)?);
    let rows = sqlx::query_as!(
        WaitingRow,
        r#"SELECT number AS "number!: i64", id AS "id!: String", job AS "job!: i64",
               queue AS "queue: String", requester AS "requester: String",
               entry AS "entry!: u32", destination AS "destination!: String", url AS "url: String",
               argv AS "argv: String", secret AS "secret: String", body AS "body!: String",
               attempts AS "attempts!: u32", since AS "since!: i64", due_at AS "due_at!: i64"
           FROM notices INDEXED BY notices_due
           WHERE state = 'waiting' AND due_at > ?1 AND due_at <= ?2
               AND number NOT IN (SELECT value FROM json_each(?3))
               AND destination NOT IN (SELECT value FROM json_each(?4))
           ORDER BY due_at, number LIMIT ?5"#,
        after.0,
        until.0,
        numbers,
        destinations,
        limit
    )
    .fetch_all(readers)
    .await?;
    rows.into_iter().map(WaitingRow::into_notice).collect()
}

/// When the first notice is due after `after`, those with one of `numbers` aside.
pub(in crate::store) async fn next_due(
    readers: &SqlitePool,
    after: Micros,
    numbers: &[i64],
) -> sqlx::Result<Option<Micros>> {
    let numbers = json(&numbers)?;
    let due_at = sqlx::query_scalar!(
        r#"SELECT due_at AS "due_at!: i64" FROM notices INDEXED BY notices_due
           WHERE state = 'waiting' AND due_at > ?1
               AND number NOT IN (SELECT value FROM json_each(?2))
           ORDER BY due_at LIMIT 1"#,
        after.0,
        numbers
    )
    .fetch_optional(readers)
    .await?;
    Ok(due_at.map(Micros))
}

struct WaitingRow {
    number: i64,
    id: String,
    job: JobNumber,
    queue: Option<String>,
    requester: Option<String>,
    entry: u32,
    destination: String,
    url: Option<String>,
    argv: Option<String>,
    secret: Option<String>,
    body: String,
    attempts: u32,
    since: i64,
    due_at: i64,
}

impl WaitingRow {
    fn into_notice(self) -> sqlx::Result<WaitingNotice> {
        let target = match (self.url, self.argv) {
            (Some(url), None) => NotifyTarget::Url(url),
            (None, Some(argv)) => NotifyTarget::Argv(from_json(&argv)?),
            _ => return Err(malformed("a notice has one receiver")),
        };
        let secret = self.secret.as_deref().map(WebhookSecret::parse);
        Ok(WaitingNotice {
            number: self.number,
            job: self.job,
            queue: self.queue.unwrap_or_else(|| JobSpec::QUEUE.to_owned()),
            requester: from_json_opt(self.requester.as_deref())?,
            entry: self.entry,
            destination: self.destination,
            attempts: self.attempts,
            since: Micros(self.since),
            due_at: Micros(self.due_at),
            delivery: Delivery {
                id: self.id,
                target,
                secret: secret.transpose().map_err(malformed)?,
                body: self.body,
            },
        })
    }
}

/// A page of notices, the newest first.
pub(in crate::store) async fn list(
    readers: &SqlitePool,
    filter: &NoticeFilter,
) -> sqlx::Result<Vec<Notice>> {
    let state = filter.state.map(NoticeState::name);
    let rows = sqlx::query!(
        r#"SELECT number AS "number!: i64", id AS "id!: String", job AS "job!: i64",
               on_state AS "on_state!: String", at AS "at!: i64", entry AS "entry!: u32",
               url AS "url: String", argv AS "argv: String", has_secret AS "has_secret!: bool",
               state AS "state!: String", attempts AS "attempts!: u32", due_at AS "due_at!: i64",
               tried_at AS "tried_at: i64", error AS "error: String"
           FROM notices
           WHERE number < ?1 AND (?2 IS NULL OR job = ?2) AND (?3 IS NULL OR state = ?3)
           ORDER BY number DESC LIMIT ?4"#,
        filter.below.unwrap_or(i64::MAX),
        filter.job,
        state,
        filter.limit
    )
    .fetch_all(readers)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let state = NoticeState::from_name(&row.state);
        let state = state.ok_or_else(|| malformed("the table's CHECK names all states"))?;
        Ok(Notice {
            number: row.number,
            id: row.id,
            job: row.job,
            on: events::state(&row.on_state)?,
            at: Micros(row.at),
            entry: row.entry,
            argv: row.argv.as_deref().map(from_json).transpose()?,
            url: row.url,
            has_secret: row.has_secret,
            state,
            attempts: row.attempts,
            due_at: (state == NoticeState::Waiting).then_some(Micros(row.due_at)),
            tried_at: row.tried_at.map(Micros),
            error: row.error,
        })
    });
    rows.collect()
}
