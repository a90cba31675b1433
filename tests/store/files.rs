//! The file: what survives a kill, and what is refused without being touched.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use cc_executor::{
    job::{JobSpec, JobState},
    store::{Fenced, Store},
};

use crate::ledger::*;

/// The database and its log as a kill at this instant would leave them.
async fn killed_here(ledger: &Ledger) -> (tempfile::TempDir, Store) {
    let copy = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let name = format!("ledger.db{suffix}");
        fs::copy(ledger.path().with_file_name(&name), copy.path().join(&name)).unwrap();
    }
    let store = Store::open(&copy.path().join("ledger.db")).await.unwrap();
    (copy, store)
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let ledger = Ledger::new().await;
    let claim = ledger.running("a").await;
    let finished = ledger.store.finish(success(claim.number, 1)).await;
    assert_eq!(finished.unwrap(), Fenced::Applied);
    let running = ledger.running("b").await;
    let queued = ledger.queued().await;
    let (_directory, after) = killed_here(&ledger).await;
    for number in [claim.number, running.number, queued.number] {
        let job = cc_executor::job::JobRef::Number(number);
        let survived = after.job(job, Default::default()).await.unwrap();
        assert_eq!(survived, Some(ledger.get(number).await));
    }
    assert_eq!(after.open_attempts().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_that_was_not_closed_opens_again_and_numbers_go_on() {
    let ledger = Ledger::new().await;
    let first = ledger.queued().await;
    let epoch = ledger.store.begin_epoch("boot-1").await.unwrap();
    let ledger = ledger.reopen().await;
    assert_eq!(ledger.get(first.number).await, first);
    assert!(ledger.queued().await.number > first.number);
    let next = ledger.store.begin_epoch("boot-2").await.unwrap();
    assert_eq!(next.epoch, epoch.epoch + 1);
    assert_eq!(next.instance, epoch.instance);
    assert_eq!(next.instance.len(), 32);
}

#[tokio::test]
async fn a_new_database_is_private_and_set_up() {
    let ledger = Ledger::new().await;
    let mode = fs::metadata(ledger.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let wal = ledger.path().with_file_name("ledger.db-wal");
    ledger.queued().await;
    assert_eq!(
        fs::metadata(wal).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let slots: i64 = sqlx::query_scalar("SELECT concurrency FROM queues WHERE name = 'default'")
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap();
    let cores = std::thread::available_parallelism().unwrap().get() as i64;
    assert_eq!(slots, cores.max(4));
    assert_eq!(ledger.store.begin_epoch("b").await.unwrap().epoch, 1);
    let other = Ledger::new().await;
    let ids = [&ledger, &other].map(|ledger| ledger.store.begin_epoch("b"));
    let [one, two] = ids;
    assert_ne!(one.await.unwrap().instance, two.await.unwrap().instance);
}

/// Opening is refused with a sentence that says `what`, and no byte changes.
async fn refused(path: &Path, what: &str) {
    let before = fs::read(path).unwrap();
    let beside = |path: &Path| fs::read_dir(path.parent().unwrap()).unwrap().count();
    let files = beside(path);
    let error = Store::open(path).await.unwrap_err().to_string();
    assert!(error.contains(what), "{error}");
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert!(
        fs::read(path).unwrap() == before,
        "{what}: the file changed"
    );
    assert_eq!(beside(path), files, "{what}: files appeared or vanished");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    fs::write(&path, "").unwrap();
    refused(&path, "cut off").await;
    fs::write(&path, "x".repeat(8192)).unwrap();
    refused(&path, "no SQLite database").await;
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    fs::write(&path, "").unwrap();
    let mut foreign = raw(&path).await;
    sqlx::query("CREATE TABLE theirs (x)")
        .execute(&mut foreign)
        .await
        .unwrap();
    sqlx::Connection::close(foreign).await.unwrap();
    refused(&path, "another program").await;
}

/// A closed ledger with enough rows that its middle matters.
async fn closed(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("ledger.db");
    let store = Store::open(&path).await.unwrap();
    for _ in 0..200 {
        let job = JobSpec {
            name: Some("n".repeat(500)),
            ..true_job()
        };
        store.submit(submission(job)).await.unwrap();
    }
    store.close().await;
    path
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path()).await;
    let good = fs::read(&path).unwrap();

    let mut torn = good.clone();
    let middle = torn.len() / 2 / 4096 * 4096;
    torn[middle..middle + 4096].fill(0xa5);
    fs::write(&path, &torn).unwrap();
    refused(&path, "damaged").await;

    fs::write(&path, &good[..good.len() / 2]).unwrap();
    refused(&path, "damaged").await;
    fs::write(&path, &good[..50]).unwrap();
    refused(&path, "damaged").await;

    let mut headless = good.clone();
    headless[..16].fill(0);
    fs::write(&path, &headless).unwrap();
    refused(&path, "damaged").await;

    fs::write(&path, &good).unwrap();
    let store = Store::open(&path).await.unwrap();
    let counts = store.counts().await.unwrap();
    assert_eq!(counts, [(JobState::Queued, 200)].into());
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = closed(directory.path()).await;
    let mut newer = raw(&path).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'the future', true, x'00', 0)",
    )
    .execute(&mut newer)
    .await
    .unwrap();
    sqlx::Connection::close(newer).await.unwrap();
    refused(&path, "newer version").await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_not_replaced_while_its_log_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let log = directory.path().join("ledger.db-wal");
    fs::write(&log, "x").unwrap();
    let error = Store::open(&path).await.unwrap_err().to_string();
    assert!(error.contains("write-ahead log"), "{error}");
    assert!(!path.exists());
    assert_eq!(fs::read(&log).unwrap(), b"x");
}

