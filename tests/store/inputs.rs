//! Inputs that come before the start: kept in order and once, handed over, gone at the end.

use cc_executor::{
    job::{Input, InputAnswer, JobNumber, JobRef, JobSpec, JobState, Micros, StopCause},
    store::*,
};

use crate::ledger::*;

fn interactive() -> JobSpec {
    JobSpec {
        interactive: true,
        ..true_job()
    }
}

fn input(data: &[u8], write_id: Option<&str>) -> Input {
    Input {
        data: data.to_vec(),
        eof: false,
        write_id: write_id.map(str::to_owned),
    }
}

fn eof() -> Input {
    Input {
        eof: true,
        ..Input::default()
    }
}

async fn send(ledger: &Ledger, number: JobNumber, input: Input) -> InputOutcome {
    let job = JobRef::Number(number);
    ledger.store.input(job, input).await.unwrap()
}

async fn kept(ledger: &Ledger, number: JobNumber, input: Input) -> InputAnswer {
    match send(ledger, number, input).await {
        InputOutcome::Kept { answer, .. } => answer,
        other => panic!("not kept: {other:?}"),
    }
}

fn accepted(bytes: u64) -> InputAnswer {
    InputAnswer::Accepted { bytes }
}

async fn rows(ledger: &Ledger) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM inputs")
        .fetch_one(&mut ledger.raw().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_claim_carries_what_was_kept_in_order_and_once() {
    let ledger = Ledger::new().await;
    let job = ledger.submit(interactive()).await.number;
    let other = ledger.submit(interactive()).await.number;
    for _ in 0..2 {
        assert_eq!(
            kept(&ledger, job, input(b"one", Some("1"))).await,
            accepted(3)
        );
    }
    assert_eq!(
        kept(&ledger, other, input(b"x", Some("1"))).await,
        accepted(1)
    );
    assert_eq!(
        kept(&ledger, job, input(b"\0\xff", None)).await,
        accepted(2)
    );
    let ledger = ledger.reopen().await;
    assert_eq!(
        kept(&ledger, job, input(b"one", Some("1"))).await,
        accepted(3)
    );
    assert_eq!(kept(&ledger, job, eof()).await, accepted(0));
    assert_eq!(
        kept(&ledger, job, input(b"late", None)).await,
        InputAnswer::Closed
    );
    assert_eq!(
        kept(&ledger, job, input(b"one", Some("1"))).await,
        accepted(3)
    );
    let claims = ledger.claim(&["a", "b"]).await.claims;
    let expected = [input(b"one", Some("1")), input(b"\0\xff", None), eof()];
    assert_eq!(claims[0].inputs, expected);
    assert_eq!(claims[1].inputs, [input(b"x", Some("1"))]);
}

#[tokio::test]
async fn behind_a_claim_the_shim_is_named() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(interactive()).await.number;
    // Handed in together: whichever of the two comes first, the input is not between them.
    let (met, claimed) = tokio::join!(
        send(&ledger, number, input(b"x", None)),
        ledger.claim(&["a"])
    );
    match met {
        InputOutcome::Kept { .. } => assert_eq!(claimed.claims[0].inputs, [input(b"x", None)]),
        InputOutcome::ToShim { .. } => assert_eq!(claimed.claims[0].inputs, []),
        other => panic!("{other:?}"),
    }
    let to_shim = InputOutcome::ToShim {
        number,
        attempt: 1,
        shim: "a".into(),
    };
    assert_eq!(send(&ledger, number, input(b"y", None)).await, to_shim);
}

#[tokio::test]
async fn what_was_kept_outlives_an_attempt_that_never_was_and_no_end() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(interactive()).await.number;
    kept(&ledger, number, input(b"one", Some("1"))).await;
    ledger.claim(&["a"]).await;
    let void = ledger.store.void(number, 1, Micros(1)).await.unwrap();
    assert_eq!(void, Fenced::Applied);
    assert_eq!(
        kept(&ledger, number, input(b"one", Some("1"))).await,
        accepted(3)
    );
    assert_eq!(
        kept(&ledger, number, input(b"two", None)).await,
        accepted(3)
    );
    let claim = ledger.claim(&["b"]).await.claims.remove(0);
    assert_eq!(
        claim.inputs,
        [input(b"one", Some("1")), input(b"two", None)]
    );
    assert_eq!(rows(&ledger).await, 2);
    ledger.store.finish(success(number, 2)).await.unwrap();
    assert_eq!(rows(&ledger).await, 0);

    let number = ledger.submit(interactive()).await.number;
    kept(&ledger, number, input(b"one", None)).await;
    let cancel = wish(StopCause::Cancel);
    ledger
        .store
        .request_stop(JobRef::Number(number), cancel)
        .await
        .unwrap();
    assert_eq!(rows(&ledger).await, 0);
    let unfit = InputOutcome::Unfit {
        number,
        interactive: true,
        state: JobState::Cancelled,
    };
    assert_eq!(send(&ledger, number, eof()).await, unfit);
}

#[tokio::test]
async fn bytes_and_number_of_what_is_kept_are_bounded() {
    let ledger = Ledger::new().await;
    let number = ledger.submit(interactive()).await.number;
    let most = vec![0; Input::BYTES_MAX - 1];
    assert_eq!(
        kept(&ledger, number, input(&most, None)).await,
        accepted((1 << 20) - 1)
    );
    let full = InputAnswer::Full {
        waiting_bytes: (1 << 20) - 1,
    };
    assert_eq!(kept(&ledger, number, input(b"xy", Some("w"))).await, full);
    assert_eq!(
        kept(&ledger, number, input(b"x", Some("w"))).await,
        accepted(1)
    );

    let number = ledger.submit(interactive()).await.number;
    for _ in 0..Input::KEPT_MAX {
        assert_eq!(kept(&ledger, number, input(b"", None)).await, accepted(0));
    }
    let full = InputAnswer::Full { waiting_bytes: 0 };
    assert_eq!(kept(&ledger, number, input(b"", None)).await, full);
}

#[tokio::test]
async fn only_interactive_jobs_that_exist_take_input() {
    let ledger = Ledger::new().await;
    assert_eq!(send(&ledger, 99, eof()).await, InputOutcome::NotFound);
    let number = ledger.queued().await.number;
    let unfit = InputOutcome::Unfit {
        number,
        interactive: false,
        state: JobState::Queued,
    };
    assert_eq!(send(&ledger, number, eof()).await, unfit);
    assert_eq!(rows(&ledger).await, 0);
}
