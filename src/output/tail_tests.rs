//! Tests of a tail's events: caught up, states, the end, attempts that come and go, deletion.

use super::{
    tail::{Observed, OutputTail, StartAt, TailError, TailEvent, TailOptions},
    testing::{Fixture, describe},
};
use crate::{
    job::{JobNumber, JobRef, JobState, Micros, Stream},
    store::{Deleted, Fenced, OutputPlacement},
};

fn options(from: StartAt, follow: bool) -> TailOptions {
    TailOptions {
        from,
        follow,
        streams: None,
    }
}

fn live() -> TailOptions {
    options(StartAt::Offset(0), true)
}

async fn next(tail: &mut OutputTail) -> Option<String> {
    tail.next().await.expect("readable").map(describe)
}

/// The next `count` events. The time limit keeps the test from waiting for ever for one of them.
async fn take(tail: &mut OutputTail, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(std::time::Duration::from_secs(30), next(tail));
        events.push(event.await.expect("an event in time").expect("an event"));
    }
    events
}

/// All events of a tail that ends by itself.
async fn whole(fixture: &Fixture, job: JobNumber, options: TailOptions) -> Vec<String> {
    let mut tail = fixture.tail(job, options).await;
    let mut events = Vec::new();
    while let Some(event) = next(&mut tail).await {
        events.push(event);
    }
    assert_eq!(next(&mut tail).await, None, "nothing after the end");
    events
}

/// A final job with "one\ntwo\n" in two chunks, stdout and stderr.
async fn finished(fixture: &Fixture) -> JobNumber {
    let job = fixture.running().await;
    let mut segment = fixture.segment(job, 1, 0);
    let chunks = vec![
        segment.write(Stream::Stdout, b"one\n"),
        segment.write(Stream::Stderr, b"two\n"),
    ];
    let gaps = Vec::new();
    fixture
        .finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 8)
        .await;
    std::fs::remove_file(&segment.path).expect("unlinked");
    job
}

#[tokio::test]
async fn a_final_job_is_returned_from_any_offset() {
    let fixture = Fixture::new().await;
    let job = finished(&fixture).await;
    let after = ["<caught up 8>", "<end succeeded>"];
    for (from, output) in [
        (StartAt::Offset(0), vec!["one\n", "two\n"]),
        (StartAt::Offset(6), vec!["o\n"]),
        (StartAt::Offset(8), vec![]),
        (StartAt::LastBytes(5), vec!["\n", "two\n"]),
        (StartAt::LastBytes(100), vec!["one\n", "two\n"]),
        (StartAt::LastLines(0), vec![]),
        (StartAt::LastLines(1), vec!["two\n"]),
        (StartAt::LastLines(9), vec!["one\n", "two\n"]),
    ] {
        for follow in [true, false] {
            let events = whole(&fixture, job, options(from, follow)).await;
            assert_eq!(events, [&output[..], &after].concat(), "{from:?}");
        }
    }
    let beyond = options(StartAt::Offset(9), true);
    let refused = OutputTail::begin(
        &fixture.store,
        &fixture.log,
        &fixture.hub,
        JobRef::Number(job),
        beyond,
    )
    .await;
    assert!(matches!(refused, Err(TailError::BeyondEnd(8))));
}

#[tokio::test]
async fn a_tail_of_one_stream_counts_its_lines_and_passes_over_the_others() {
    let fixture = Fixture::new().await;
    let job = finished(&fixture).await;
    let options = TailOptions {
        streams: Some(vec![Stream::Stdout]),
        ..options(StartAt::LastLines(1), true)
    };
    assert_eq!(fixture.tail(job, options.clone()).await.from(), 0);
    let events = whole(&fixture, job, options).await;
    assert_eq!(events, ["one\n", "<caught up 8>", "<end succeeded>"]);
}

#[tokio::test]
async fn a_final_job_without_output_ends_at_once() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let (chunks, gaps) = (Vec::new(), Vec::new());
    fixture
        .finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 0)
        .await;
    let events = whole(&fixture, job, live()).await;
    assert_eq!(events, ["<caught up 0>", "<end succeeded>"]);
}

