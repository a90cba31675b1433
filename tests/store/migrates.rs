//! A ledger of an earlier schema is brought up to date, and has the same jobs.

use std::{borrow::Cow, path::Path, sync::Mutex};

use cc_executor::{
    job::{
        Command, JobRef, JobSpec, Leftover, Limits, OnDisconnect, OnLost, OutputPolicy,
        ResourceBound, Seconds, Umask, WhenFull,
    },
    store::{Include, MigrationProgress, Store, StoreBounds},
};
use sqlx::{Connection, SqliteConnection, migrate::Migrator};

use crate::ledger::*;

static ALL: Migrator = sqlx::migrate!();

/// A ledger as the last version before `version` of the schema leaves it.
async fn ledger_before(version: i64, path: &Path) -> SqliteConnection {
    std::fs::File::create_new(path).unwrap();
    let mut conn = raw(path).await;
    let earlier = ALL.iter().filter(|one| one.version < version).cloned();
    let earlier = Migrator {
        migrations: Cow::Owned(earlier.collect()),
        ..Migrator::DEFAULT
    };
    earlier.run_direct(None, &mut conn, false).await.unwrap();
    let node = "INSERT INTO nodes (id, instance, hostname, version) VALUES (1, 'i', 'h', '0.1.0');
                INSERT INTO environments (hash, names, env)
                VALUES (zeroblob(32), '[\"A\"]', '{\"A\":\"b\"}')";
    sqlx::raw_sql(node).execute(&mut conn).await.unwrap();
    conn
}

const OLD_JOBS: &str = r#"
    INSERT INTO jobs (number, id, state, queue, priority, name, labels, argv, shell, cwd, environment,
        umask, stdin, interactive, timeout_s, stall_timeout_s, grace_s, leftover, on_lost,
        on_disconnect, disconnect_delay_s, output_bytes_max, when_full, idempotency_key, fingerprint,
        submitted_at, limits, attempt, attempts, finished_at, exit_code, reason)
    VALUES
        (3, '00000000-0000-0000-0000-000000000003', 'queued', 'default', -3, 'n', '{"k":"v"}', NULL,
         'a "line"' || char(10, 27) || 'é', '/s"\p', zeroblob(32), 18, 'in', 1, 0.30000000000000004,
         0.1, 1e-7, 'keep', 'retry', 'cancel', 1.0 / 3, 9007199254740993, 'drop_oldest', 'k',
         zeroblob(32), 5, '{"cpu_s":{"soft":1,"hard":null},"nice":-3}', 0, 0, NULL, NULL, NULL),
        (4, '00000000-0000-0000-0000-000000000004', 'failed', 'default', 0, NULL, '{}',
         '["a","\u001b\"b",""]', NULL, '/', zeroblob(32), 63, NULL, 0, NULL, NULL, 10, 'kill', 'fail',
         'continue', 10, NULL, 'fail', NULL, zeroblob(32), 6, NULL, 1, 1, 8, 7, 'exit_code'),
        (9, '00000000-0000-0000-0000-000000000009', 'failed', 'default', 0, NULL, '{}',
         '["a"]', NULL, '/', zeroblob(32), 63, NULL, 0, NULL, NULL, 10, 'kill', 'fail',
         'continue', 10, NULL, 'fail', NULL, zeroblob(32), 6, NULL, 1, 1, 8, 7, 'exit_code');
    DELETE FROM jobs WHERE number = 9;
    INSERT INTO attempts (job, attempt, state, shim, shim_version, boot_id, instance, start_offset,
        end_offset, claimed_at, ended_at)
    VALUES (4, 1, 'ended', 's', '0.1.0', 'b', 'i', 0, 2, 7, 8);
    INSERT INTO output_chunks (job, offset, length, attempt, stream, at, data)
    VALUES (4, 0, 2, 1, 'stdout', 7, x'780a');
"#;

fn first() -> JobSpec {
    JobSpec {
        cwd: Some("/s\"\\p".into()),
        umask: Umask(0o022),
        limits: Limits {
            cpu_s: Some(ResourceBound::Each {
                soft: 1,
                hard: None,
            }),
            nice: Some(-3),
            ..Limits::default()
        },
        interactive: true,
        name: Some("n".into()),
        labels: [("k".into(), "v".into())].into(),
        priority: -3,
        timeout_s: Some(Seconds(0.1 + 0.2)),
        stall_timeout_s: Some(Seconds(0.1)),
        grace_s: Seconds(1e-7),
        leftover: Leftover::Keep,
        on_lost: OnLost::Retry,
        on_disconnect: OnDisconnect::Cancel,
        disconnect_delay_s: Seconds(1.0 / 3.0),
        output: OutputPolicy {
            max_bytes: Some(9_007_199_254_740_993),
            when_full: WhenFull::DropOldest,
            ..OutputPolicy::default()
        },
        idempotency_key: Some("k".into()),
        ..JobSpec::new(Command::Shell("a \"line\"\n\u{1b}é".into()))
    }
}

