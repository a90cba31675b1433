//! Opens the database: refuses what it must not use, creates a new one, configures connections.
//!
//! A file that is not cc-executor's, damaged, or newer than this version is refused and left as it
//! is. The tables are defined in `migrations/`.

use std::{fs, io, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{
    damage::{self, Checked},
    error::{FailureAction, failure_action},
    keys::{self, DigestKey, ShimSeed},
    log_bounds::LogBounds,
    log_tending::LogTending,
    long_path::LongPath,
    migrate::{MIGRATOR, OnMigration, migrate, migrate_empty},
    nodes,
    options::{beside, options},
    presence::Presence,
    read_gate::ReadGate,
    reader_pool::{self, ReaderPause, ReaderPool},
    retention::reclaim,
};
use crate::{
    store::types::{OpenError, StoreBounds},
    sys::disk_reserve::DiskReserve,
};

/// Earlier versions can corrupt a database when a WAL is reset.
const SQLITE_VERSION_MIN: [u32; 3] = [3, 51, 3];
/// "CCEX", as the first migration sets it.
const APPLICATION_ID: [u8; 4] = *b"CCEX";
/// The first bytes of every SQLite database.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of SQLite's file header, and the position of the application id in it, bytes.
const HEADER_BYTES: usize = 100;
const APPLICATION_ID_AT: usize = 68;

/// The connections of an open ledger.
pub(in crate::store) struct Connections {
    /// The only one that writes.
    pub writer: SqliteConnection,
    /// The secret key of digests.
    pub digest_key: DigestKey,
    /// The secret that the keys of shims are derived from.
    pub shim_seed: ShimSeed,
    /// The read-only ones.
    pub readers: ReaderPool,
    /// Keeps their directory open; needed as long as they are.
    pub long_path: LongPath,
    /// The file that they have open.
    pub presence: Presence,
    /// Disk space for what must be written on a full disk.
    pub disk_reserve: DiskReserve,
    /// What has been checked for damage.
    pub checked: Checked,
    /// Keeps the log of `writer` short.
    pub log: LogTending,
    /// The gate of long reads.
    pub gate: ReadGate,
}

/// Opens the database at `path`, or creates one where there is none. A file of up to
/// `check_bytes_max` bytes is checked whole before. A migration of an existing one is reported.
pub(in crate::store) async fn open(
    path: &Path,
    bounds: &StoreBounds,
    on_migration: OnMigration<'_>,
) -> Result<Connections, OpenError> {
    let log = LogBounds::new(bounds.wal_bytes_max);
    let long_path = &LongPath::to(path).map_err(|e| cannot_open(path, e))?;
    let mut checked = Checked::Whole;
    if exists(path)? {
        refuse_foreign(path)?;
        let bytes = fs::metadata(path).map_or(0, |meta| meta.len());
        if bytes > bounds.check_bytes_max {
            checked = Checked::AsRead;
        }
        refuse_damaged_or_newer(path, long_path, checked).await?;
    } else {
        create(path, long_path, log).await?;
    }
    // SQLite leaves its files where a close has failed; the database has its name already.
    if let Err(error) = remove_draft(&beside(path, ".new")) {
        tracing::warn!(%error, "the files of an interrupted creation of the database could not be removed");
    }
    let mut writer = connect_writer(path, long_path, log).await?;
    refuse_old_sqlite(&mut writer).await?;
    migrate(path, &mut writer, on_migration).await?;
    reclaim::make_shrinkable(&mut writer).await;
    checkpoint_log(path, &mut writer).await?;
    let failed = |error: sqlx::Error| OpenError::failed(path, "has no keys", error);
    let digest_key = keys::digest_key(&mut writer).await.map_err(failed)?;
    let shim_seed = keys::shim_seed(&mut writer).await.map_err(failed)?;
    let copier = connect_writer(path, long_path, log).await?;
    let (gate, pause) = (ReadGate::default(), ReaderPause::default());
    let readers = reader_pool::connect(path, long_path, &pause).await?;
    let presence = Presence::of(long_path.name(path)).map_err(|e| cannot_open(path, e))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let disk_reserve = DiskReserve::of_data_dir(directory).map_err(|e| cannot_open(path, e))?;
    let long_path = long_path.clone();
    Ok(Connections {
        log: LogTending::new(log, copier, gate.clone(), readers.clone(), pause),
        gate,
        writer,
        digest_key,
        shim_seed,
        readers,
        long_path,
        presence,
        disk_reserve,
        checked,
    })
}

/// Whether there is a file. Anything else of that name is an error, such as a link into a file
/// system that is not mounted.
fn exists(path: &Path) -> Result<bool, OpenError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(true),
        Ok(_) => Err(OpenError::about(path, "is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(_) => Err(OpenError::about(path, "is a link that leads nowhere")),
            Err(_) => Ok(false),
        },
        Err(error) => Err(cannot_open(path, error)),
    }
}