#[tokio::test]
async fn without_following_a_queued_job_is_caught_up_and_no_more() {
    let fixture = Fixture::new().await;
    let job = fixture.queued().await;
    let events = whole(&fixture, job, options(StartAt::Offset(0), false)).await;
    assert_eq!(events, ["<caught up 0>"]);
}

#[tokio::test]
async fn a_live_tail_waits_armed_and_ends_with_the_job() {
    let mut fixture = Fixture::new().await;
    let job = fixture.queued().await;
    let mut tail = fixture.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    fixture.claim("shim").await;
    assert_eq!(take(&mut tail, 1).await, ["<running>"]);
    let mut segment = fixture.segment(job, 1, 0);
    let mut chunks = vec![segment.out("a")];
    fixture.hub.grew(job, 0);
    assert_eq!(take(&mut tail, 1).await, ["a"]);
    // Cancelled while it waits, again and again: nothing is lost or returned twice.
    for _ in 0..3 {
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), next(&mut tail));
        assert!(waiting.await.is_err(), "there is no event");
    }
    let mut last_armed = None;
    while let Ok(arm) = fixture.armed.try_recv() {
        last_armed = Some(arm.offset);
    }
    assert_eq!(last_armed, Some(1), "it waits for what follows");
    chunks.push(segment.out("b"));
    let gaps = Vec::new();
    fixture
        .finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 2)
        .await;
    std::fs::remove_file(&segment.path).expect("unlinked");
    assert_eq!(take(&mut tail, 2).await, ["b", "<end succeeded>"]);
    assert_eq!(next(&mut tail).await, None);
}

/// A rescue takes the right to start an attempt by creating its segment, with an intent record. A
/// reader that has looked into that segment must not stay there.
#[tokio::test]
async fn a_tail_goes_on_after_a_void_attempt() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    fixture.segment(job, 1, 0);
    let mut tail = fixture.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    let void = fixture.store.void(job, 1, Micros(4)).await;
    assert_eq!(void.expect("void"), Fenced::Applied);
    fixture.hub.changed(job);
    assert_eq!(take(&mut tail, 1).await, ["<queued>"]);
    fixture.claim("other").await;
    let mut segment = fixture.segment(job, 2, 0);
    segment.out("second");
    assert_eq!(take(&mut tail, 2).await, ["<running>", "second"]);
}

#[tokio::test]
async fn a_closed_hub_ends_a_tail_that_waits() {
    let fixture = Fixture::new().await;
    let job = fixture.queued().await;
    let mut tail = fixture.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    fixture.hub.close();
    assert!(matches!(tail.next().await, Err(TailError::Stopping)));
}

/// Deletes the job as the executor does: the row, then the notification, then the files.
async fn delete(fixture: &Fixture, job: JobNumber) {
    let Ok(Deleted::Done(deleted)) = fixture.store.delete(JobRef::Number(job)).await else {
        panic!("not deleted");
    };
    fixture.hub.deleted(deleted.job);
    for entry in std::fs::read_dir(fixture.spool()).expect("the spool") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            std::fs::remove_file(path).expect("unlinked");
        }
    }
}

#[tokio::test]
async fn what_was_not_returned_of_a_deleted_job_is_a_gap_before_its_end() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut first = fixture.segment(job, 1, 0);
    first.out("one ");
    first.seal();
    fixture.enter(&first).await;
    let mut second = fixture.segment(job, 1, 4);
    second.out("two");
    second.exit();
    let rows = vec![second.row()];
    let kept = OutputPlacement::Segments {
        rows,
        gaps: Vec::new(),
    };
    fixture.finish(job, 1, kept, 7).await;
    // One has returned nothing yet, one is in the middle, one has everything but the end.
    let mut fresh = fixture.tail(job, live()).await;
    let mut middle = fixture.tail(job, options(StartAt::Offset(2), true)).await;
    let mut at_end = fixture.tail(job, options(StartAt::Offset(7), true)).await;
    assert_eq!(next(&mut middle).await.as_deref(), Some("e "));
    delete(&fixture, job).await;
    assert_eq!(
        rest(&mut fresh).await,
        ["gap 0-7", "<caught up 7>", "<end succeeded>"]
    );
    assert_eq!(
        rest(&mut middle).await,
        ["gap 4-7", "<caught up 7>", "<end succeeded>"]
    );
    assert_eq!(
        rest(&mut at_end).await,
        ["<caught up 7>", "<end succeeded>"]
    );
}

