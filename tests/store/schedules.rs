//! Schedules in the ledger: each time is one job, whoever fires it and however often.

use cc_executor::{
    job::{CatchUp, JobNumber, JobRef, Micros, Overlap, PolicyDecision, Schedule, StopCause},
    store::{Fired, Firing, FiringCause, RunPlan, RunRefused, ScheduleSet, commands_digest},
};
use serde_json::json;

use crate::ledger::*;

fn schedule(name: &str, overlap: Overlap, next: i64) -> Schedule {
    let job = json!({"argv": ["true"]});
    Schedule {
        requester: None,
        name: name.into(),
        cron: "* * * * *".into(),
        timezone: "UTC".into(),
        overlap,
        catch_up: CatchUp::All,
        paused: false,
        job: job.as_object().unwrap().clone(),
        revision: 0,
        next_at: Some(Micros(next)),
        waiting: Vec::new(),
        last: None,
        runs: 0,
        skipped: 0,
        last_skip: None,
    }
}

async fn set(ledger: &Ledger, schedule: Schedule, keeps_next: bool) -> Schedule {
    match ledger
        .store
        .set_schedule(schedule, keeps_next)
        .await
        .unwrap()
    {
        ScheduleSet::Done(stored) => *stored,
        ScheduleSet::TooMany => panic!("too many"),
    }
}

/// What a look at `to - 1` decides about a schedule of every `1`.
fn look(schedule: &Schedule, to: i64) -> Firing {
    let from = schedule.next_at.unwrap();
    Firing {
        name: schedule.name.clone(),
        revision: schedule.revision,
        cause: FiringCause::Clock {
            from,
            to: Some(Micros(to)),
        },
        runs: (from.0..to).map(run).collect(),
        missed: None,
        at: Micros(to),
    }
}

fn run(at: i64) -> RunPlan {
    RunPlan {
        at: Micros(at),
        submission: Ok(submission(true_job())),
    }
}

async fn cancel(ledger: &Ledger, job: JobNumber) {
    let stop = wish(StopCause::Cancel);
    let stopped = ledger.store.request_stop(JobRef::Number(job), stop);
    stopped.await.unwrap();
}

fn times(fired: &Fired) -> Vec<i64> {
    fired.submitted.iter().map(|run| run.at.0).collect()
}

#[tokio::test]
async fn a_firing_takes_place_once_and_a_stale_one_does_nothing() {
    let ledger = Ledger::new().await;
    let stored = set(&ledger, schedule("s", Overlap::Replace, 5), false).await;
    let firing = look(&stored, 6);
    // Two servers, or one that was killed before it knew the answer.
    let (first, second) = tokio::join!(
        ledger.store.fire(firing.clone()),
        ledger.store.fire(firing.clone())
    );
    assert_eq!(times(&first.unwrap()), [5]);
    assert!(second.unwrap().stale);
    let ledger = ledger.reopen().await;
    assert!(ledger.store.fire(firing).await.unwrap().stale);
    let after = ledger.store.schedule("s").await.unwrap().unwrap();
    assert_eq!((after.next_at, after.runs), (Some(Micros(6)), 1));
    // Decided before a change.
    set(&ledger, after.clone(), true).await;
    assert!(ledger.store.fire(look(&after, 7)).await.unwrap().stale);
    // The clock went back, or the schedule was made anew: its times have jobs.
    ledger.store.delete_schedule("s".into()).await.unwrap();
    let anew = set(&ledger, schedule("s", Overlap::Replace, 4), false).await;
    let fired = ledger.store.fire(look(&anew, 7)).await.unwrap();
    assert_eq!((times(&fired), fired.skipped.len()), (vec![4, 6], 0));
    let job = ledger.get(fired.submitted[0].outcome.number).await;
    let schedule = job.schedule.unwrap();
    assert_eq!((schedule.name.as_str(), schedule.at), ("s", Micros(4)));
}