fn second() -> JobSpec {
    let argv = ["a", "\u{1b}\"b", ""].map(str::to_owned);
    JobSpec {
        cwd: Some("/".into()),
        ..JobSpec::new(Command::Argv(argv.into()))
    }
}

#[tokio::test]
async fn what_was_submitted_moves_into_one_column_and_stays_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut old = ledger_before(12, &path).await;
    sqlx::raw_sql(OLD_JOBS).execute(&mut old).await.unwrap();
    let columns = "SELECT group_concat(name || ' ' || cid) FROM pragma_table_info('history_jobs')";
    let shown = "SELECT json_array(number, id, argv, shell, command, cwd, umask, stdin_bytes,
            interactive, timeout_s, stall_timeout_s, grace_s, leftover, on_lost, on_disconnect,
            disconnect_delay_s, output_bytes_max, when_full, typeof(timeout_s), typeof(grace_s),
            typeof(output_bytes_max), exit_code, finished_at, env_names)
        FROM history_jobs ORDER BY number";
    let told = |sql| sqlx::query_scalar::<_, String>(sql);
    let before = told(columns).fetch_all(&mut old).await.unwrap();
    let rows_before = told(shown).fetch_all(&mut old).await.unwrap();
    old.close().await.unwrap();

    let store = Store::open(&path).await.unwrap();
    let include = Include {
        env: true,
        stdin: true,
        ..Include::default()
    };
    for (number, spec, stdin) in [(3, first(), Some("in")), (4, second(), None)] {
        let job = store.job(JobRef::Number(number), include).await;
        let job = job.unwrap().unwrap();
        assert_eq!(job.spec, spec);
        assert_eq!(job.stdin, Some(stdin.map(str::to_owned)));
        assert_eq!(job.env, Some([("A".into(), "b".into())].into()));
    }
    let claimed = store
        .claim(vec![offer("s2")], BOOT.into(), INSTANCE.into())
        .await;
    let claim = &claimed.unwrap().claims[0];
    assert_eq!((claim.number, claim.job.stdin.as_deref()), (3, Some("in")));
    let new = store.submit(submission(true_job())).await.unwrap();
    assert_eq!(new.job.number, 10, "9 was given before");

    let mut now = raw(&path).await;
    let columns = told(columns).fetch_one(&mut now).await.unwrap();
    assert!(columns.starts_with(&before[0]), "{columns}");
    let rows = told(shown).fetch_all(&mut now).await.unwrap();
    assert_eq!(rows[..2], rows_before);
    let kept = "SELECT json_array((SELECT count(*) FROM attempts WHERE job = 4),
            (SELECT count(*) FROM output_chunks), (SELECT count(*) FROM pragma_foreign_key_check))";
    assert_eq!(told(kept).fetch_one(&mut now).await.unwrap(), "[1,1,0]");
}

#[tokio::test]
async fn numbers_of_a_new_ledger_begin_with_nothing_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.last_number().await, Ok(0));
    store.close().await;
    let mut conn = raw(&path).await;
    let given = "SELECT count(*) FROM sqlite_sequence WHERE seq IS NULL OR seq > 0";
    let given: i64 = sqlx::query_scalar(given)
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(given, 0);
}

#[tokio::test]
async fn each_step_is_reported_and_nothing_is_where_none_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let old = ledger_before(12, &path).await;
    old.close().await.unwrap();
    for missing in [ALL.iter().filter(|one| one.version >= 12).count(), 0] {
        let reported = Mutex::new(Vec::new());
        let report = |progress: MigrationProgress| {
            let all = (
                progress.steps,
                !progress.name.is_empty(),
                progress.database_bytes > 0,
            );
            assert_eq!(all, (missing, true, true));
            reported.lock().unwrap().push(progress.step);
        };
        let bounds = StoreBounds::default();
        let store = Store::open_within(&path, &bounds, &report).await;
        store.unwrap().close().await;
        let mut steps = reported.into_inner().unwrap();
        steps.dedup();
        assert_eq!(steps, Vec::from_iter(1..=missing));
    }
}
