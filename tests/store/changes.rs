//! Jobs that users change before they start, and delete when they are final.

use cc_executor::{
    job::{Chunk, Job, JobChange, JobNumber, JobRef, JobSpec, Micros, StopCause, Stream},
    store::{Deleted, DeletedJob, Fenced, Finish, Include, OutputPlacement, SegmentRow, Updated},
};

use crate::ledger::*;

async fn update(ledger: &Ledger, number: JobNumber, change: JobChange) -> Updated {
    let job = JobRef::Number(number);
    ledger.store.update(job, change, "test").await.unwrap()
}

async fn delete(ledger: &Ledger, number: JobNumber) -> Deleted {
    ledger.store.delete(JobRef::Number(number)).await.unwrap()
}

async fn deleted(ledger: &Ledger, number: JobNumber) -> DeletedJob {
    match delete(ledger, number).await {
        Deleted::Done(deleted) => *deleted,
        other => panic!("{other:?}"),
    }
}

async fn rows(ledger: &Ledger, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(count))
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap()
}

fn with_env(value: &str) -> JobSpec {
    JobSpec {
        env: [("A".into(), value.into())].into(),
        ..true_job()
    }
}

/// A job that has ended with a row of output and a row of a segment.
async fn ended(ledger: &Ledger, job: JobSpec) -> JobNumber {
    let number = ledger.submit(job).await.number;
    let claim = ledger.claim(&["shim"]).await.claims.remove(0);
    assert_eq!(claim.number, number);
    let row = SegmentRow {
        number,
        attempt: 1,
        first_offset: 0,
        end_offset: 5,
        file_bytes: 100,
        hash_state: vec![1],
        counts: None,
    };
    ledger.store.segment_read(row.clone()).await.unwrap();
    let rows = vec![SegmentRow {
        first_offset: 5,
        end_offset: 9,
        ..row
    }];
    let kept = OutputPlacement::Segments {
        rows,
        gaps: Vec::new(),
    };
    let finish = Finish {
        kept,
        end_offset: 9,
        ..success(number, 1)
    };
    assert_eq!(ledger.store.finish(finish).await, Ok(Fenced::Applied));
    number
}

#[tokio::test]
async fn a_job_that_waits_is_changed_and_its_order_with_it() {
    let ledger = Ledger::new().await;
    let (first, second) = (ledger.queued().await, ledger.queued().await);
    let change = JobChange {
        priority: Some(9),
        name: Some(Some("urgent\0".into())),
        run_at: None,
        labels: Some([("k".into(), "v".into())].into()),
        queue: Some("interactive".into()),
        policy: None,
    };
    let Updated::Done(told) = update(&ledger, second.number, change).await else {
        panic!("not changed");
    };
    let expected = Job {
        spec: JobSpec {
            priority: 9,
            name: Some("urgent\0".into()),
            labels: [("k".into(), "v".into())].into(),
            queue: "interactive".into(),
            ..second.spec.clone()
        },
        ..second.clone()
    };
    assert_eq!(told, expected);
    assert_eq!(ledger.get(second.number).await, expected);
    let Updated::Done(told) = update(&ledger, second.number, JobChange::default()).await else {
        panic!("not changed");
    };
    assert_eq!(told, expected, "what is not named stays");
    let cleared = JobChange {
        name: Some(None),
        ..JobChange::default()
    };
    update(&ledger, second.number, cleared).await;
    assert_eq!(ledger.get(second.number).await.spec.name, None);
    let order: Vec<_> = ledger.claim(&["a", "b"]).await.claims;
    assert_eq!(order[0].number, second.number, "it overtakes");
    assert_eq!(order[1].number, first.number);
}

#[tokio::test]
async fn a_change_leaves_the_key_with_what_was_submitted() {
    let ledger = Ledger::new().await;
    let keyed = || JobSpec {
        idempotency_key: Some("k".into()),
        ..true_job()
    };
    let job = ledger.submit(keyed()).await;
    let change = JobChange {
        priority: Some(9),
        ..JobChange::default()
    };
    update(&ledger, job.number, change).await;
    let again = ledger.store.submit(submission(keyed())).await.unwrap();
    assert_eq!((again.created, again.job.spec.priority), (false, 9));
}

#[tokio::test]
async fn only_what_waits_is_changed_and_only_into_a_queue_that_exists() {
    let ledger = Ledger::new().await;
    let change = || JobChange {
        priority: Some(1),
        ..JobChange::default()
    };
    assert_eq!(update(&ledger, 77, change()).await, Updated::NotFound);
    let claim = ledger.running("a").await;
    assert!(matches!(
        update(&ledger, claim.number, change()).await,
        Updated::Started(_)
    ));
    // Nothing has run of a void attempt.
    ledger.store.void(claim.number, 1, Micros(5)).await.unwrap();
    assert!(matches!(
        update(&ledger, claim.number, change()).await,
        Updated::Done(_)
    ));
    let nowhere = JobChange {
        queue: Some("nowhere".into()),
        priority: Some(5),
        ..change()
    };
    let refused = update(&ledger, claim.number, nowhere).await;
    assert_eq!(refused, Updated::UnknownQueue("nowhere".into()));
    let claim = ledger.claim(&["b"]).await.claims.remove(0);
    ledger
        .store
        .finish(success(claim.number, claim.attempt))
        .await
        .unwrap();
    assert!(matches!(
        update(&ledger, claim.number, change()).await,
        Updated::Started(_)
    ));
    assert_eq!(ledger.get(claim.number).await.spec.priority, 1);
}

