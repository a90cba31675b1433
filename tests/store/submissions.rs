//! What a submission stores, and that a key makes two of them one.

use std::collections::BTreeSet;

use cc_executor::{
    job::{EnvValue, JobRef, JobSpec, JobState},
    store::{Include, SubmitError},
};

use crate::ledger::*;

fn keyed(key: &str) -> JobSpec {
    JobSpec {
        idempotency_key: Some(key.into()),
        ..true_job()
    }
}

#[tokio::test]
async fn numbers_ascend_and_the_answer_is_what_a_read_shows() {
    let ledger = Ledger::new().await;
    let first = ledger.queued().await;
    let second = ledger
        .submit(JobSpec {
            env: [("PATH".into(), "/bin".into())].into(),
            labels: [("a".into(), "b".into())].into(),
            stdin: Some("stdin".into()),
            timeout_s: Some(cc_executor::job::Seconds(1.5)),
            ..true_job()
        })
        .await;
    assert!(second.number > first.number);
    assert_eq!(second.state, JobState::Queued);
    assert_eq!(ledger.get(second.number).await, second);
    assert_eq!(ledger.states(second.number).await, [JobState::Queued]);
    let by_id = ledger.store.job(JobRef::Id(first.id), Include::default());
    assert_eq!(by_id.await.unwrap(), Some(first.clone()));
    assert_eq!(
        ledger.store.job_number(first.id).await.unwrap(),
        Some(first.number)
    );
}

#[tokio::test]
async fn an_unknown_queue_stores_nothing() {
    let ledger = Ledger::new().await;
    let job = JobSpec {
        queue: "nowhere".into(),
        env: [("SECRET".into(), "x".into())].into(),
        ..true_job()
    };
    let refused = ledger.store.submit(submission(job)).await;
    assert_eq!(refused, Err(SubmitError::UnknownQueue("nowhere".into())));
    let rows: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM environments)
              + (SELECT count(*) FROM events)",
    )
    .fetch_one(&mut ledger.raw().await)
    .await
    .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_key_names_one_job() {
    let ledger = Ledger::new().await;
    let first = ledger.store.submit(submission(keyed("k"))).await.unwrap();
    assert!(first.created);
    ledger.claim(&["a"]).await;
    let again = ledger.store.submit(submission(keyed("k"))).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.job.number, first.job.number);
    assert_eq!(again.job.state, JobState::Running, "in whatever state");

    let other = JobSpec {
        priority: 1,
        ..keyed("k")
    };
    let refused = ledger.store.submit(submission(other)).await;
    assert_eq!(refused, Err(SubmitError::KeyConflict(first.job.number)));
    assert!(
        ledger
            .store
            .submit(submission(keyed("l")))
            .await
            .unwrap()
            .created
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_parallel_submits_with_one_key_are_one_row() {
    let ledger = Ledger::new().await;
    let submits: Vec<_> = (0..50)
        .map(|_| {
            let store = ledger.store.clone();
            tokio::spawn(async move { store.submit(submission(keyed("k"))).await.unwrap() })
        })
        .collect();
    let mut numbers = BTreeSet::new();
    let mut created = 0;
    for submit in submits {
        let submitted = submit.await.unwrap();
        numbers.insert(submitted.job.number);
        created += u32::from(submitted.created);
    }
    assert_eq!((numbers.len(), created), (1, 1));
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs")
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn an_environment_is_stored_once_per_content() {
    let ledger = Ledger::new().await;
    let with_env = |value: &str| JobSpec {
        env: [("A".into(), value.into())].into(),
        ..true_job()
    };
    for value in ["1", "1", "2", "1"] {
        ledger.submit(with_env(value)).await;
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM environments")
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap();
    assert_eq!(rows, 2);
}

/// Every digest that stands in the ledger, of environments and of submissions, as hex.
async fn digests(ledger: &Ledger) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut conn = ledger.raw().await;
    let mut all = async |sql| {
        let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut conn).await.unwrap();
        found.into_iter().collect()
    };
    (
        all("SELECT lower(hex(hash)) FROM environments").await,
        all("SELECT lower(hex(fingerprint)) FROM jobs").await,
    )
}

fn plain(text: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What an earlier version has stored without a key is stored with one, and goes on matching.
#[tokio::test]
async fn digests_of_an_earlier_version_become_keyed_and_go_on_matching() {
    let ledger = Ledger::new().await;
    let job = JobSpec {
        env: [("SECRET".into(), "x".into())].into(),
        ..keyed("k")
    };
    let first = ledger.submit(job.clone()).await;
    let other = ledger.submit(true_job()).await;
    let (hash, fingerprint) = (
        plain(br#"{"SECRET":"x"}"#),
        plain(&job.fingerprint_source().unwrap()),
    );
    let (environments, submissions) = digests(&ledger).await;
    assert!(!environments.contains(&hash) && !submissions.contains(&fingerprint));
    // As the version before had it.
    ledger.store.close().await;
    let mut conn = ledger.raw().await;
    for sql in [
        "PRAGMA foreign_keys = OFF".to_owned(),
        "DELETE FROM digest_key".to_owned(),
        format!(
            "UPDATE jobs SET environment = x'{hash}', fingerprint = x'{fingerprint}' WHERE number = {}",
            first.number
        ),
        format!("UPDATE environments SET hash = x'{hash}' WHERE names LIKE '%SECRET%'"),
    ] {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        query.execute(&mut conn).await.unwrap();
    }
    drop(conn);
    let ledger = ledger.reopen().await;
    let (environments, submissions) = digests(&ledger).await;
    assert!(!environments.contains(&hash) && !submissions.contains(&fingerprint));
    assert_eq!((environments.len(), submissions.len()), (2, 2));
    let again = ledger.store.submit(submission(job.clone())).await.unwrap();
    assert_eq!((again.job.number, again.created), (first.number, false));
    let changed = JobSpec {
        env: [("SECRET".into(), "y".into())].into(),
        ..job
    };
    let refused = ledger.store.submit(submission(changed)).await;
    assert_eq!(refused, Err(SubmitError::KeyConflict(first.number)));
    let include = Include {
        env: true,
        ..Include::default()
    };
    let read = ledger.store.job(JobRef::Number(first.number), include);
    let env = read.await.unwrap().unwrap().env.unwrap();
    assert_eq!(env.get("SECRET").and_then(EnvValue::text), Some("x"));
    assert_eq!(ledger.get(other.number).await, other);
}
