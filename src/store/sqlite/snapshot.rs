//! A copy of the ledger as it stands at one moment, in a file of its own, with an instance of its
//! own; and what of the spool belongs to it.
//!
//! Where it is put, and how the spool is copied, is not known here.

use std::{io, path::Path};

use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tokio_util::sync::CancellationToken;

use super::{
    columns::int,
    error::{FailureAction, failure_action},
    long_path::LongPath,
    nodes, open,
    presence::Presence,
};
use crate::{job::JobNumber, store::types::SegmentKey};

/// So many instructions of SQLite's machine are between two looks at whether to stop: far less than
/// a millisecond.
const CHECK_STOP_EVERY: i32 = 10_000;
/// Segments that are told at once.
const SEGMENTS_PAGE_MAX: i64 = 10_000;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Nobody wants it any more.
    #[error("stopped")]
    Stopped,
    /// The copy's disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The ledger cannot be read, or the copy cannot be written.
    #[error(transparent)]
    Database(sqlx::Error),
    /// The copy's file cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The copy, open.
#[derive(Debug)]
pub struct Snapshot {
    conn: SqliteConnection,
    /// As long as `conn` is.
    _long_path: LongPath,
    /// Its instance.
    pub instance: String,
}

impl Snapshot {
    /// Copies what is committed into the file `to`, which must not exist. The copy is not synced.
    ///
    /// A read for as long as it takes: nobody waits for it, but the write-ahead log is not begun
    /// anew meanwhile.
    pub(in crate::store) async fn write(
        ledger: &SqlitePool,
        to: &Path,
        stop: &CancellationToken,
    ) -> Result<Self, SnapshotError> {
        let long_path = LongPath::to(to)?;
        let name = long_path.name(to);
        let text = name.to_str().ok_or_else(|| {
            let wrong = io::Error::other("its name must be valid UTF-8");
            SnapshotError::from(wrong)
        })?;
        let mut source = ledger.connect_options().as_ref().clone().connect().await?;
        // It writes nothing but the other file; to SQLite that is a write like any other.
        sqlx::query("PRAGMA query_only = OFF")
            .execute(&mut source)
            .await?;
        let go_on = stop.clone();
        source
            .lock_handle()
            .await?
            .set_progress_handler(CHECK_STOP_EVERY, move || !go_on.is_cancelled());
        let copied = sqlx::query("VACUUM INTO ?1")
            .bind(text)
            .execute(&mut source)
            .await;
        if stop.is_cancelled() {
            return Err(SnapshotError::Stopped);
        }
        copied?;
        source.close().await?;
        let mut conn = open::options(&name).connect().await?;
        // It is served where it lies, or is moved there; a copy of it is a copy again.
        let file_id = Presence::of(name.clone())?.file_id();
        let instance = nodes::renew(&mut conn, &file_id).await?;
        Ok(Self {
            conn,
            _long_path: long_path,
            instance,
        })
    }

    /// How many jobs it knows.
    pub async fn jobs(&mut self) -> Result<u64, SnapshotError> {
        let row = sqlx::query!(r#"SELECT count(*) AS "count!: i64" FROM jobs"#)
            .fetch_one(&mut self.conn)
            .await?;
        Ok(row.count as u64)
    }

    /// Job and attempt of those that are not final: all of their segments belong to it.
    pub async fn open_attempts(&mut self) -> Result<Vec<(JobNumber, u32)>, SnapshotError> {
        let rows = sqlx::query!(
            r#"SELECT job AS "job!: i64", attempt AS "attempt!: u32"
               FROM attempts WHERE state IN ('claimed', 'started')"#
        )
        .fetch_all(&mut self.conn)
        .await?;
        Ok(rows.into_iter().map(|row| (row.job, row.attempt)).collect())
    }

    /// Segments that have rows, which are complete and on disk: some of those behind `after`, in
    /// order; none where there are no more.
    pub async fn segments(
        &mut self,
        after: Option<SegmentKey>,
    ) -> Result<Vec<SegmentKey>, SnapshotError> {
        let (job, offset, attempt) = match after {
            Some(key) => (key.number, int(key.first_offset), i64::from(key.attempt)),
            None => (0, 0, 0),
        };
        let rows = sqlx::query!(
            r#"SELECT job AS "job!: i64", first_offset AS "first_offset!: i64",
                   attempt AS "attempt!: u32"
               FROM segments WHERE (job, first_offset, attempt) > (?1, ?2, ?3)
               ORDER BY job, first_offset, attempt LIMIT ?4"#,
            job,
            offset,
            attempt,
            SEGMENTS_PAGE_MAX
        )
        .fetch_all(&mut self.conn)
        .await?;
        let keys = rows.into_iter().map(|row| SegmentKey {
            number: row.job,
            attempt: row.attempt,
            first_offset: row.first_offset as u64,
        });
        Ok(keys.collect())
    }

    /// Closes it; then there is only the one file.
    pub async fn close(self) -> Result<(), SnapshotError> {
        Ok(self.conn.close().await?)
    }
}

impl From<sqlx::Error> for SnapshotError {
    fn from(error: sqlx::Error) -> Self {
        match failure_action(&error) {
            FailureAction::DiskFull => Self::DiskFull,
            _ => Self::Database(error),
        }
    }
}
