//! Lost attempts of jobs that run again: what is committed, and who is too late then.

use cc_executor::{
    job::{JobRef, JobSpec, JobState, Micros, OnLost, Reason, StopCause, Survivor},
    store::{Fenced, Finish, StopRequested},
};

use crate::ledger::*;

fn again() -> JobSpec {
    JobSpec {
        on_lost: OnLost::Retry,
        ..true_job()
    }
}

fn survivor(pid: i32) -> Survivor {
    Survivor {
        pid,
        comm: "left".to_owned(),
    }
}

#[tokio::test]
async fn the_fourth_loss_is_the_last() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(again()).await.number;
    for attempt in 1..=4 {
        let claim = ledger.claim(&["a"]).await.claims.remove(0);
        assert_eq!((claim.number, claim.attempt), (number, attempt));
        let end = Finish {
            survivors: vec![survivor(attempt as i32)],
            ..lost(number, attempt)
        };
        let expected = if attempt < 4 {
            Fenced::Requeued
        } else {
            Fenced::Applied
        };
        assert_eq!(ledger.store.finish(end).await, Ok(expected));
        let job = ledger.get(number).await;
        let state = if attempt < 4 {
            JobState::Queued
        } else {
            JobState::Failed
        };
        assert_eq!((job.state, job.attempts), (state, attempt));
        assert_eq!(job.reason.is_some(), attempt == 4);
    }
    let job = ledger.get(number).await;
    assert_eq!(job.reason, Some(Reason::Lost));
    let left: Vec<_> = (1..=4).map(survivor).collect();
    assert_eq!(job.survivors, left, "those of all attempts");
    let changes = ledger.store.changes(number, 0).await.unwrap();
    let losses = changes
        .iter()
        .filter(|change| change.reason == Some(Reason::Lost));
    assert_eq!(losses.count(), 4, "each is told with its reason");
    assert_eq!(changes.len(), 9);
}

#[tokio::test]
async fn other_losses_are_another_jobs() {
    let ledger = Ledger::new().await;
    for _ in 0..5 {
        let number = ledger.submit(again()).await.number;
        let claim = ledger.claim(&["a"]).await.claims.remove(0);
        assert_eq!(claim.number, number);
        assert_eq!(
            ledger.store.finish(lost(number, 1)).await,
            Ok(Fenced::Requeued)
        );
        let wished = ledger
            .store
            .request_stop(JobRef::Number(number), wish(StopCause::Cancel));
        assert!(matches!(wished.await, Ok(StopRequested::Withdrawn(_))));
    }
}

#[tokio::test]
async fn what_a_lost_attempt_still_says_comes_too_late() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(again()).await.number;
    let first = ledger.claim(&["a"]).await.claims.remove(0);
    let store = &ledger.store;
    assert_eq!(store.finish(lost(number, 1)).await, Ok(Fenced::Requeued));
    for claimed in [false, true] {
        if claimed {
            ledger.claim(&["b"]).await;
        }
        let before = ledger.get(number).await;
        assert_eq!(store.finish(success(number, 1)).await, Ok(Fenced::Stale));
        assert_eq!(store.finish(lost(number, 1)).await, Ok(Fenced::Stale));
        assert_eq!(store.void(number, 1, Micros(1)).await, Ok(Fenced::Stale));
        assert_eq!(store.started(started(&first)).await, Ok(Fenced::Stale));
        assert_eq!(ledger.get(number).await, before);
    }
    assert_eq!(store.finish(success(number, 2)).await, Ok(Fenced::Applied));
}

#[tokio::test]
async fn a_loss_and_the_next_claim_share_a_commit() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(again()).await.number;
    ledger.claim(&["a"]).await;
    let (end, claimed) = tokio::join!(ledger.store.finish(lost(number, 1)), ledger.claim(&["b"]),);
    assert_eq!(end, Ok(Fenced::Requeued));
    assert_eq!(
        (claimed.claims[0].number, claimed.claims[0].attempt),
        (number, 2)
    );
}

#[tokio::test]
async fn one_that_is_to_be_stopped_is_cancelled() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(again()).await.number;
    ledger.claim(&["a"]).await;
    let wished = ledger
        .store
        .request_stop(JobRef::Number(number), wish(StopCause::Kill));
    assert!(matches!(wished.await, Ok(StopRequested::ToShim { .. })));
    assert_eq!(
        ledger.store.finish(lost(number, 1)).await,
        Ok(Fenced::Applied)
    );
    let job = ledger.get(number).await;
    assert_eq!((job.state, job.reason), (JobState::Cancelled, None));
    assert!(job.stop.is_some() && job.finished_at.is_some());
    assert!(ledger.claim(&["b"]).await.claims.is_empty());
}

/// A late rescue of the first attempt and the end of the second may share a commit.
#[tokio::test]
async fn a_stale_end_in_the_same_commit_hides_no_other() {
    for stale_first in [true, false] {
        let ledger = Ledger::new().await;
        let number = ledger.submit(again()).await.number;
        ledger.claim(&["a"]).await;
        let store = &ledger.store;
        assert_eq!(store.finish(lost(number, 1)).await, Ok(Fenced::Requeued));
        assert_eq!(ledger.claim(&["b"]).await.claims[0].attempt, 2);
        let (stale, true_end) = (lost(number, 1), success(number, 2));
        let (stale, applied) = match stale_first {
            true => tokio::join!(store.finish(stale), store.finish(true_end)),
            false => {
                let (applied, stale) = tokio::join!(store.finish(true_end), store.finish(stale));
                (stale, applied)
            }
        };
        assert_eq!((stale, applied), (Ok(Fenced::Stale), Ok(Fenced::Applied)));
        assert_eq!(ledger.get(number).await.state, JobState::Succeeded);
    }
}

#[tokio::test]
async fn one_attempt_ends_once_in_a_commit() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(again()).await.number;
    ledger.claim(&["a"]).await;
    let store = &ledger.store;
    let (first, second) = tokio::join!(
        store.finish(success(number, 1)),
        store.finish(lost(number, 1))
    );
    assert_eq!((first, second), (Ok(Fenced::Applied), Ok(Fenced::Stale)));
    assert_eq!(ledger.get(number).await.state, JobState::Succeeded);
}

#[tokio::test]
async fn a_pause_outlives_lost_and_void_attempts_until_it_is_withdrawn() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(again()).await.number;
    let store = &ledger.store;
    let pause =
        |pause| store.request_pause(JobRef::Number(number), pause, "me".to_owned(), Micros(9));
    assert!(!ledger.claim(&["a"]).await.claims[0].paused);
    assert!(pause(true).await.is_ok());
    assert_eq!(store.finish(lost(number, 1)).await, Ok(Fenced::Requeued));
    assert!(ledger.claim(&["b"]).await.claims[0].paused);
    assert_eq!(store.void(number, 2, Micros(1)).await, Ok(Fenced::Applied));
    assert!(ledger.claim(&["c"]).await.claims[0].paused);
    assert_eq!(store.finish(lost(number, 3)).await, Ok(Fenced::Requeued));
    assert!(pause(false).await.is_ok());
    assert!(!ledger.claim(&["d"]).await.claims[0].paused);
}