#[tokio::test]
async fn a_tail_that_has_not_seen_the_end_gets_it_from_the_deletion() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut segment = fixture.segment(job, 1, 0);
    segment.out("one");
    let mut tail = fixture.tail(job, live()).await;
    assert_eq!(take(&mut tail, 2).await, ["one", "<caught up 3>"]);
    let chunks = vec![segment.out(" two")];
    let gaps = Vec::new();
    fixture
        .finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 7)
        .await;
    delete(&fixture, job).await;
    assert_eq!(rest(&mut tail).await, ["gap 3-7", "<end succeeded>"]);
    let begun = OutputTail::begin(
        &fixture.store,
        &fixture.log,
        &fixture.hub,
        JobRef::Number(job),
        live(),
    );
    assert!(matches!(begun.await, Err(TailError::NotFound)));
}

/// The commit removes the row; the hub's notification comes a moment later.
#[tokio::test]
async fn a_tail_waits_for_the_notification_of_a_deletion() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut tail = fixture.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    let (chunks, gaps) = (Vec::new(), Vec::new());
    fixture
        .finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 0)
        .await;
    let Ok(Deleted::Done(deleted)) = fixture.store.delete(JobRef::Number(job)).await else {
        panic!("not deleted");
    };
    let (events, ()) = tokio::join!(rest(&mut tail), async {
        tokio::task::yield_now().await;
        fixture.hub.deleted(deleted.job);
    });
    assert_eq!(events, ["<end succeeded>"]);
}

/// All events that a tail still returns.
async fn rest(tail: &mut OutputTail) -> Vec<String> {
    let mut events = Vec::new();
    while let Some(event) = next(tail).await {
        events.push(event);
    }
    events
}

/// What the job that a tail begins with shows is not told again, whenever it came.
#[tokio::test]
async fn a_change_at_the_beginning_is_told_once() {
    let fixture = Fixture::new().await;
    for _ in 0..300 {
        let number = fixture.queued().await;
        let begin = OutputTail::begin(
            &fixture.store,
            &fixture.log,
            &fixture.hub,
            JobRef::Number(number),
            live(),
        );
        let (begun, _) = tokio::join!(begin, fixture.claim("shim"));
        let (mut tail, job) = begun.expect("a tail");
        fixture.hub.changed(number);
        let mut states = Vec::new();
        while let Observed::Event(event) = tail.look().await.expect("readable") {
            if let TailEvent::State { state, .. } = event {
                states.push(state);
            }
        }
        let expected = match job.state {
            JobState::Running => vec![],
            _ => vec![JobState::Running],
        };
        assert_eq!(states, expected, "after {:?}", job.state);
        let (chunks, gaps) = (Vec::new(), Vec::new());
        let nothing = OutputPlacement::Rows { chunks, gaps };
        fixture.finish(number, 1, nothing, 0).await;
    }
}

/// Other readers of its session have their turn meanwhile.
#[tokio::test]
async fn a_look_passes_only_a_piece_of_other_streams() {
    let fixture = Fixture::new().await;
    let job = fixture.running().await;
    let mut segment = fixture.segment(job, 1, 0);
    for _ in 0..20 {
        segment.write(Stream::Stderr, &[b'x'; 30_000]);
    }
    segment.write(Stream::Stdout, b"here");
    let options = TailOptions {
        streams: Some(vec![Stream::Stdout]),
        ..live()
    };
    let mut tail = fixture.tail(job, options).await;
    let mut looks = 0;
    let event = loop {
        match tail.look().await.expect("readable") {
            Observed::Event(event) => break describe(event),
            Observed::Nothing => looks += 1,
            Observed::Over => panic!("it follows"),
        }
        let ready = tokio::time::timeout(std::time::Duration::from_secs(30), tail.ready());
        ready.await.expect("at once").expect("open");
    };
    assert_eq!(event, "here");
    assert!(looks >= 10, "{looks} looks");
}
