//! The rows of the audit trail: the writer appends them at the end of each transaction, so that a change and its entry
//! are committed together.
//!
//! What an entry says is in `audit_entries`; the chain of their hashes is `audit::chain`.

use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{
    columns::{self, from_json_opt, int, malformed},
    events,
    job_snapshot::WriteBatch,
};
use crate::{
    access::ClientOrigin,
    audit::{
        AuditEntry, ChainHead,
        chain::{HASH_BYTES, hex},
        trail::{KEY_ACTION, PRUNE_ACTION},
    },
    job::{JobNumber, JobState, Micros, signal},
    store::{
        audit_types::{AuditKeyRow, AuditPage, AuditRow, AuditWrite, EndedRow, PrunedTrail},
        write::WriteResult,
    },
    sys::clock,
};

/// The most entries that one transaction prunes.
const PRUNE_MAX: i64 = 10_000;

/// Where the trail ends.
pub(in crate::store) async fn head(conn: &mut SqliteConnection) -> sqlx::Result<ChainHead> {
    let row = sqlx::query!(
        r#"SELECT seq AS "seq!: i64", hash AS "hash!: Vec<u8>" FROM audit
           WHERE seq = (SELECT max(seq) FROM audit)
           UNION ALL SELECT seq, hash FROM audit_base
           WHERE NOT EXISTS (SELECT 1 FROM audit)"#
    );
    let row = row.fetch_one(conn).await?;
    chain_head(row.seq, &row.hash)
}

fn chain_head(seq: i64, hash: &[u8]) -> sqlx::Result<ChainHead> {
    let hash = hash.try_into();
    Ok(ChainHead {
        seq: seq as u64,
        hash: hash.map_err(|_| malformed("the hash of an entry has 32 bytes"))?,
    })
}

/// Writes the entries of a transaction, with those of the jobs that it has ended, which it adds to the batch's; returns
/// where the trail ends then.
pub(super) async fn append(
    batch: &mut WriteBatch<'_>,
    mut head: ChainHead,
) -> sqlx::Result<ChainHead> {
    let mut entries = std::mem::take(&mut batch.entries);
    entries.extend(ends(batch).await?);
    if entries.is_empty() {
        return Ok(head);
    }
    let (at, first) = (clock::now(), int(head.seq + 1));
    // The texts and the hashes go as one value each, and are cut by SQL: as JSON they would be escaped and parsed.
    let (mut texts, mut hashes) = (
        String::new(),
        Vec::with_capacity(entries.len() * HASH_BYTES),
    );
    let mut places = Vec::with_capacity(entries.len());
    for entry in &entries {
        let text = entry.text(head.seq + 1, at);
        head = head.after(&text);
        hashes.extend(head.hash);
        places.push((texts.len() + 1, text.len()));
        texts.push_str(&text);
        if entry.action == KEY_ACTION {
            keep_key(batch.conn, head.seq, entry).await?;
        }
    }
    let (texts, places) = (texts.into_bytes(), columns::json(&places)?);
    sqlx::query!(
        "INSERT INTO audit (seq, at, entry, hash)
         SELECT ?1 + key, ?2, CAST(substr(?3, value ->> 0, value ->> 1) AS TEXT),
                substr(?4, 1 + 32 * key, 32)
         FROM json_each(?5)",
        first,
        at.0,
        texts,
        hashes,
        places
    )
    .execute(&mut *batch.conn)
    .await?;
    batch.entries = entries;
    Ok(head)
}

async fn keep_key(conn: &mut SqliteConnection, seq: u64, entry: &AuditEntry) -> sqlx::Result<()> {
    let (seq, key) = (int(seq), entry.result["key"].as_str());
    let signature = entry.result["signature"].as_str();
    sqlx::query!(
        "INSERT INTO audit_keys (seq, key, signature) VALUES (?1, ?2, ?3)",
        seq,
        key,
        signature
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The entries of the jobs that the transaction has ended. What it does not know of one is read.
async fn ends(batch: &mut WriteBatch<'_>) -> sqlx::Result<Vec<AuditEntry>> {
    let ended = batch.moves.iter().filter(|one| one.to.is_final());
    let ended: Vec<JobNumber> = ended.map(|one| one.job).collect();
    let mut known = std::mem::take(&mut batch.ends);
    let unknown = ended.iter().filter(|job| !known.contains_key(job));
    let unknown: Vec<JobNumber> = unknown.copied().collect();
    if !unknown.is_empty() {
        let rows = self::ended(batch.conn, &unknown).await?;
        known.extend(rows.into_iter().map(|row| (row.number, row.end)));
    }
    let origin = Arc::new(ClientOrigin::server());
    let entries = ended.into_iter().filter_map(|job| {
        let (target, end) = (json!({"job": job}), known.remove(&job)?);
        Some(AuditEntry::allowed("job.end", origin.clone(), target, end))
    });
    Ok(entries.collect())
}

/// The columns of a final job that the trail repeats.
pub(super) struct EndColumns<'a> {
    pub state: JobState,
    pub reason: Option<&'a str>,
    pub attempt: u32,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// JSON.
    pub spawn_error: Option<&'a str>,
    pub output_bytes: i64,
    pub output_sha256: Option<&'a str>,
}

impl EndColumns<'_> {
    /// What the trail says of them.
    pub fn audited(&self) -> sqlx::Result<Value> {
        let mut end = json!({
            "state": self.state.name(),
            "attempt": self.attempt,
            "output_bytes": self.output_bytes,
            "output_sha256": self.output_sha256,
        });
        for (key, value) in [
            ("reason", self.reason.map(Value::from)),
            ("exit_code", self.exit_code.map(Value::from)),
            (
                "signal",
                self.signal.map(|signal| signal::name(signal).into()),
            ),
            ("spawn_error", from_json_opt(self.spawn_error)?),
        ] {
            if let Some(value) = value {
                end[key] = value;
            }
        }
        Ok(end)
    }
}