#[tokio::test]
async fn runs_that_wait_start_in_order_when_the_one_before_is_final() {
    let ledger = Ledger::new().await;
    let stored = set(&ledger, schedule("s", Overlap::Queue, 1), false).await;
    let many = Schedule::WAITING_MAX as i64;
    let fired = ledger.store.fire(look(&stored, many + 4)).await.unwrap();
    assert_eq!(times(&fired), [1]);
    assert_eq!(fired.skipped.len(), 2, "no more than the bound wait");
    let now = || Micros(many + 3);
    assert!(
        ledger
            .store
            .due_schedules(now(), 9)
            .await
            .unwrap()
            .is_empty()
    );
    let first = fired.submitted[0].outcome.number;
    assert_eq!(ledger.store.awaited_runs().await.unwrap(), [first]);
    cancel(&ledger, first).await;
    let due = ledger.store.due_schedules(now(), 9).await.unwrap();
    let waiting = Firing {
        cause: FiringCause::Waiting,
        runs: vec![run(2)],
        ..look(&due[0], many + 5)
    };
    let fired = ledger.store.fire(waiting.clone()).await.unwrap();
    assert_eq!(times(&fired), [2]);
    assert!(ledger.store.fire(waiting).await.unwrap().stale);
    // A time that comes while others wait goes behind them, also when the one before is final.
    cancel(&ledger, fired.submitted[0].outcome.number).await;
    let after = ledger.store.schedule("s").await.unwrap().unwrap();
    let fired = ledger.store.fire(look(&after, many + 5)).await.unwrap();
    assert_eq!(times(&fired), [0; 0]);
    let after = ledger.store.schedule("s").await.unwrap().unwrap();
    assert_eq!(after.waiting.first(), Some(&Micros(3)));
    assert_eq!(after.waiting.last(), Some(&Micros(many + 4)));
}

#[tokio::test]
async fn runs_of_a_paused_schedule_wait_on() {
    let ledger = Ledger::new().await;
    let stored = set(&ledger, schedule("s", Overlap::Queue, 1), false).await;
    let fired = ledger.store.fire(look(&stored, 4)).await.unwrap();
    let paused = Schedule {
        paused: true,
        ..ledger.store.schedule("s").await.unwrap().unwrap()
    };
    let paused = set(&ledger, paused, true).await;
    assert_eq!(ledger.store.awaited_runs().await.unwrap(), [0; 0]);
    cancel(&ledger, fired.submitted[0].outcome.number).await;
    let due = async || ledger.store.due_schedules(Micros(9), 9).await.unwrap();
    assert_eq!(due().await, []);
    let resumed = Schedule {
        paused: false,
        ..paused
    };
    set(&ledger, resumed, true).await;
    assert_eq!(due().await[0].waiting, [Micros(2), Micros(3)]);
}

#[tokio::test]
async fn a_refused_request_changes_nothing() {
    let ledger = Ledger::new().await;
    let stored = set(&ledger, schedule("s", Overlap::Skip, 1), false).await;
    ledger.store.fire(look(&stored, 2)).await.unwrap();
    let before = ledger.store.schedule("s").await.unwrap().unwrap();
    let request = Firing {
        cause: FiringCause::Request,
        runs: vec![run(9)],
        ..look(&before, 3)
    };
    let fired = ledger.store.fire(request).await.unwrap();
    assert_eq!((times(&fired), fired.skipped.len()), (vec![], 1));
    let after = ledger.store.schedule("s").await.unwrap().unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_run_that_the_policy_refuses_is_told_with_its_rule() {
    let ledger = Ledger::new().await;
    let stored = set(&ledger, schedule("s", Overlap::Replace, 5), false).await;
    let mut firing = look(&stored, 7);
    firing.runs[1].submission = Err(RunRefused {
        reason: "the policy refuses it".to_owned(),
        by: Some(PolicyDecision {
            rule: "no-bad".to_owned(),
            digest: "ab".to_owned(),
        }),
    });
    let fired = ledger.store.fire(firing.clone()).await.unwrap();
    assert_eq!((times(&fired), fired.skipped.len()), (vec![5], 1));
    let rows = ledger.store.audit_page(0, 100).await.unwrap().rows;
    let entry: serde_json::Value = serde_json::from_str(&rows.last().unwrap().entry).unwrap();
    assert_eq!(entry["action"], "schedule.fire");
    let by = serde_json::json!({"rules": ["no-bad"], "digests": ["ab"]});
    assert_eq!(entry["result"]["refused_by"], by);
    // The digest is of what has become a job.
    let ran = firing.runs[0].submission.as_ref().unwrap();
    let digest = commands_digest([&ran.job].into_iter());
    assert_eq!(entry["result"]["commands_sha256"], digest.as_str());
}
