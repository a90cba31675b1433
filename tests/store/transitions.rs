//! All states × all writes: the ledger moves a job exactly where the pure table says.

use cc_executor::{
    job::{
        JobNumber, JobRef, JobState, Micros, Reason, StopCause,
        state::{Event, next},
    },
    store::{Fenced, Finish, SegmentRow, StopRequested},
};

use crate::ledger::*;

/// Every write that is about a job.
#[derive(Debug, Clone, Copy)]
enum Write {
    Claim,
    Started,
    Paused,
    Resumed,
    Void,
    VoidOfAWishedStop,
    WishStop,
    WishPause,
    SegmentRead,
    Finish(JobState),
    Lost,
}

const WRITES: [Write; 18] = [
    Write::Claim,
    Write::Started,
    Write::Paused,
    Write::Resumed,
    Write::Void,
    Write::VoidOfAWishedStop,
    Write::WishStop,
    Write::WishPause,
    Write::SegmentRead,
    Write::Finish(JobState::Scheduled),
    Write::Finish(JobState::Blocked),
    Write::Finish(JobState::Queued),
    Write::Finish(JobState::Running),
    Write::Finish(JobState::Paused),
    Write::Finish(JobState::Succeeded),
    Write::Finish(JobState::Failed),
    Write::Finish(JobState::Cancelled),
    Write::Lost,
];

impl Write {
    /// What this write is in the table's terms, for a job in `state`.
    fn event(self, state: JobState) -> Option<Event> {
        match self {
            Self::Claim => Some(Event::Claimed),
            Self::Paused => Some(Event::Paused),
            Self::Resumed => Some(Event::Resumed),
            Self::Void => Some(Event::Voided),
            // A running attempt is stopped by its shim, not by the ledger.
            Self::WishStop => (!state.is_active()).then_some(Event::Withdrawn),
            // A wish for a job that waits is its end, so that no attempt is left to be void.
            Self::VoidOfAWishedStop => Some(Event::Withdrawn),
            Self::Finish(end) => Some(Event::Ended(end)),
            Self::Lost => Some(Event::Ended(JobState::Failed)),
            Self::Started | Self::WishPause | Self::SegmentRead => None,
        }
    }

    /// Does it, in the name of attempt 1; whether it was taken, where it says so.
    async fn apply(self, ledger: &Ledger, number: JobNumber) -> Option<Fenced> {
        let store = &ledger.store;
        let (actor, at) = (String::from("shim"), Micros(9000));
        let fenced = match self {
            Self::Claim => {
                ledger.claim(&["another"]).await;
                return None;
            }
            Self::WishStop => {
                let wish = wish(StopCause::Cancel);
                store
                    .request_stop(JobRef::Number(number), wish)
                    .await
                    .unwrap();
                return None;
            }
            Self::WishPause => {
                let job = JobRef::Number(number);
                store.request_pause(job, true, actor, at).await.unwrap();
                return None;
            }
            Self::VoidOfAWishedStop => {
                let wish = wish(StopCause::Cancel);
                store
                    .request_stop(JobRef::Number(number), wish)
                    .await
                    .unwrap();
                store.void(number, 1, at).await.unwrap();
                return None;
            }
            Self::Started => return None,
            Self::Paused => store.paused(number, 1, actor, at).await,
            Self::Resumed => store.resumed(number, 1, actor, at).await,
            Self::Void => store.void(number, 1, at).await,
            Self::SegmentRead => store.segment_read(segment(number)).await,
            Self::Finish(state) => store.finish(end(number, state)).await,
            Self::Lost => store.finish(lost(number, 1)).await,
        };
        Some(fenced.unwrap())
    }
}

fn segment(number: JobNumber) -> SegmentRow {
    SegmentRow {
        number,
        attempt: 1,
        first_offset: 0,
        end_offset: 10,
        file_bytes: 100,
        hash_state: vec![1],
        counts: None,
    }
}

fn end(number: JobNumber, state: JobState) -> Finish {
    Finish {
        state,
        reason: (state == JobState::Failed).then_some(Reason::ExitCode),
        ..success(number, 1)
    }
}

/// A job in `state` that has had an attempt 1, which a stale writer may speak for.
async fn job_in(ledger: &Ledger, state: JobState) -> JobNumber {
    let store = &ledger.store;
    let number = ledger.running("shim").await.number;
    let at = Micros(3000);
    match state {
        JobState::Running => {}
        JobState::Paused => {
            store.paused(number, 1, "shim".into(), at).await.unwrap();
        }
        JobState::Queued => {
            store.void(number, 1, at).await.unwrap();
        }
        JobState::Scheduled | JobState::Blocked => {
            store.void(number, 1, at).await.unwrap();
            force(ledger, number, state).await;
        }
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
            store.finish(end(number, state)).await.unwrap();
        }
    }
    assert_eq!(ledger.get(number).await.state, state);
    number
}