/// What the rows of those of these jobs say that are final, in their order.
pub(in crate::store) async fn ended(
    conn: &mut SqliteConnection,
    jobs: &[JobNumber],
) -> sqlx::Result<Vec<EndedRow>> {
    let jobs = columns::json(&jobs)?;
    let rows = sqlx::query!(
        r#"SELECT j.number AS "number!: i64", j.state AS "state!: String", j.reason AS "reason: String",
               j.attempt AS "attempt!: u32", j.exit_code AS "exit_code: i32", j.signal AS "signal: i32",
               j.spawn_error AS "spawn_error: String", j.output_bytes AS "output_bytes!: i64", j.output_sha256 AS "output_sha256: String"
           FROM json_each(?1) AS w CROSS JOIN jobs AS j ON j.number = w.value
           WHERE +j.state IN ('succeeded', 'failed', 'cancelled') ORDER BY w.key"#,
        jobs
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    rows.map(|row| {
        let columns = EndColumns {
            state: events::state(&row.state)?,
            reason: row.reason.as_deref(),
            attempt: row.attempt,
            exit_code: row.exit_code,
            signal: row.signal,
            spawn_error: row.spawn_error.as_deref(),
            output_bytes: row.output_bytes,
            output_sha256: row.output_sha256.as_deref(),
        };
        Ok(EndedRow {
            number: row.number,
            end: columns.audited()?,
            output_bytes: row.output_bytes as u64,
        })
    })
    .collect()
}

/// Executes a write of the trail alone.
pub(super) async fn execute(
    batch: &mut WriteBatch<'_>,
    write: &AuditWrite,
) -> sqlx::Result<WriteResult> {
    match write {
        // Its entries are written at the end, as those of every transaction.
        AuditWrite::Add(_) => Ok(WriteResult::Done),
        AuditWrite::Prune(before) => Ok(WriteResult::AuditPruned(prune(batch, *before).await?)),
    }
}

/// Removes the oldest entries that were made before `before`, and adds the entry that says so.
async fn prune(batch: &mut WriteBatch<'_>, before: Micros) -> sqlx::Result<Option<PrunedTrail>> {
    let conn = &mut *batch.conn;
    let oldest = sqlx::query!(
        r#"SELECT min(seq) AS "first: i64", max(seq) AS "last: i64",
               min(CASE WHEN at >= ?1 THEN seq END) AS "kept: i64"
           FROM (SELECT seq, at FROM audit ORDER BY seq LIMIT ?2)"#,
        before.0,
        PRUNE_MAX
    );
    let oldest = oldest.fetch_one(&mut *conn).await?;
    let (Some(first), Some(last)) = (oldest.first, oldest.last) else {
        return Ok(None);
    };
    let through = oldest.kept.map_or(last, |kept| kept - 1);
    if through < first {
        return Ok(None);
    }
    let hash = sqlx::query_scalar!(
        r#"UPDATE audit_base SET seq = ?1, hash = (SELECT hash FROM audit WHERE seq = ?1)
           RETURNING hash AS "hash!: Vec<u8>""#,
        through
    );
    let hash = hash.fetch_one(&mut *conn).await?;
    sqlx::query!("DELETE FROM audit WHERE seq <= ?1", through)
        .execute(&mut *conn)
        .await?;
    let key = key_at(conn, through as u64).await?;
    let result = json!({"through": through, "hash": hex(&hash), "key": key});
    let origin = Arc::new(ClientOrigin::server());
    batch
        .entries
        .push(AuditEntry::allowed(PRUNE_ACTION, origin, json!({}), result));
    Ok(Some(PrunedTrail {
        through: through as u64,
        entries: (through + 1 - first) as u64,
    }))
}

/// The verifier's key that is in force after the entry `seq`.
pub(in crate::store) async fn key_at(
    conn: &mut SqliteConnection,
    seq: u64,
) -> sqlx::Result<Option<String>> {
    let seq = int(seq);
    sqlx::query_scalar!(
        r#"SELECT key AS "key!: String" FROM audit_keys WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1"#,
        seq
    )
    .fetch_optional(conn)
    .await
}

/// A row of `audit_keys`.
struct StoredKey {
    seq: i64,
    key: String,
    signature: Option<String>,
}

impl From<StoredKey> for AuditKeyRow {
    fn from(
        StoredKey {
            seq,
            key,
            signature,
        }: StoredKey,
    ) -> Self {
        Self {
            seq: seq as u64,
            key,
            signature,
        }
    }
}

/// The key in force and the one before it, newest first.
pub(in crate::store) async fn last_keys(
    conn: &mut SqliteConnection,
) -> sqlx::Result<Vec<AuditKeyRow>> {
    let rows = sqlx::query_as!(
        StoredKey,
        r#"SELECT seq AS "seq!: i64", key AS "key!: String", signature AS "signature: String"
           FROM audit_keys ORDER BY seq DESC LIMIT 2"#
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows.map(AuditKeyRow::from).collect())
}

/// Up to `limit` keys that were put in force after one entry and up to another one, oldest first.
pub(in crate::store) async fn keys(
    conn: &mut SqliteConnection,
    (after, through): (u64, u64),
    limit: u32,
) -> sqlx::Result<Vec<AuditKeyRow>> {
    let (after, through) = (int(after), int(through));
    let rows = sqlx::query_as!(
        StoredKey,
        r#"SELECT seq AS "seq!: i64", key AS "key!: String", signature AS "signature: String"
           FROM audit_keys WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"#,
        after,
        through,
        limit
    );
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows.map(AuditKeyRow::from).collect())
}

