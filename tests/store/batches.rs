//! What arrives together shares a transaction, and nobody is dragged down by a neighbour.

use cc_executor::{
    job::{JobState, Reason},
    store::{Fenced, Finish, StoreError},
};

use crate::ledger::*;

/// A finish that the table's CHECKs refuse: success has no reason.
fn impossible(number: i64) -> Finish {
    Finish {
        reason: Some(Reason::Lost),
        ..success(number, 1)
    }
}

#[tokio::test]
async fn a_slot_freed_in_a_batch_is_filled_in_it() {
    let ledger = Ledger::new().await;
    sqlx::query("UPDATE queues SET concurrency = 1")
        .execute(&mut ledger.raw().await)
        .await
        .unwrap();
    let first = ledger.running("a").await;
    let second = ledger.queued().await;
    let (finished, claimed) = tokio::join!(
        ledger.store.finish(success(first.number, 1)),
        // The very shim that has just become free.
        ledger.claim(&["a"])
    );
    assert_eq!(finished.unwrap(), Fenced::Applied);
    assert_eq!(claimed.claims[0].number, second.number);
}

#[tokio::test]
async fn one_refused_write_does_not_lose_the_others() {
    let ledger = Ledger::new().await;
    let (a, b) = (ledger.running("a").await, ledger.running("b").await);
    let (bad, good, submitted) = tokio::join!(
        ledger.store.finish(impossible(a.number)),
        ledger.store.finish(success(b.number, 1)),
        ledger.queued(),
    );
    assert!(matches!(bad, Err(StoreError::Database(_))), "{bad:?}");
    assert_eq!(good.unwrap(), Fenced::Applied);
    assert_eq!(ledger.get(a.number).await.state, JobState::Running);
    assert_eq!(ledger.get(b.number).await.state, JobState::Succeeded);
    assert_eq!(ledger.get(submitted.number).await.state, JobState::Queued);
    assert_eq!(
        ledger.states(a.number).await,
        [JobState::Queued, JobState::Running],
        "a refused write leaves no event behind"
    );
}

#[tokio::test]
async fn the_same_end_twice_in_one_batch_is_stale_the_second_time() {
    let ledger = Ledger::new().await;
    let claim = ledger.running("a").await;
    let (first, second) = tokio::join!(
        ledger.store.finish(success(claim.number, 1)),
        ledger.store.finish(lost(claim.number, 1)),
    );
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (Fenced::Applied, Fenced::Stale)
    );
    assert_eq!(ledger.get(claim.number).await.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_lives_at_once() {
    let ledger = Ledger::new().await;
    let lives: Vec<_> = (0..300)
        .map(|nth| {
            let store = ledger.store.clone();
            tokio::spawn(async move {
                store.submit(submission(true_job())).await.unwrap();
                // Whichever job this shim gets, it brings it to its end; its slot may be needed
                // by the next one.
                loop {
                    let offers = vec![offer(&format!("shim-{nth}"))];
                    let claimed = store
                        .claim(offers, BOOT.into(), INSTANCE.into())
                        .await
                        .unwrap();
                    let Some(claim) = claimed.claims.first() else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    assert_eq!(
                        store.started(started(claim)).await.unwrap(),
                        Fenced::Applied
                    );
                    let end = success(claim.number, claim.attempt);
                    assert_eq!(store.finish(end).await.unwrap(), Fenced::Applied);
                    return claim.number;
                }
            })
        })
        .collect();
    for life in lives {
        let number = life.await.unwrap();
        let expected = [JobState::Queued, JobState::Running, JobState::Succeeded];
        assert_eq!(ledger.states(number).await, expected);
    }
    let counts = ledger.store.counts().await.unwrap();
    assert_eq!(counts, [(JobState::Succeeded, 300)].into());
}

#[tokio::test]
async fn a_closed_ledger_takes_nothing_and_has_everything() {
    let ledger = Ledger::new().await;
    let (job, ()) = tokio::join!(ledger.queued(), ledger.store.close());
    let refused = ledger.store.submit(submission(true_job())).await;
    assert_eq!(refused, Err(StoreError::Stopping.into()));
    assert_eq!(
        ledger.store.counts().await,
        Err(StoreError::Stopping),
        "readers too"
    );
    let wal = std::fs::metadata(ledger.path().with_extension("db-wal"));
    assert!(wal.map_or(0, |meta| meta.len()) == 0, "checkpointed");
    let ledger = ledger.reopen().await;
    assert_eq!(ledger.get(job.number).await, job);
}

/// Two writers that wait for the lock one behind the other would wait twice as long.
#[tokio::test]
async fn somebody_elses_lock_refuses_a_batch_at_once_and_then_all_goes_on() {
    let ledger = Ledger::new().await;
    let mut person = ledger.raw().await;
    let begin = sqlx::query("BEGIN IMMEDIATE").execute(&mut person).await;
    begin.unwrap();
    let began = std::time::Instant::now();
    let [a, b, c] = [(); 3].map(|()| ledger.store.submit(submission(true_job())));
    let (a, b, c) = tokio::join!(a, b, c);
    for refused in [a, b, c] {
        let Err(error) = refused else {
            panic!("written in spite of the lock");
        };
        assert!(error.to_string().contains("locked"), "{error}");
    }
    assert!(began.elapsed().as_secs() < 10, "each waited by itself");
    assert!(!ledger.store.failed().is_cancelled());
    let end = sqlx::query("ROLLBACK").execute(&mut person).await;
    end.unwrap();
    assert_eq!(ledger.queued().await.state, JobState::Queued);
}