#[tokio::test]
async fn a_deleted_job_leaves_nothing_but_its_events() {
    let ledger = Ledger::new().await;
    let number = ended(&ledger, with_env("secret")).await;
    let before = ledger.get(number).await;
    let deleted = deleted(&ledger, number).await;
    assert_eq!(
        (deleted.job, deleted.segments),
        (before, vec![(1, 0), (1, 5)])
    );
    for table in [
        "jobs",
        "attempts",
        "segments",
        "output_chunks",
        "environments",
    ] {
        assert_eq!(rows(&ledger, table).await, 0, "{table}");
    }
    assert_eq!(ledger.states(number).await.len(), 3);
    let gone = ledger.store.job(JobRef::Number(number), Include::default());
    assert_eq!(gone.await.unwrap(), None);
    assert_eq!(delete(&ledger, number).await, Deleted::NotFound);
    // Neither now nor after a restart is the number given again.
    let ledger = ledger.reopen().await;
    assert_eq!(ledger.queued().await.number, number + 1);
}

#[tokio::test]
async fn rows_of_output_and_marks_of_void_attempts_are_named_too() {
    let ledger = Ledger::new().await;
    let claim = ledger.running("a").await;
    ledger.store.void(claim.number, 1, Micros(5)).await.unwrap();
    let claim = ledger.claim(&["b"]).await.claims.remove(0);
    let chunk = Chunk {
        offset: 0,
        stream: Stream::Stdout,
        attempt: 2,
        at: Micros(1),
        data: b"text".to_vec(),
    };
    let kept = OutputPlacement::Rows {
        chunks: vec![chunk],
        gaps: Vec::new(),
    };
    let finish = Finish {
        kept,
        end_offset: 4,
        ..success(claim.number, 2)
    };
    ledger.store.finish(finish).await.unwrap();
    assert_eq!(
        deleted(&ledger, claim.number).await.segments,
        [(1, 0), (2, 0)]
    );
    assert_eq!(rows(&ledger, "output_chunks").await, 0);
}

#[tokio::test]
async fn an_environment_stays_while_anybody_uses_it() {
    let ledger = Ledger::new().await;
    let first = ended(&ledger, with_env("shared")).await;
    let second = ended(&ledger, with_env("shared")).await;
    deleted(&ledger, first).await;
    assert_eq!(rows(&ledger, "environments").await, 1);
    // One that comes in the same commit uses it again.
    let (gone, fresh) = tokio::join!(
        ledger.store.delete(JobRef::Number(second)),
        ledger.store.submit(submission(with_env("shared"))),
    );
    assert!(matches!(gone, Ok(Deleted::Done(_))));
    let fresh = fresh.unwrap().job;
    assert_eq!(
        (fresh.env_names, rows(&ledger, "environments").await),
        (vec!["A".into()], 1)
    );
}

#[tokio::test]
async fn only_what_is_final_is_deleted() {
    let ledger = Ledger::new().await;
    let running = ledger.running("a").await;
    let queued = ledger.queued().await;
    for number in [running.number, queued.number] {
        let refused = delete(&ledger, number).await;
        assert!(matches!(refused, Deleted::NotFinal(_)), "{refused:?}");
    }
    let job = JobRef::Number(queued.number);
    ledger
        .store
        .request_stop(job, wish(StopCause::Cancel))
        .await
        .unwrap();
    assert_eq!(deleted(&ledger, queued.number).await.segments, []);
    // What comes late about it meets nobody.
    assert_eq!(
        ledger.store.finish(success(queued.number, 1)).await,
        Ok(Fenced::Stale)
    );
    ledger
        .store
        .finish(success(running.number, 1))
        .await
        .unwrap();
    deleted(&ledger, running.number).await;
    assert_eq!(
        ledger.store.started(started(&running)).await,
        Ok(Fenced::Stale)
    );
    assert_eq!(
        ledger.store.finish(success(running.number, 1)).await,
        Ok(Fenced::Stale)
    );
}

#[tokio::test]
async fn a_key_is_free_again_when_its_job_is_deleted() {
    let ledger = Ledger::new().await;
    let keyed = |priority| JobSpec {
        idempotency_key: Some("k".into()),
        priority,
        ..true_job()
    };
    let number = ended(&ledger, keyed(0)).await;
    // In one commit: the submit meets the job that goes, or comes behind it.
    let (gone, again) = tokio::join!(
        ledger.store.delete(JobRef::Number(number)),
        ledger.store.submit(submission(keyed(0))),
    );
    assert!(matches!(gone, Ok(Deleted::Done(_))));
    let again = again.unwrap();
    assert!(again.created && again.job.number > number);
}
