//! A copy of the ledger at one moment, in a file and with an instance of its own; and which
//! segments of the spool belong to it.
//!
//! The caller chooses its path and copies the spool.

use std::{io, path::Path};

use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tokio_util::sync::CancellationToken;

use super::{
    columns::int,
    error::{FailureAction, failure_action},
    long_path::LongPath,
    nodes,
    options::options,
    presence::Presence,
    read_gate::{LogTooLong, LongReadKind, ReadGate},
    retention::reclaim,
};
use crate::{job::JobNumber, store::types::SegmentKey};

/// Instructions of SQLite's machine between two checks whether to stop: far less than a
/// millisecond.
const CHECK_STOP_EVERY: i32 = 10_000;
/// The most segments on a page.
const SEGMENTS_PAGE_MAX: i64 = 10_000;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The caller has cancelled it.
    #[error("stopped")]
    Stopped,
    /// The log has to become short first, or has grown too long meanwhile.
    #[error(transparent)]
    LogTooLong(#[from] LogTooLong),
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

/// The copy, with its connection.
#[derive(Debug)]
pub struct Snapshot {
    conn: SqliteConnection,
    /// `conn` needs it.
    _long_path: LongPath,
    /// The random id of the copy's data directory.
    pub instance: String,
}

impl Snapshot {
    /// Copies what is committed into the file `to`, which must not exist. The copy is not synced.
    ///
    /// It is one long read: writes do not wait for it, but the write-ahead log does not start again
    /// from its beginning meanwhile. So it passes `gate`, and is stopped where the log becomes
    /// sixteen times as long as it may be otherwise.
    pub(in crate::store) async fn write(
        ledger: &SqlitePool,
        gate: &ReadGate,
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
        // It only writes the other file, but SQLite counts that as a write.
        sqlx::query("PRAGMA query_only = OFF")
            .execute(&mut source)
            .await?;
        // Then the copy's file can shrink, also where the original's cannot.
        if !reclaim::can_shrink(&mut source).await? {
            sqlx::query("PRAGMA auto_vacuum = INCREMENTAL")
                .execute(&mut source)
                .await?;
        }
        copy(&mut source, text, gate, stop).await?;
        source.close().await?;
        let mut conn = options(&name).connect().await?;
        // It is served at its place, or is moved there; a copy of it counts as a copy again.
        let file_id = Presence::of(name.clone())?.file_id();
        let instance = nodes::renew(&mut conn, &file_id).await?;
        Ok(Self {
            conn,
            _long_path: long_path,
            instance,
        })
    }

    /// The number of its jobs.
    pub async fn jobs(&mut self) -> Result<u64, SnapshotError> {
        let row = sqlx::query!(r#"SELECT count(*) AS "count!: i64" FROM jobs"#)
            .fetch_one(&mut self.conn)
            .await?;
        Ok(row.count as u64)
    }

    /// Job and attempt of attempts that are not final: all of their segments belong to the copy.
    pub async fn open_attempts(&mut self) -> Result<Vec<(JobNumber, u32)>, SnapshotError> {
        let rows = sqlx::query!(
            r#"SELECT job AS "job!: i64", attempt AS "attempt!: u32"
               FROM attempts WHERE state IN ('claimed', 'started')"#
        )
        .fetch_all(&mut self.conn)
        .await?;
        Ok(rows.into_iter().map(|row| (row.job, row.attempt)).collect())
    }

    /// Segments that have rows, which are complete and on disk: a page of those after `after`, in
    /// order; empty at the end.
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

    /// Closes it; afterwards the copy is one file, without a log.
    pub async fn close(self) -> Result<(), SnapshotError> {
        Ok(self.conn.close().await?)
    }
}

/// Copies what `source` sees into the file `to`, in one long read.
async fn copy(
    source: &mut SqliteConnection,
    to: &str,
    gate: &ReadGate,
    stop: &CancellationToken,
) -> Result<(), SnapshotError> {
    let read = gate.enter(LongReadKind::Copy).await?;
    let must_end = CancellationToken::new();
    let (stopped, too_long) = (stop.clone(), must_end.clone());
    let go_on = move || !stopped.is_cancelled() && !too_long.is_cancelled();
    source
        .lock_handle()
        .await?
        .set_progress_handler(CHECK_STOP_EVERY, go_on);
    let copying = sqlx::query("VACUUM INTO ?1").bind(to).execute(source);
    tokio::pin!(copying);
    let copied = tokio::select! {
        copied = &mut copying => copied,
        () = read.must_end() => {
            must_end.cancel();
            copying.await
        }
    };
    if stop.is_cancelled() {
        return Err(SnapshotError::Stopped);
    }
    if copied.is_err() && must_end.is_cancelled() {
        return Err(LogTooLong.into());
    }
    copied?;
    Ok(())
}

impl From<sqlx::Error> for SnapshotError {
    fn from(error: sqlx::Error) -> Self {
        match failure_action(&error) {
            FailureAction::DiskFull => Self::DiskFull,
            _ => Self::Database(error),
        }
    }
}
