//! The connections of short reads, and how the log's checkpoints hold them back for a moment.
//!
//! Long reads have connections of their own and pass `read_gate`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{SqlitePool, sqlite::SqlitePoolOptions};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    long_path::LongPath,
    options::{beside, options},
};
use crate::store::types::OpenError;

/// The connections that read.
pub(in crate::store) type ReaderPool = SqlitePool;

/// Number of read-only connections.
const READERS_MAX: u32 = 4;
/// Instructions of SQLite's machine between two checks whether a read must end: far less than a
/// millisecond.
const CHECK_END_EVERY: i32 = 10_000;
/// Time between two looks whether reads have ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Holds short reads back while the log begins again. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::store) struct ReaderPause(Arc<ReaderPauseState>);

#[derive(Debug)]
struct ReaderPauseState {
    paused: watch::Sender<bool>,
    /// Reads that run must end.
    interrupted: AtomicBool,
    /// Reads that have a connection and wait until the pause is over.
    waiting: AtomicU32,
}

impl Default for ReaderPause {
    fn default() -> Self {
        Self(Arc::new(ReaderPauseState {
            paused: watch::Sender::new(false),
            interrupted: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
        }))
    }
}

impl ReaderPause {
    /// Lets no new read begin.
    pub fn begin(&self) {
        self.0.paused.send_replace(true);
    }

    /// Ends the reads that run: their callers get an error after which they may try again.
    pub fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::SeqCst);
    }

    /// Lets all reads begin again.
    pub fn end(&self) {
        self.0.interrupted.store(false, Ordering::SeqCst);
        self.0.paused.send_replace(false);
    }

    /// Whether no read of this pool runs.
    pub fn is_idle(&self, pool: &ReaderPool) -> bool {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        let busy = pool.size().saturating_sub(idle);
        busy <= self.0.waiting.load(Ordering::SeqCst)
    }

    /// Waits until no read of this pool runs, up to `limit`; whether that is so.
    pub async fn idle(&self, pool: &ReaderPool, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while !self.is_idle(pool) {
            if Instant::now() >= until {
                return false;
            }
            #[expect(clippy::disallowed_methods, reason = "the pool does not report it")]
            sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Returns when there is no pause.
    async fn over(&self) {
        if !*self.0.paused.borrow() {
            return;
        }
        let _waiting = HeldRead::count(&self.0);
        // This cannot fail: `self` has the sender.
        let _ = self.0.paused.subscribe().wait_for(|paused| !paused).await;
    }
}

/// A read that waits; counted until the drop.
struct HeldRead<'a>(&'a ReaderPauseState);

impl<'a> HeldRead<'a> {
    fn count(state: &'a ReaderPauseState) -> Self {
        state.waiting.fetch_add(1, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for HeldRead<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Opens one connection to a ledger whose server is another process, or that has none. Without a log its file is declared
/// immutable, so that nothing is created beside it.
pub(in crate::store) async fn connect_alone(
    path: &Path,
    long_path: &LongPath,
) -> Result<ReaderPool, OpenError> {
    let has_no_log = !beside(path, "-wal").exists();
    let reading = options(&long_path.name(path))
        .read_only(true)
        .immutable(has_no_log)
        .pragma("query_only", "ON");
    let pool = SqlitePoolOptions::new().max_connections(1);
    let connected = pool.connect_with(reading).await;
    connected.map_err(|error| OpenError::no_connection(path, error))
}

/// Opens all connections.
pub(super) async fn connect(
    path: &Path,
    long_path: &LongPath,
    pause: &ReaderPause,
) -> Result<ReaderPool, OpenError> {
    let (ended, held) = (pause.clone(), pause.clone());
    SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        // All at once: later there may be no descriptors left for another one.
        .min_connections(READERS_MAX)
        // A connection opens the log with its first read, so that read is done now as well.
        .after_connect(move |conn, _| {
            let ended = ended.clone();
            Box::pin(async move {
                let read = sqlx::query("SELECT count(*) FROM sqlite_schema");
                read.execute(&mut *conn).await?;
                let go_on = move || !ended.0.interrupted.load(Ordering::Relaxed);
                conn.lock_handle()
                    .await?
                    .set_progress_handler(CHECK_END_EVERY, go_on);
                Ok(())
            })
        })
        .before_acquire(move |_, _| {
            let held = held.clone();
            Box::pin(async move {
                held.over().await;
                Ok(true)
            })
        })
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(
            options(&long_path.name(path))
                .read_only(true)
                .pragma("query_only", "ON"),
        )
        .await
        .map_err(|error| OpenError::no_connection(path, error))
}
