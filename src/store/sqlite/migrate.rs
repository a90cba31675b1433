//! Brings the schema of a database up to date, step by step, and reports how far it is.
//!
//! The steps are the files of `migrations/`.

use std::{fs, path::Path, time::Duration};

use sqlx::{SqliteConnection, migrate::Migrator};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::options::beside;
use crate::store::types::{MigrationProgress, OpenError};

/// The steps of the schema. An applied step is never edited.
pub(super) static MIGRATOR: Migrator = sqlx::migrate!();

/// Time between two reports about a step.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Receives how far a migration is.
pub type OnMigration<'a> = &'a (dyn Fn(MigrationProgress) + Send + Sync);

/// Applies the steps that are missing, each in a transaction of its own, and copies the log into the
/// database after each.
///
/// A step may recreate a table that others refer to (SQLite: "Making Other Kinds Of Table Schema
/// Changes"), so foreign keys are off meanwhile; within its transaction they cannot be switched.
pub(super) async fn migrate(
    path: &Path,
    conn: &mut SqliteConnection,
    report: OnMigration<'_>,
) -> Result<(), OpenError> {
    let failed = |error: sqlx::Error| OpenError::failed(path, FAILED, error);
    let missing = missing(conn).await.map_err(failed)?;
    switch_foreign_keys(conn, false).await.map_err(failed)?;
    let began = Instant::now();
    let steps = missing.len();
    for (at, (version, name)) in missing.into_iter().enumerate() {
        let progress = || MigrationProgress {
            step: at + 1,
            steps,
            name: name.to_owned(),
            elapsed: began.elapsed(),
            written_bytes: fs::metadata(beside(path, "-wal")).map_or(0, |meta| meta.len()),
            database_bytes: fs::metadata(path).map_or(0, |meta| meta.len()),
        };
        // `run_to` does the same, but the future of a call to it cannot be sent between threads.
        let step = MIGRATOR.run_direct(Some(version), conn, false);
        reporting(step, || report(progress()))
            .await
            .map_err(|error| OpenError::failed(path, FAILED, error))?;
        // The next step begins with an empty log. Where that fails, such as on a full disk, the
        // step itself is done.
        let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
        if let Err(error) = emptied.execute(&mut *conn).await {
            tracing::warn!(%error, "the log of a migration could not be checkpointed now");
        }
    }
    // Checks that no applied step was edited, also where none is missing.
    let checked = MIGRATOR.run_direct(None, conn, false).await;
    checked.map_err(|error| OpenError::failed(path, FAILED, error))?;
    switch_foreign_keys(conn, true).await.map_err(failed)
}

/// Applies all steps to an empty database, which takes too little time to report.
pub(super) async fn migrate_empty(
    path: &Path,
    conn: &mut SqliteConnection,
) -> Result<(), OpenError> {
    let failed = |error: sqlx::Error| OpenError::failed(path, FAILED, error);
    switch_foreign_keys(conn, false).await.map_err(failed)?;
    let all = MIGRATOR.run_direct(None, conn, false).await;
    all.map_err(|error| OpenError::failed(path, FAILED, error))?;
    switch_foreign_keys(conn, true).await.map_err(failed)
}

const FAILED: &str = "cannot be brought up to date";

/// Awaits `step`, and calls `report` at its beginning and every second.
async fn reporting<T>(step: impl Future<Output = T>, report: impl Fn()) -> T {
    tokio::pin!(step);
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => report(),
            done = &mut step => return done,
        }
    }
}

/// The steps that the database does not have, in order.
async fn missing(conn: &mut SqliteConnection) -> sqlx::Result<Vec<(i64, &'static str)>> {
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
            .fetch_one(&mut *conn)
            .await?;
    let applied: Vec<i64> = match tables {
        0 => Vec::new(),
        _ => {
            let versions = sqlx::query_scalar("SELECT version FROM _sqlx_migrations");
            versions.fetch_all(conn).await?
        }
    };
    let steps = MIGRATOR
        .iter()
        .filter(|step| !applied.contains(&step.version));
    Ok(steps
        .map(|step| (step.version, &*step.description))
        .collect())
}

async fn switch_foreign_keys(conn: &mut SqliteConnection, on: bool) -> sqlx::Result<()> {
    let switch = match on {
        true => "PRAGMA foreign_keys = ON",
        false => "PRAGMA foreign_keys = OFF",
    };
    sqlx::query(switch).execute(conn).await.map(drop)
}
