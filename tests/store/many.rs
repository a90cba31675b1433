//! Batches of submissions: whole or not at all, in order, once per key, and stored exactly.

use cc_executor::{
    job::{Command, EnvValue, JobRef, JobSpec, JobState, Seconds, SecretName, Umask},
    store::{BatchRefused, Include, Submission, SubmitError},
};
use proptest::prelude::*;

use crate::ledger::*;

fn keyed(key: &str, priority: i64) -> Submission {
    submission(JobSpec {
        idempotency_key: Some(key.into()),
        priority,
        ..true_job()
    })
}

fn in_queue(queue: &str) -> Submission {
    submission(JobSpec {
        queue: queue.into(),
        env: [("SECRET".into(), queue.into())].into(),
        ..true_job()
    })
}

fn refused(index: usize, error: SubmitError) -> BatchRefused {
    BatchRefused {
        index: Some(index),
        error,
    }
}

async fn rows(ledger: &Ledger) -> i64 {
    sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM environments)
              + (SELECT count(*) FROM events)",
    )
    .fetch_one(&mut ledger.raw().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn numbers_ascend_in_the_order_of_the_batch() {
    let ledger = Ledger::new().await;
    let first = ledger.queued().await;
    let batch: Vec<_> = (0..2500)
        .map(|nth| {
            submission(JobSpec {
                // Several statements' worth.
                stdin: Some("x".repeat(1000)),
                priority: nth,
                ..true_job()
            })
        })
        .collect();
    let ids: Vec<_> = batch.iter().map(|one| one.id).collect();
    let taken = ledger.store.submit_many(batch).await.unwrap();
    for (nth, (taken, id)) in taken.iter().zip(ids).enumerate() {
        assert_eq!(taken.number, first.number + 1 + nth as i64);
        assert_eq!(
            (taken.id, taken.state, taken.created),
            (id, JobState::Queued, true)
        );
    }
    assert_eq!(ledger.get(taken[2499].number).await.spec.priority, 2499);
    assert_eq!(ledger.states(taken[7].number).await, [JobState::Queued]);
    assert_eq!(ledger.store.submit_many(Vec::new()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn one_refused_entry_stores_nothing_of_its_batch() {
    let ledger = Ledger::new().await;
    let batch = vec![in_queue("default"), keyed("k", 0), in_queue("nowhere")];
    let answer = ledger.store.submit_many(batch).await;
    assert_eq!(
        answer,
        Err(refused(2, SubmitError::UnknownQueue("nowhere".into())))
    );
    assert_eq!(rows(&ledger).await, 0);
    // Its key was never taken.
    assert!(ledger.store.submit(keyed("k", 1)).await.unwrap().created);
}

#[tokio::test]
async fn a_refused_batch_does_not_touch_its_neighbours_in_the_same_commit() {
    let ledger = Ledger::new().await;
    let (bad, good, single) = tokio::join!(
        ledger
            .store
            .submit_many(vec![keyed("k", 0), in_queue("nowhere")]),
        ledger
            .store
            .submit_many(vec![keyed("k", 1), in_queue("default")]),
        ledger.store.submit(keyed("k", 1)),
    );
    assert_eq!(bad.unwrap_err().index, Some(1));
    let good = good.unwrap();
    assert_eq!((good[0].number, good[1].number), (1, 2));
    let single = single.unwrap();
    assert_eq!((single.job.number, single.created), (1, false));
    assert_eq!(single.job.spec.priority, 1);
}

#[tokio::test]
async fn a_key_names_one_job_within_a_batch_and_across() {
    let ledger = Ledger::new().await;
    let batch = vec![keyed("a", 0), keyed("b", 0), keyed("a", 0)];
    let taken = ledger.store.submit_many(batch).await.unwrap();
    assert_eq!(taken[0].number, taken[2].number);
    assert_eq!(
        taken.iter().map(|t| t.created).collect::<Vec<_>>(),
        [true, true, false]
    );
    ledger.claim(&["shim"]).await;

    let batch = vec![keyed("c", 0), keyed("a", 0)];
    let again = ledger.store.submit_many(batch).await.unwrap();
    assert_eq!(
        (again[1].number, again[1].created),
        (taken[0].number, false)
    );
    assert_eq!(again[1].state, JobState::Running, "in whatever state");

    let batch = vec![keyed("d", 0), keyed("a", 7)];
    let conflict = refused(1, SubmitError::KeyConflict(taken[0].number));
    assert_eq!(ledger.store.submit_many(batch).await, Err(conflict));
    let batch = vec![true_job(); 2].into_iter().map(submission);
    let batch = batch.chain([keyed("e", 0), keyed("e", 7)]).collect();
    let conflict = refused(3, SubmitError::KeyConflictWithin(2));
    assert_eq!(ledger.store.submit_many(batch).await, Err(conflict));
    assert!(ledger.store.submit(keyed("d", 7)).await.unwrap().created);
    assert!(ledger.store.submit(keyed("e", 7)).await.unwrap().created);
}

#[tokio::test]
async fn a_conflict_with_a_neighbour_of_the_same_commit_names_its_number() {
    let ledger = Ledger::new().await;
    let (first, second) = tokio::join!(
        ledger
            .store
            .submit_many(vec![in_queue("default"), keyed("k", 0)]),
        ledger.store.submit(keyed("k", 1)),
    );
    let number = first.unwrap()[1].number;
    assert_eq!(second, Err(SubmitError::KeyConflict(number)));
}

#[tokio::test]
async fn an_environment_is_stored_once_for_a_batch() {
    let ledger = Ledger::new().await;
    let batch = (0..100).map(|_| in_queue("default")).collect();
    ledger.store.submit_many(batch).await.unwrap();
    assert_eq!(rows(&ledger).await, 100 + 1 + 100);
}

/// Text as hostile as it gets: NUL, escapes, quotes, directions, astral characters.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\0".to_owned()),
        Just("\\u0000".to_owned()),
        Just("\"'\\/".to_owned()),
        Just("\u{1b}[2J\u{9b}\u{7f}\n\r\t\u{8}".to_owned()),
        Just("\u{2028}\u{202e}\u{feff}\u{fffd}\u{ffff}".to_owned()),
        "[a-z ]{0,8}",
        "\\PC{0,4}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// The same without NUL, for what a process is given, and not empty.
fn word() -> impl Strategy<Value = String> {
    text().prop_map(|text| format!("/{}", text.replace('\0', "")))
}

fn env_value() -> impl Strategy<Value = EnvValue> {
    let name = "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,9}";
    let secret = name.prop_map(|name| SecretName::read(&name).expect("a name"));
    prop_oneof![
        text().prop_map(EnvValue::Text),
        secret.prop_map(EnvValue::Secret)
    ]
}

fn seconds() -> impl Strategy<Value = Seconds> {
    prop_oneof![
        0.0..1e8,
        Just(0.1),
        Just(1.0 / 3.0),
        (0..1000u32).prop_map(f64::from)
    ]
    .prop_map(Seconds)
}

prop_compose! {
    fn jobs()(
        argv in proptest::collection::vec(word(), 1..4), line in proptest::option::of(word()),
        env in proptest::collection::btree_map(text(), env_value(), 0..3),
        labels in proptest::collection::btree_map(text(), text(), 0..3),
        name in proptest::option::of(text()), stdin in proptest::option::of(text()),
        key in proptest::option::of("[a-z]{30}\0?"), cwd in word(), priority in any::<i32>(),
        umask in (0..0o777u32).prop_map(Umask), interactive in any::<bool>(),
        timeout_s in proptest::option::of(seconds().prop_filter("above 0", |s| s.0 > 0.0)), grace_s in seconds(),
    ) -> JobSpec {
        JobSpec {
            cwd: Some(cwd), env, labels, name, stdin, umask, interactive, timeout_s, grace_s,
            idempotency_key: key, priority: priority.into(),
            ..JobSpec::new(line.map_or(Command::Argv(argv), Command::Shell))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_is_stored_is_what_was_submitted(jobs in proptest::collection::vec(jobs(), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ledger = Ledger::new().await;
            let first = ledger.store.submit(submission(jobs[0].clone())).await.unwrap().job;
            assert_eq!(ledger.get(first.number).await, first);
            let batch = jobs[1..].iter().cloned().map(submission).collect();
            let taken = ledger.store.submit_many(batch).await.unwrap();
            let numbers = [first.number].into_iter().chain(taken.iter().map(|t| t.number));
            for (number, job) in numbers.zip(&jobs) {
                let include = Include { env: true, stdin: true, ..Include::default() };
                let stored = ledger.store.job(JobRef::Number(number), include).await;
                let stored = stored.unwrap().unwrap();
                assert_eq!(stored.env.as_ref(), Some(&job.env));
                assert_eq!(stored.stdin.as_ref(), Some(&job.stdin));
                assert_eq!(stored.stdin_bytes, job.stdin.as_ref().map(|s| s.len() as u64));
                assert_eq!(stored.spec, job.clone().without_secrets());
            }
        });
    }
}