/// Up to `limit` numbers of jobs after `after`, in order.
pub(in crate::store) async fn job_numbers(
    conn: &mut SqliteConnection,
    after: JobNumber,
    limit: u32,
) -> sqlx::Result<Vec<JobNumber>> {
    sqlx::query_scalar!(
        r#"SELECT number AS "number!: i64" FROM jobs WHERE number > ?1 ORDER BY number LIMIT ?2"#,
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Up to `limit` entries after the entry `after`.
pub(in crate::store) async fn page(
    conn: &mut SqliteConnection,
    after: u64,
    limit: u32,
) -> sqlx::Result<AuditPage> {
    let wanted = int(after);
    let before = sqlx::query!(
        r#"SELECT seq AS "seq!: i64", hash AS "hash!: Vec<u8>" FROM audit WHERE seq = ?1
           UNION ALL SELECT seq, hash FROM audit_base ORDER BY 1 DESC LIMIT 1"#,
        wanted
    );
    let before = before.fetch_one(&mut *conn).await?;
    let rows = sqlx::query!(
        r#"SELECT seq AS "seq!: i64", entry AS "entry!: String", hash AS "hash!: Vec<u8>"
           FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2"#,
        before.seq,
        limit
    );
    let rows = rows.fetch_all(&mut *conn).await?.into_iter().map(|row| {
        let head = chain_head(row.seq, &row.hash)?;
        Ok(AuditRow {
            seq: head.seq,
            entry: row.entry,
            hash: head.hash,
        })
    });
    Ok(AuditPage {
        after: chain_head(before.seq, &before.hash)?,
        key: key_at(conn, before.seq as u64).await?,
        rows: rows.collect::<sqlx::Result<_>>()?,
        head: head(conn).await?,
    })
}

/// The number of the last entry before the first one of this time or later. Entries are made in the order of their
/// times, unless the clock was set back.
pub(in crate::store) async fn before(
    conn: &mut SqliteConnection,
    since: Micros,
) -> sqlx::Result<u64> {
    let all = sqlx::query!(
        r#"SELECT coalesce(min(seq), 1) AS "first!: i64", coalesce(max(seq), 0) AS "last!: i64" FROM audit"#
    );
    let all = all.fetch_one(&mut *conn).await?;
    let (mut low, mut high) = (all.first, all.last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let at = sqlx::query_scalar!(
            r#"SELECT at AS "at!: i64" FROM audit WHERE seq >= ?1 ORDER BY seq LIMIT 1"#,
            middle
        );
        match at.fetch_optional(&mut *conn).await? {
            Some(at) if at < since.0 => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok((low - 1) as u64)
}