/// Looks only at the file's first bytes. A database of ours carries the application id before it
/// gets its name (see `create`), so a file without it was never ours, or is damaged.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let mut header = [0; HEADER_BYTES];
    let file = fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match file {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(OpenError::about(path, "is damaged: it is cut off"));
        }
        other => other.map_err(|error| cannot_open(path, error))?,
    }
    if &header[..SQLITE_MAGIC.len()] != SQLITE_MAGIC {
        return Err(OpenError::about(
            path,
            "is damaged, or is no SQLite database",
        ));
    }
    if header[APPLICATION_ID_AT..][..APPLICATION_ID.len()] != APPLICATION_ID {
        return Err(OpenError::about(path, "belongs to another program"));
    }
    Ok(())
}

/// Asks SQLite through a read-only connection. Where there is no WAL the file is declared
/// immutable, so that not even an empty WAL appears beside a database that is refused.
async fn refuse_damaged_or_newer(
    path: &Path,
    long_path: &LongPath,
    checked: Checked,
) -> Result<(), OpenError> {
    let wal_bytes = fs::metadata(beside(path, "-wal")).map_or(0, |meta| meta.len());
    let reading = options(&long_path.name(path))
        .read_only(true)
        .immutable(wal_bytes == 0);
    let damaged = |error: sqlx::Error| OpenError::failed(path, "is damaged", error);
    let mut conn = reading.connect().await.map_err(damaged)?;
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations")
        .fetch_all(&mut conn)
        .await
        .map_err(damaged)?;
    if let Some(unknown) = applied.iter().find(|v| !MIGRATOR.version_exists(**v)) {
        let what = format!(
            "was written by a newer version of cc-executor (schema {unknown}); \
             this is version {}",
            env!("CARGO_PKG_VERSION")
        );
        return Err(OpenError::about(path, what));
    }
    let found = match checked {
        Checked::Whole => damage::find_damage(&mut conn).await.map_err(damaged)?,
        Checked::AsRead => None,
    };
    if let Some(found) = found {
        return Err(OpenError::about(path, format!("is damaged: {found}")));
    }
    conn.close().await.map_err(damaged)
}

/// Creates the database under another name and renames it when it is complete and synced: a file of
/// that name was always a whole ledger, and an empty or half one is never taken for new.
async fn create(path: &Path, long_path: &LongPath, log: LogBounds) -> Result<(), OpenError> {
    if beside(path, "-wal").exists() {
        return Err(OpenError::about(
            path,
            "is missing, but its write-ahead log is still there; restore it, or move both away",
        ));
    }
    let fresh = beside(path, ".new");
    remove_draft(&fresh).map_err(|error| cannot_open(path, error))?;
    // Open until the sync: that reports every failed write since then.
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(|error| cannot_open(path, error))?;
    let failed = |error: sqlx::Error| OpenError::failed(path, "cannot be created", error);
    let mut conn = writer_options(&fresh, long_path, log)
        // One sync before it gets its name, instead of several after each step.
        .synchronous(SqliteSynchronous::Off)
        // Free pages can be returned in small steps; see `retention/reclaim`.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .connect()
        .await
        .map_err(failed)?;
    migrate_empty(path, &mut conn).await?;
    nodes::set_up(&mut conn).await.map_err(failed)?;
    // A close does it too, but hides that it has failed: half a ledger would get the name.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut conn)
        .await
        .map_err(failed)?;
    conn.close().await.map_err(failed)?;
    file.sync_all()
        .and_then(|()| fs::rename(&fresh, path))
        .and_then(|()| fs::File::open(path.parent().unwrap_or(Path::new("."))))
        .and_then(|directory| directory.sync_all())
        .map_err(|error| cannot_open(path, error))
}

