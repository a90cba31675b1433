//! Wishes: a waiting job ends at once, a running one keeps the wish for its shim.

use cc_executor::{
    job::{
        Exit, Job, JobId, JobRef, JobState, Micros, StopCause, StopFacts, StopRequest,
        view::StopView,
    },
    store::{Fenced, Finish, PauseRequested, StopRequested},
};

use crate::ledger::*;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

async fn stop(ledger: &Ledger, number: i64, cause: StopCause) -> StopRequested {
    let job = JobRef::Number(number);
    ledger.store.request_stop(job, wish(cause)).await.unwrap()
}

async fn pause(ledger: &Ledger, number: i64, pause: bool) -> PauseRequested {
    let (job, actor) = (JobRef::Number(number), "tester".into());
    let wished = ledger.store.request_pause(job, pause, actor, Micros(1));
    wished.await.unwrap()
}

async fn told(ledger: &Ledger, number: i64, paused: bool) {
    let actor = "shim".into();
    let fenced = if paused {
        ledger.store.paused(number, 1, actor, Micros(2)).await
    } else {
        ledger.store.resumed(number, 1, actor, Micros(2)).await
    };
    assert_eq!(fenced.unwrap(), Fenced::Applied);
}

#[tokio::test]
async fn a_job_that_waits_is_cancelled_at_once() {
    let ledger = Ledger::new().await;
    let number = ledger.queued().await.number;
    let StopRequested::Withdrawn(job) = stop(&ledger, number, StopCause::Cancel).await else {
        panic!("a queued job has no shim");
    };
    assert_eq!(job, ledger.get(number).await);
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!(job.output_sha256.as_deref(), Some(EMPTY));
    assert_eq!(job.finished_at, Some(Micros(3500)));
    assert_eq!((job.attempts, job.started_at), (0, None));
    let expected = StopFacts {
        by: "tester".into(),
        cause: StopCause::Cancel,
        asked_at_us: 3500,
        signals: Vec::new(),
        killed: false,
        refused: Vec::new(),
        spared: false,
    };
    assert_eq!(job.stop, Some(StopView::Done(expected)));
    let again = stop(&ledger, number, StopCause::Kill).await;
    assert_eq!(again, StopRequested::Final(job));
    assert!(ledger.claim(&["a"]).await.claims.is_empty());
}

#[tokio::test]
async fn a_running_job_keeps_the_wish_and_a_kill_is_never_weakened() {
    let ledger = Ledger::new().await;
    let number = ledger.running("a").await.number;
    let first = wish(StopCause::Cancel);
    let hardened = StopRequest {
        cause: StopCause::Kill,
        grace_ms: 0,
        ..first.clone()
    };
    let wishes = [
        (StopCause::Cancel, &first),
        (StopCause::Kill, &hardened),
        (StopCause::Cancel, &hardened),
    ];
    for (cause, stands) in wishes {
        let wished = stop(&ledger, number, cause).await;
        let StopRequested::ToShim {
            job,
            attempt,
            shim,
            request,
        } = wished
        else {
            panic!("{wished:?}");
        };
        assert_eq!((attempt, shim.as_str(), &request), (1, "a", stands));
        assert_eq!(job.state, JobState::Running);
        assert_eq!(job.stop, Some(StopView::Requested(request)));
    }
    let open = ledger.store.open_attempts().await.unwrap().remove(0);
    assert_eq!(open.stop, Some(hardened), "sent again after an adoption");
}

/// Ends the running job with or without the stop having reached it.
async fn end(ledger: &Ledger, number: i64, reached: Option<StopFacts>) -> Job {
    let mut facts = facts(Exit::Signal(15));
    facts.stop = reached;
    let (state, reason) = facts.outcome();
    let finish = Finish {
        state,
        reason,
        facts: Some(facts),
        ..success(number, 1)
    };
    let fenced = ledger.store.finish(finish).await.unwrap();
    assert_eq!(fenced, Fenced::Applied);
    ledger.get(number).await
}

#[tokio::test]
async fn only_a_stop_that_reached_the_attempt_is_one() {
    let ledger = Ledger::new().await;
    let late = ledger.running("a").await.number;
    stop(&ledger, late, StopCause::Cancel).await;
    let job = end(&ledger, late, None).await;
    assert_eq!((job.state, job.stop), (JobState::Failed, None));
    assert_eq!(job.exit, Some(Exit::Signal(15)));

    let reached = ledger.running("b").await.number;
    stop(&ledger, reached, StopCause::Cancel).await;
    let facts = StopFacts {
        by: "tester".into(),
        cause: StopCause::Cancel,
        asked_at_us: 3500,
        signals: vec!["SIGTERM".into()],
        killed: false,
        refused: Vec::new(),
        spared: false,
    };
    let job = end(&ledger, reached, Some(facts.clone())).await;
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!(job.stop, Some(StopView::Done(facts)));
}

#[tokio::test]
async fn a_pause_is_a_wish_until_the_shim_says_it_is_so() {
    let ledger = Ledger::new().await;
    let number = ledger.running("a").await.number;
    let to_shim = PauseRequested::ToShim {
        number,
        attempt: 1,
        shim: "a".into(),
    };
    assert!(matches!(
        pause(&ledger, number, false).await,
        PauseRequested::Nothing(_)
    ));
    for _ in 0..2 {
        assert_eq!(
            pause(&ledger, number, true).await,
            to_shim,
            "still on its way"
        );
    }
    assert_eq!(ledger.get(number).await.state, JobState::Running);
    assert!(ledger.store.open_attempts().await.unwrap()[0].pause);

    told(&ledger, number, true).await;
    assert!(matches!(
        pause(&ledger, number, true).await,
        PauseRequested::Nothing(_)
    ));
    assert_eq!(pause(&ledger, number, false).await, to_shim);
    assert_eq!(pause(&ledger, number, true).await, to_shim, "called back");
    assert_eq!(pause(&ledger, number, false).await, to_shim);
    told(&ledger, number, false).await;
    let open = ledger.store.open_attempts().await.unwrap().remove(0);
    assert_eq!((open.state, open.pause), (JobState::Running, false));
}

#[tokio::test]
async fn only_what_runs_can_pause() {
    let ledger = Ledger::new().await;
    let waiting = ledger.queued().await;
    let refused = pause(&ledger, waiting.number, true).await;
    assert_eq!(refused, PauseRequested::NotRunning(waiting.clone()));
    let nothing = pause(&ledger, waiting.number, false).await;
    assert_eq!(nothing, PauseRequested::Nothing(waiting.clone()));
    let StopRequested::Withdrawn(job) = stop(&ledger, waiting.number, StopCause::Kill).await else {
        panic!("it was queued");
    };
    for wished in [true, false] {
        let nothing = pause(&ledger, job.number, wished).await;
        assert_eq!(nothing, PauseRequested::Nothing(job.clone()));
    }
}

#[tokio::test]
async fn nothing_is_wished_of_a_job_that_is_not() {
    let ledger = Ledger::new().await;
    let nobody = JobRef::Id(JobId(uuid::Uuid::now_v7()));
    let wished = ledger.store.request_stop(nobody, wish(StopCause::Cancel));
    assert_eq!(wished.await.unwrap(), StopRequested::NotFound);
    assert_eq!(pause(&ledger, 99, true).await, PauseRequested::NotFound);
}
