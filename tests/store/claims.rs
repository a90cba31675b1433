//! Who gets a slot: bounds, order, fairness, and that nobody gets one twice.

use std::collections::BTreeSet;

use cc_executor::{
    job::{JobChange, JobId, JobRef, JobSpec, JobState, QueueChange},
    store::{Fenced, Store, Submission},
};

use crate::ledger::*;

fn job_in(queue: &str, priority: i64) -> JobSpec {
    JobSpec {
        queue: queue.into(),
        priority,
        ..true_job()
    }
}

async fn set_queue(ledger: &Ledger, queue: &str, concurrency: i64) {
    sqlx::query("UPDATE queues SET concurrency = ? WHERE name = ?")
        .bind(concurrency)
        .bind(queue)
        .execute(&mut ledger.raw().await)
        .await
        .unwrap();
}

#[tokio::test]
async fn two_claims_have_one_winner() {
    let ledger = Ledger::new().await;
    let job = ledger.queued().await;
    let (a, b) = tokio::join!(ledger.claim(&["a"]), ledger.claim(&["b"]));
    let claims: Vec<_> = a.claims.into_iter().chain(b.claims).collect();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].number, job.number);
    assert_eq!((claims[0].attempt, claims[0].start_offset), (1, 0));
    assert_eq!(ledger.get(job.number).await.state, JobState::Running);
    assert!(ledger.claim(&["c"]).await.claims.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_claims_give_every_job_once() {
    let ledger = Ledger::new().await;
    let mut expected = BTreeSet::new();
    for _ in 0..60 {
        expected.insert(ledger.submit(job_in("interactive", 0)).await.number);
    }
    let claims = (0..20).map(|nth| {
        let store = ledger.store.clone();
        tokio::spawn(async move { claim_five(&store, nth).await })
    });
    let mut seen = BTreeSet::new();
    for claim in claims.collect::<Vec<_>>() {
        for number in claim.await.unwrap() {
            assert!(seen.insert(number), "job {number} was given twice");
        }
    }
    assert_eq!(seen, expected);
}

async fn claim_five(store: &Store, nth: usize) -> Vec<i64> {
    let offers = (0..5).map(|i| offer(&format!("shim-{nth}-{i}"))).collect();
    let claimed = store
        .claim(offers, BOOT.into(), INSTANCE.into())
        .await
        .unwrap();
    claimed.claims.iter().map(|claim| claim.number).collect()
}

#[tokio::test]
async fn a_queue_goes_by_priority_and_then_by_number() {
    let ledger = Ledger::new().await;
    let mut numbers = Vec::new();
    for priority in [0, 5, -1, 5, 0] {
        numbers.push(ledger.submit(job_in("interactive", priority)).await.number);
    }
    let mut order = Vec::new();
    for shim in ["a", "b", "c", "d", "e"] {
        order.push(ledger.claim(&[shim]).await.claims[0].number);
    }
    let expected = [1, 3, 0, 4, 2].map(|nth| numbers[nth]);
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_queue_never_has_more_running_than_slots() {
    let ledger = Ledger::new().await;
    set_queue(&ledger, "default", 2).await;
    for _ in 0..5 {
        ledger.queued().await;
    }
    let claimed = ledger.claim(&["a", "b", "c", "d"]).await;
    assert_eq!(claimed.claims.len(), 2);
    assert_eq!(claimed.wanting, 0, "the others lack a slot, not a shim");
    assert!(ledger.claim(&["c"]).await.claims.is_empty());

    let first = &claimed.claims[0];
    let fenced = ledger.store.finish(success(first.number, 1)).await.unwrap();
    assert_eq!(fenced, Fenced::Applied);
    let claimed = ledger.claim(&["c", "d"]).await;
    assert_eq!(claimed.claims.len(), 1);
    assert_eq!(claimed.claims[0].shim, "c");
}

#[tokio::test]
async fn a_paused_job_keeps_its_slot() {
    let ledger = Ledger::new().await;
    set_queue(&ledger, "default", 1).await;
    let running = ledger.running("a").await;
    let told = ledger
        .store
        .paused(running.number, 1, "shim".into(), Default::default())
        .await;
    assert_eq!(told.unwrap(), Fenced::Applied);
    ledger.queued().await;
    assert!(ledger.claim(&["b"]).await.claims.is_empty());
}

#[tokio::test]
async fn what_lacks_only_a_shim_is_counted() {
    let ledger = Ledger::new().await;
    set_queue(&ledger, "default", 3).await;
    for _ in 0..5 {
        ledger.queued().await;
    }
    ledger.submit(job_in("interactive", 0)).await;
    let none = ledger.claim(&[]).await;
    assert_eq!((none.claims.len(), none.wanting), (0, 4));
    let one = ledger.claim(&["a"]).await;
    assert_eq!((one.claims.len(), one.wanting), (1, 3));
}

#[tokio::test]
async fn queues_take_turns_and_a_full_one_stops_no_other() {
    let ledger = Ledger::new().await;
    set_queue(&ledger, "default", 2).await;
    for _ in 0..4 {
        ledger.queued().await;
    }
    for _ in 0..2 {
        ledger.submit(job_in("interactive", 0)).await;
    }
    let mut queues = Vec::new();
    for shim in ["a", "b", "c", "d", "e"] {
        let claimed = ledger.claim(&[shim]).await;
        queues.extend(claimed.claims.into_iter().map(|claim| claim.job.queue));
    }
    assert_eq!(queues.len(), 4);
    assert_ne!(queues[0], queues[1]);
    assert_ne!(queues[2], queues[3]);
}

/// 100 queues with short jobs, and one job in a queue that was empty: it is next, whatever the numbers
/// and priorities of the others.
#[tokio::test]
async fn a_queue_that_was_empty_is_next() {
    let ledger = Ledger::new().await;
    let jobs = (0..100).flat_map(|nth| vec![submission(job_in(&format!("q{nth}"), 1000)); 3]);
    for nth in 0..100 {
        let change = QueueChange {
            name: format!("q{nth}"),
            concurrency: Some(1),
            weight: Some(1000),
            ..QueueChange::default()
        };
        ledger.store.set_queue(change).await.unwrap();
    }
    let jobs = jobs.map(|job| Submission {
        id: JobId(uuid::Uuid::now_v7()),
        ..job
    });
    ledger.store.submit_many(jobs.collect()).await.unwrap();
    let first = ledger.claim(&["a"]).await.claims.remove(0);
    let guest = ledger.submit(job_in("interactive", -1000)).await;
    let (ended, next) = tokio::join!(
        ledger.store.finish(success(first.number, 1)),
        ledger.claim(&["a"])
    );
    assert_eq!(ended.unwrap(), Fenced::Applied);
    assert_eq!(next.claims[0].number, guest.number);
    assert_eq!(next.wanting, 100, "and each of the others could use a shim");
}

/// A priority orders the jobs of one queue; it takes nothing from other queues.
#[tokio::test]
async fn priorities_of_one_queue_do_not_hold_up_another() {
    let ledger = Ledger::new().await;
    set_queue(&ledger, "default", 100).await;
    for nth in 0..10 {
        ledger.submit(job_in("default", 1_000_000 + nth)).await;
    }
    for _ in 0..10 {
        ledger.submit(job_in("interactive", -5)).await;
    }
    for round in 0..10 {
        let claimed = ledger
            .claim(&[&format!("a{round}"), &format!("b{round}")])
            .await;
        let queues: BTreeSet<_> = claimed.claims.iter().map(|c| &*c.job.queue).collect();
        assert_eq!(queues.len(), 2, "round {round}");
    }
}

#[tokio::test]
async fn jobs_that_are_claimed_together_are_the_first_of_their_queues_in_order() {
    let ledger = Ledger::new().await;
    set_queue(&ledger, "default", 5).await;
    let mut expected = Vec::new();
    for (queue, priorities) in [
        ("default", [0, 2, 0, 1, 2, 3]),
        ("interactive", [1, 1, 0, 7, 0, 1]),
    ] {
        for priority in priorities {
            let number = ledger.submit(job_in(queue, priority)).await.number;
            expected.push((queue, -priority, number));
        }
    }
    expected.sort_unstable();
    let shims: Vec<_> = (0..20).map(|nth| format!("s{nth}")).collect();
    let shims: Vec<_> = shims.iter().map(String::as_str).collect();
    let claimed = ledger.claim(&shims[..7]).await.claims;
    let rest = ledger.claim(&shims[7..]).await;
    assert_eq!((claimed.len(), rest.claims.len(), rest.wanting), (7, 4, 0));
    for (queue, slots) in [("default", 5), ("interactive", 6)] {
        let of_queue = expected.iter().filter(|(name, ..)| *name == queue);
        let expected: Vec<_> = of_queue.map(|(.., number)| *number).take(slots).collect();
        let claims = claimed.iter().chain(&rest.claims);
        let got = claims.filter(|claim| claim.job.queue == queue);
        assert_eq!(got.map(|claim| claim.number).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn a_job_that_moves_to_another_queue_takes_its_place_there() {
    let ledger = Ledger::new().await;
    let moved = ledger.submit(job_in("default", 0)).await;
    let stays = ledger.submit(job_in("interactive", 0)).await;
    let full = QueueChange {
        name: "default".into(),
        paused: Some(true),
        ..QueueChange::default()
    };
    ledger.store.set_queue(full).await.unwrap();
    let change = JobChange {
        queue: Some("interactive".into()),
        ..JobChange::default()
    };
    let job = JobRef::Number(moved.number);
    ledger.store.update(job, change, "test").await.unwrap();
    let claimed = ledger.claim(&["a", "b", "c"]).await;
    let numbers: Vec<_> = claimed.claims.iter().map(|claim| claim.number).collect();
    assert_eq!(numbers, [moved.number, stays.number]);
}

#[tokio::test]
async fn a_paused_queue_starts_nothing() {
    let ledger = Ledger::new().await;
    ledger.queued().await;
    sqlx::query("UPDATE queues SET paused = 1 WHERE name = 'default'")
        .execute(&mut ledger.raw().await)
        .await
        .unwrap();
    let claimed = ledger.claim(&["a"]).await;
    assert_eq!((claimed.claims.len(), claimed.wanting), (0, 0));
}

#[tokio::test]
async fn a_claim_carries_the_whole_job() {
    let ledger = Ledger::new().await;
    let job = JobSpec {
        cwd: Some("/tmp/\u{e9}".into()),
        env: [("A".into(), "1\n".into()), ("B".into(), "\u{1F980}".into())].into(),
        stdin: Some("in\0put".into()),
        name: Some("n\0me".into()),
        labels: [("k".into(), "v".into())].into(),
        timeout_s: Some(cc_executor::job::Seconds(0.1)),
        idempotency_key: Some("key".into()),
        ..true_job()
    };
    let submitted = ledger.submit(job.clone()).await;
    let claim = ledger.claim(&["a"]).await.claims.remove(0);
    assert_eq!(claim.job, job);
    assert_eq!(
        (claim.id, claim.job.cwd),
        (submitted.id, Some("/tmp/\u{e9}".into()))
    );
}

#[tokio::test]
async fn a_busy_shim_gets_nothing_and_costs_the_others_nothing() {
    let ledger = Ledger::new().await;
    ledger.running("a").await;
    let waiting = ledger.queued().await;
    let offers = vec![offer("a")];
    let (busy, free) = tokio::join!(
        ledger.store.claim(offers, BOOT.into(), INSTANCE.into()),
        ledger.claim(&["b"])
    );
    assert!(busy.is_err());
    assert_eq!(free.claims[0].number, waiting.number);
}
