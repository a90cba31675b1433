//! Looks for damage in the database: all of a small one before it is used, a large one table by table
//! while the server works.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions, SqliteConnection};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    error::{is_damage, is_interrupt},
    long_path::LongPath,
    options::options,
    read_gate::{LogTooLong, LongRead, LongReadKind, ReadGate},
};

/// How much of a database has been checked for damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Checked {
    /// All of it.
    Whole,
    /// Its header, its schema, and what a start reads.
    AsRead,
}

/// Pages that SQLite looks at between two checks whether to stop.
const CHECK_STOP_EVERY: i32 = 1000;
/// How much lower the priority of the check's thread is than the server's (nice(2)).
const NICER: i32 = 19;
/// The pause before a table is checked again, if it could not be checked; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The first damage in the whole database.
pub(super) async fn find_damage(conn: &mut SqliteConnection) -> sqlx::Result<Option<String>> {
    first_damage(conn, "PRAGMA quick_check(1)").await
}

/// The first damage in one table and its indexes.
async fn find_damage_in(conn: &mut SqliteConnection, table: &str) -> sqlx::Result<Option<String>> {
    let table = table.replace('\'', "''");
    first_damage(conn, &format!("PRAGMA quick_check('{table}')")).await
}

async fn first_damage(conn: &mut SqliteConnection, check: &str) -> sqlx::Result<Option<String>> {
    let check = sqlx::AssertSqlSafe(check.to_owned());
    let found: String = sqlx::query_scalar(check).fetch_one(conn).await?;
    Ok((found != "ok").then_some(found))
}

/// The check of a large database beside the work, with a connection of its own.
pub(in crate::store) struct DamageCheck<'a> {
    pub path: &'a Path,
    pub long_path: &'a LongPath,
    pub gate: &'a ReadGate,
    /// Cancelled when the store is closed, which ends the check.
    pub closing: &'a CancellationToken,
}

impl DamageCheck<'_> {
    /// The first damage; `None` also where the store is closed meanwhile. What cannot be read now,
    /// such as a database that another process has locked, is read again later.
    pub async fn run(&self) -> Option<String> {
        let tables = match self.patiently("its schema", || self.tables()).await? {
            Ok(tables) => tables,
            Err(damage) => return Some(damage),
        };
        for table in &tables {
            let found = self.patiently(table, || self.check(table)).await?;
            if let Some(damage) = found.unwrap_or_else(Some) {
                return Some(format!("table {table}: {damage}"));
            }
        }
        tracing::info!(tables = tables.len(), "the database was checked: no damage");
        None
    }

    /// Repeats `look` until it is done or SQLite has proven damage, which is the error. `None` if
    /// the store is closed meanwhile.
    async fn patiently<T, F>(&self, what: &str, look: impl Fn() -> F) -> Option<Result<T, String>>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let mut pause = PAUSE_MIN;
        loop {
            let error = match look().await {
                Ok(found) => return Some(Ok(found)),
                Err(error) if is_damage(&error) => return Some(Err(error.to_string())),
                Err(error) => error,
            };
            if self.closing.is_cancelled() {
                return None;
            }
            if is_interrupt(&error) {
                tracing::debug!(
                    what,
                    "the check for damage was interrupted; it is repeated later"
                );
            } else {
                tracing::warn!(what, %error, "the check for damage could not go on; it is repeated later");
            }
            #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
            let paused = sleep(pause);
            tokio::select! {
                () = paused => pause = PAUSE_MAX.min(pause * 2),
                () = self.closing.cancelled() => return None,
            }
        }
    }

    async fn tables(&self) -> sqlx::Result<Vec<String>> {
        let mut conn = self.connect().await?;
        sqlx::query_scalar(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
        )
        .fetch_all(&mut conn)
        .await
    }

    /// Checks one table in one long read.
    async fn check(&self, table: &str) -> sqlx::Result<Option<String>> {
        let entered = tokio::select! {
            entered = self.gate.enter(LongReadKind::Stoppable) => entered,
            () = self.closing.cancelled() => Err(LogTooLong),
        };
        let read = entered.map_err(|closed| sqlx::Error::Io(std::io::Error::other(closed)))?;
        let mut conn = self.connect().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut is_first) = (stop.clone(), true);
        let go_on = move || {
            if std::mem::take(&mut is_first) {
                // The handler is called by the connection's own thread. Without a lower priority the
                // check works, too.
                let _ = rustix::process::nice(NICER);
            }
            !stopped.load(Ordering::Relaxed)
        };
        conn.lock_handle()
            .await?
            .set_progress_handler(CHECK_STOP_EVERY, go_on);
        let looking = find_damage_in(&mut conn, table);
        tokio::pin!(looking);
        tokio::select! {
            found = &mut looking => found,
            () = self.must_stop(&read) => {
                stop.store(true, Ordering::Relaxed);
                looking.await
            }
        }
    }

    async fn must_stop(&self, read: &LongRead) {
        tokio::select! {
            () = read.must_end() => {}
            () = self.closing.cancelled() => {}
        }
    }

    async fn connect(&self) -> sqlx::Result<SqliteConnection> {
        let configured = options(&self.long_path.name(self.path));
        // A check takes long, which is no news.
        let quiet = configured.read_only(true).disable_statement_logging();
        quiet.connect().await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::Store;

    struct Checked {
        directory: tempfile::TempDir,
        store: Store,
        gate: ReadGate,
        closing: CancellationToken,
    }

    impl Checked {
        async fn new() -> Self {
            let directory = tempfile::tempdir().expect("makes a directory");
            let store = Store::open(&directory.path().join("db")).await;
            Self {
                directory,
                store: store.expect("opens"),
                gate: ReadGate::default(),
                closing: CancellationToken::new(),
            }
        }

        async fn run(&self) -> Option<String> {
            let path = self.directory.path().join("db");
            let check = DamageCheck {
                path: &path,
                long_path: &LongPath::to(&path).expect("a path"),
                gate: &self.gate,
                closing: &self.closing,
            };
            check.run().await
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_now_is_no_damage_and_is_read_again() {
        let checked = Checked::new().await;
        let path = checked.directory.path().join("db");
        let aside = checked.directory.path().join("aside");
        fs::rename(&path, &aside).expect("moved");
        let check = checked.run();
        tokio::pin!(check);
        let first_try = tokio::time::timeout(PAUSE_MIN / 2, &mut check).await;
        assert!(first_try.is_err(), "{first_try:?}");
        fs::rename(&aside, &path).expect("moved");
        assert_eq!(check.await, None);
    }

    #[tokio::test]
    async fn it_waits_at_the_gate_and_ends_when_the_store_is_closed() {
        let checked = Checked::new().await;
        checked.gate.close();
        let check = checked.run();
        tokio::pin!(check);
        let waits = tokio::time::timeout(Duration::from_millis(100), &mut check).await;
        assert!(waits.is_err(), "{waits:?}");
        checked.closing.cancel();
        assert_eq!(check.await, None);
        checked.store.close().await;
    }

    #[tokio::test]
    async fn damage_is_found_in_a_table() {
        let checked = Checked::new().await;
        checked.store.close().await;
        let path = checked.directory.path().join("db");
        let mut bytes = fs::read(&path).expect("readable");
        bytes[4096..].fill(0xa5);
        fs::write(&path, bytes).expect("written");
        checked.run().await.expect("damage");
    }
}