#[tokio::test]
async fn a_creation_that_was_interrupted_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    fs::write(directory.path().join("ledger.db.new"), "half").unwrap();
    fs::write(directory.path().join("ledger.db.new-wal"), "half").unwrap();
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.counts().await.unwrap(), [].into());
    store.close().await;
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// The WAL is carried over while the ledger works, not only at its end.
#[tokio::test]
async fn the_log_stays_bounded() {
    let ledger = Ledger::new().await;
    let wal = ledger.path().with_file_name("ledger.db-wal");
    let mut largest = 0;
    for _ in 0..1500 {
        let job = JobSpec {
            stdin: Some("s".repeat(20_000)),
            ..true_job()
        };
        ledger.submit(job).await;
        largest = largest.max(fs::metadata(&wal).unwrap().len());
    }
    let database = fs::metadata(ledger.path()).unwrap().len();
    assert!(
        database > 20 << 20,
        "30 MB were written, {database} arrived"
    );
    assert!(largest < 16 << 20, "the log grew to {largest} bytes");
}

#[tokio::test]
async fn a_path_may_have_any_length() {
    let directory = tempfile::tempdir().unwrap();
    let mut long = directory.path().to_owned();
    while long.as_os_str().len() < 450 {
        long.push("d".repeat(40));
    }
    fs::create_dir_all(&long).unwrap();
    let room = 500 - long.as_os_str().len() - 1;
    for length in [room, room + 1, room + 12, room + 13, 200] {
        let path = long.join("x".repeat(length));
        let store = Store::open(&path).await.unwrap();
        store.submit(submission(true_job())).await.unwrap();
        // Who dies without a goodbye leaves the log under the file's own name.
        assert!(long.join("x".repeat(length) + "-wal").exists(), "{length}");
        let second = Store::open(&path).await.unwrap();
        assert_eq!(second.counts().await.unwrap().len(), 1);
        second.close().await;
        store.close().await;
        let left: Vec<_> = fs::read_dir(&long).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        fs::remove_file(path).unwrap();
    }
}