/// Nothing leads to these states yet.
async fn force(ledger: &Ledger, number: JobNumber, state: JobState) {
    sqlx::query("UPDATE jobs SET state = ? WHERE number = ?")
        .bind(state.name())
        .bind(number)
        .execute(&mut ledger.raw().await)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_table() {
    let cases: Vec<_> = JobState::ALL
        .into_iter()
        .map(|state| {
            tokio::spawn(async move {
                for write in WRITES {
                    one_cell(state, write).await;
                }
            })
        })
        .collect();
    for case in cases {
        case.await.unwrap();
    }
}

async fn one_cell(state: JobState, write: Write) {
    let ledger = Ledger::new().await;
    let number = job_in(&ledger, state).await;
    let before = ledger.get(number).await;
    let seen = ledger.store.newest_change(number).await.unwrap();
    let fenced = write.apply(&ledger, number).await;

    let moved = write
        .event(state)
        .and_then(|event| next(Some(state), event));
    let after = ledger.get(number).await;
    assert_eq!(after.state, moved.unwrap_or(state), "{state:?} × {write:?}");
    let changes = ledger.store.changes(number, seen).await.unwrap();
    let told: Vec<_> = changes.iter().map(|change| change.state).collect();
    assert_eq!(told, Vec::from_iter(moved), "{state:?} × {write:?}");

    if let Some(fenced) = fenced {
        let taken = match write {
            Write::SegmentRead => state.is_active(),
            _ => moved.is_some(),
        };
        let expected = if taken {
            Fenced::Applied
        } else {
            Fenced::Stale
        };
        assert_eq!(fenced, expected, "{state:?} × {write:?}");
    }
    if state.is_final() {
        assert_eq!(after, before, "{write:?} changed a final job");
    }
}

#[tokio::test]
async fn only_the_current_attempt_can_write() {
    let ledger = Ledger::new().await;
    let first = ledger.running("a").await;
    let number = first.number;
    let voided = ledger.store.void(number, 1, Micros(3000)).await;
    assert_eq!(voided.unwrap(), Fenced::Applied);
    assert_eq!(ledger.get(number).await.attempts, 0, "it counts nowhere");
    let second = ledger.claim(&["b"]).await.claims.remove(0);
    assert_eq!((second.number, second.attempt), (number, 2));

    let store = &ledger.store;
    let before = ledger.get(number).await;
    for attempt in [0, 1, 3] {
        let stale = [
            store.finish(success(number, attempt)).await,
            store.paused(number, attempt, "x".into(), Micros(1)).await,
            store.void(number, attempt, Micros(1)).await,
            store
                .segment_read(SegmentRow {
                    attempt,
                    ..segment(number)
                })
                .await,
            store
                .started(cc_executor::store::StartedAttempt {
                    attempt,
                    ..started(&second)
                })
                .await,
        ];
        for fenced in stale {
            assert_eq!(fenced.unwrap(), Fenced::Stale, "attempt {attempt}");
        }
    }
    assert_eq!(ledger.get(number).await, before);
    assert_eq!(
        store.started(started(&second)).await.unwrap(),
        Fenced::Applied
    );
    assert_eq!(
        store.started(started(&second)).await.unwrap(),
        Fenced::Stale
    );
    let end = store.finish(success(number, 2)).await.unwrap();
    assert_eq!(end, Fenced::Applied);
    assert_eq!(ledger.get(number).await.attempts, 1);
}

#[tokio::test]
async fn a_void_attempt_with_a_wished_stop_is_a_cancel() {
    let ledger = Ledger::new().await;
    let number = ledger.running("a").await.number;
    let wished = ledger
        .store
        .request_stop(JobRef::Number(number), wish(StopCause::Cancel))
        .await;
    assert!(matches!(
        wished,
        Ok(StopRequested::ToShim { attempt: 1, .. })
    ));
    ledger.store.void(number, 1, Micros(4000)).await.unwrap();
    let job = ledger.get(number).await;
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!((job.attempts, job.exit), (0, None));
    assert!(job.stop.is_some() && job.output_sha256.is_some());
    assert!(ledger.claim(&["b"]).await.claims.is_empty());
}

/// The CHECKs of the tables spell the states as the code does.
#[tokio::test]
async fn the_tables_know_every_state_and_no_other() {
    let ledger = Ledger::new().await;
    let mut raw = ledger.raw().await;
    for state in JobState::ALL {
        let event = "INSERT INTO events (job, to_state, actor, at) VALUES (1, ?, 'x', 0)";
        let known = sqlx::query(event)
            .bind(state.name())
            .execute(&mut raw)
            .await;
        known.unwrap();
    }
    for reason in Reason::ALL {
        let number = ledger.running(reason.name()).await.number;
        let finish = Finish {
            reason: Some(reason),
            ..lost(number, 1)
        };
        assert_eq!(ledger.store.finish(finish).await.unwrap(), Fenced::Applied);
        assert_eq!(ledger.get(number).await.reason, Some(reason));
    }
    let number = ledger.queued().await.number;
    let unknown = sqlx::query("UPDATE jobs SET state = 'resting' WHERE number = ?")
        .bind(number)
        .execute(&mut raw)
        .await;
    assert!(unknown.unwrap_err().to_string().contains("CHECK"));
}
