//! Copies the write-ahead log into the database beside the writer, over a connection of its own: the
//! copying and its sync take up to half a second, and no commit waits for them.
//!
//! `checkpoints` decides when.

use std::io;

use sqlx::{Connection, SqliteConnection};
use tokio::{sync::mpsc, task::JoinHandle};

use super::errno;

/// Copies what no reader still needs from the log, and waits for no reader.
pub(super) const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// A copy that failed.
#[derive(Debug)]
pub(super) struct CopyFailure {
    pub error: sqlx::Error,
    /// The system's error, where it has one.
    pub cause: Option<io::Error>,
}

/// The task that copies. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct LogCopier {
    requests: mpsc::Sender<()>,
    ends: mpsc::Receiver<Result<(), CopyFailure>>,
    is_busy: bool,
    task: JoinHandle<()>,
}

impl LogCopier {
    /// Copies over `conn`, which must be configured as the writer's.
    pub fn start(conn: SqliteConnection) -> Self {
        let (requests, requested) = mpsc::channel(1);
        let (ended, ends) = mpsc::channel(1);
        Self {
            task: tokio::spawn(copy(conn, requested, ended)),
            requests,
            ends,
            is_busy: false,
        }
    }

    /// Whether a copy is being made.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Begins a copy, if none is being made; whether one is being made now.
    pub fn begin(&mut self) -> bool {
        self.is_busy = self.is_busy || self.requests.try_send(()).is_ok();
        self.is_busy
    }

    /// Ends the task and its connection, when no copy is being made.
    pub async fn close(&mut self) {
        self.requests = mpsc::channel(1).0;
        // An error means that it has panicked.
        let _ = (&mut self.task).await;
    }

    /// Returns when the copy that is being made has ended; never if there is none. Cancel-safe.
    pub async fn end(&mut self) -> Result<(), CopyFailure> {
        if !self.is_busy {
            return std::future::pending().await;
        }
        let end = self.ends.recv().await;
        self.is_busy = false;
        // Where the task is gone, the writer notices it by the log's length.
        end.unwrap_or(Ok(()))
    }
}

async fn copy(
    mut conn: SqliteConnection,
    mut requested: mpsc::Receiver<()>,
    ended: mpsc::Sender<Result<(), CopyFailure>>,
) {
    while requested.recv().await.is_some() {
        let end = match sqlx::query(PASSIVE).execute(&mut conn).await {
            Ok(_) => Ok(()),
            Err(error) => Err(CopyFailure {
                error,
                cause: errno::of_last_failure(&mut conn).await,
            }),
        };
        if ended.send(end).await.is_err() {
            break;
        }
    }
    if let Err(error) = conn.close().await {
        tracing::warn!(%error, "the connection that copies the log did not close cleanly");
    }
}