/// Removes what an interrupted creation of a database has left.
fn remove_draft(fresh: &Path) -> io::Result<()> {
    for leftover in ["", "-wal", "-shm", "-journal"] {
        match fs::remove_file(beside(fresh, leftover)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes what the log holds into the database again, and syncs it, before anything is acknowledged
/// after it. A server that ended because a sync had failed leaves a log of unknown state on the
/// disk, and the kernel forgets that the sync failed. On a full disk this has to wait.
async fn checkpoint_log(path: &Path, conn: &mut SqliteConnection) -> Result<(), OpenError> {
    match sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(conn)
        .await
    {
        Err(error) if failure_action(&error) == FailureAction::Broken => Err(OpenError::failed(
            path,
            "cannot be written to its disk",
            error,
        )),
        Err(error) => {
            tracing::warn!(%error, "the database's log could not be checkpointed now; this is tried again later");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

async fn connect_writer(
    path: &Path,
    long_path: &LongPath,
    log: LogBounds,
) -> Result<SqliteConnection, OpenError> {
    writer_options(path, long_path, log)
        .connect()
        .await
        .map_err(|error| OpenError::no_connection(path, error))
}

fn writer_options(path: &Path, long_path: &LongPath, log: LogBounds) -> SqliteConnectOptions {
    options(&long_path.name(path))
        .page_size(4096)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // The writer checkpoints by itself: SQLite's own checkpoint hides an I/O error.
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", log.kept.to_string())
        // Deleted data, such as an environment or an input, is overwritten and not only unlinked.
        .pragma("secure_delete", "ON")
}

async fn refuse_old_sqlite(conn: &mut SqliteConnection) -> Result<(), OpenError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(conn)
        .await
        .map_err(|error| OpenError::Failed {
            what: "SQLite does not return its version".to_owned(),
            source: error.into(),
        })?;
    if is_recent(&version) {
        return Ok(());
    }
    Err(OpenError::Unusable(format!(
        "this program is built with SQLite {version}, which can damage a database; \
         it needs 3.51.3 or later"
    )))
}

fn is_recent(version: &str) -> bool {
    let parts: Vec<u32> = version.split('.').filter_map(|p| p.parse().ok()).collect();
    parts.as_slice() >= SQLITE_VERSION_MIN.as_slice()
}

fn cannot_open(path: &Path, error: io::Error) -> OpenError {
    OpenError::failed(path, "cannot be opened", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pragma(conn: &mut SqliteConnection, name: &str) -> String {
        let query = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {name}")));
        let row = query.fetch_one(conn).await.expect("is a pragma");
        // Numbers too: SQLite turns them into text.
        sqlx::Row::get_unchecked(&row, 0)
    }

    #[tokio::test]
    async fn the_writer_syncs_every_commit() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let opened = open(
            &directory.path().join("db"),
            &StoreBounds::default(),
            &|_| (),
        )
        .await;
        let mut writer = opened.expect("opens").writer;
        let expected = [
            ("synchronous", "2"),
            ("journal_mode", "wal"),
            ("page_size", "4096"),
            ("foreign_keys", "1"),
            ("wal_autocheckpoint", "0"),
            ("journal_size_limit", "16777216"),
            ("secure_delete", "1"),
            ("auto_vacuum", "2"),
        ];
        for (name, value) in expected {
            assert_eq!(pragma(&mut writer, name).await, value, "{name}");
        }
    }

    #[tokio::test]
    async fn what_nobody_uses_is_not_compiled_into_sqlite() {
        let mut conn = SqliteConnectOptions::new().connect().await.expect("opens");
        let query = sqlx::query_scalar("PRAGMA compile_options");
        let options: Vec<String> = query.fetch_all(&mut conn).await.expect("told");
        assert!(options.contains(&"THREADSAFE=1".to_owned()), "{options:?}");
        for unused in ["FTS3", "FTS4", "FTS5", "RTREE"] {
            let found = options.iter().find(|option| option.contains(unused));
            assert_eq!(found, None, "see .cargo/config.toml");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for good in ["3.51.3", "3.51.10", "3.52.0", "4.0.0"] {
            assert!(is_recent(good), "{good}");
        }
        for bad in ["3.51.2", "3.9.0", "3.51", "", "2.99.99"] {
            assert!(!is_recent(bad), "{bad}");
        }
    }
}
