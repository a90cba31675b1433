//! Queues in the ledger: made, changed, counted, taken away, and how they share shims.

use std::collections::BTreeMap;

use cc_executor::{
    job::{JobSpec, Queue, QueueChange},
    store::{QueueDeleted, QueueSet, SubmitError},
};

use crate::ledger::*;

fn change(name: &str) -> QueueChange {
    QueueChange {
        name: name.into(),
        ..QueueChange::default()
    }
}

async fn set(ledger: &Ledger, change: QueueChange) -> Queue {
    match ledger.store.set_queue(change).await.unwrap() {
        QueueSet::Done(queue) => queue,
        QueueSet::TooMany => panic!("too many"),
    }
}

fn job_in(queue: &str) -> JobSpec {
    JobSpec {
        queue: queue.into(),
        ..true_job()
    }
}

async fn queue(ledger: &Ledger, name: &str) -> Option<Queue> {
    let queues = ledger.store.queues().await.unwrap();
    queues.into_iter().find(|queue| queue.name == name)
}

#[tokio::test]
async fn a_new_queue_is_like_default_and_keeps_what_is_not_changed() {
    let ledger = Ledger::new().await;
    let default = queue(&ledger, "default").await.unwrap();
    let new = set(&ledger, change("q")).await;
    assert_eq!(
        new,
        Queue {
            name: "q".into(),
            ..default.clone()
        }
    );
    let paused = QueueChange {
        paused: Some(true),
        weight: Some(7),
        ..change("q")
    };
    set(&ledger, paused).await;
    let fewer = QueueChange {
        concurrency: Some(2),
        ..change("default")
    };
    assert_eq!(set(&ledger, fewer).await.concurrency, 2);
    let told = set(&ledger, change("q")).await;
    assert_eq!(
        (told.concurrency, told.paused, told.weight),
        (default.concurrency, true, 7)
    );
    let ledger = ledger.reopen().await;
    assert_eq!(queue(&ledger, "q").await, Some(told));
    assert_eq!(
        queue(&ledger, "default").await.unwrap().concurrency,
        2,
        "also after a restart"
    );
}

#[tokio::test]
async fn a_queue_counts_its_jobs_and_stays_while_one_is_not_final() {
    let ledger = Ledger::new().await;
    set(
        &ledger,
        QueueChange {
            concurrency: Some(1),
            ..change("q")
        },
    )
    .await;
    for _ in 0..3 {
        ledger.submit(job_in("q")).await;
    }
    let claimed = ledger.claim(&["a", "b"]).await;
    assert_eq!(claimed.claims.len(), 1);
    let told = queue(&ledger, "q").await.unwrap();
    assert_eq!((told.running, told.queued), (1, 2));
    let delete = || ledger.store.delete_queue("q".into());
    assert_eq!(delete().await, Ok(QueueDeleted::HasJobs(3)));
    let number = claimed.claims[0].number;
    ledger.store.finish(success(number, 1)).await.unwrap();
    for number in [number + 1, number + 2] {
        let wish = wish(cc_executor::job::StopCause::Cancel);
        let job = cc_executor::job::JobRef::Number(number);
        ledger.store.request_stop(job, wish).await.unwrap();
    }
    assert_eq!(delete().await, Ok(QueueDeleted::Done));
    assert_eq!(delete().await, Ok(QueueDeleted::NotFound));
    let refused = ledger.store.submit(submission(job_in("q"))).await;
    assert_eq!(refused, Err(SubmitError::UnknownQueue("q".into())));
    assert_eq!(ledger.get(number).await.spec.queue, "q");
}

#[tokio::test]
async fn shims_are_shared_by_weight() {
    let ledger = Ledger::new().await;
    for (name, weight) in [("light", 1), ("heavy", 3)] {
        let (concurrency, weight) = (Some(100), Some(weight));
        set(
            &ledger,
            QueueChange {
                concurrency,
                weight,
                ..change(name)
            },
        )
        .await;
        for _ in 0..40 {
            ledger.submit(job_in(name)).await;
        }
    }
    let mut running: BTreeMap<String, u32> = BTreeMap::new();
    for nth in 0..40 {
        // One shim at a time: the share holds at every moment, not only in the end.
        let claimed = ledger.claim(&[&format!("shim-{nth}")]).await;
        *running
            .entry(claimed.claims[0].job.queue.clone())
            .or_default() += 1;
        let of = |queue: &str| f64::from(running.get(queue).copied().unwrap_or(0));
        assert!(
            (of("heavy") / 3.0 - of("light")).abs() <= 1.0,
            "{running:?}"
        );
    }
    assert_eq!(running, [("heavy".into(), 30), ("light".into(), 10)].into());
    let paused = QueueChange {
        paused: Some(true),
        ..change("heavy")
    };
    set(&ledger, paused).await;
    let claimed = ledger.claim(&["next"]).await;
    assert_eq!(claimed.claims[0].job.queue, "light");
}
