//! The turning points of a tail: caught up, states, the end, and attempts that come and go.

use super::{
    tail::{OutputTail, StartAt, TailError, TailOptions},
    testing::{Desk, told},
};
use crate::{
    job::{JobNumber, JobRef, Micros, Stream},
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
    tail.next().await.expect("readable").map(told)
}

/// So many events; the test would wait for ever for one that does not come.
async fn take(tail: &mut OutputTail, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(std::time::Duration::from_secs(30), next(tail));
        events.push(event.await.expect("an event in time").expect("an event"));
    }
    events
}

/// All events of a tail that ends by itself.
async fn whole(desk: &Desk, job: JobNumber, options: TailOptions) -> Vec<String> {
    let mut tail = desk.tail(job, options).await;
    let mut events = Vec::new();
    while let Some(event) = next(&mut tail).await {
        events.push(event);
    }
    assert_eq!(next(&mut tail).await, None, "nothing behind the end");
    events
}

/// A final job with "one\ntwo\n" in two chunks, stdout and stderr.
async fn finished(desk: &Desk) -> JobNumber {
    let job = desk.running().await;
    let mut segment = desk.segment(job, 1, 0);
    let chunks = vec![
        segment.write(Stream::Stdout, b"one\n"),
        segment.write(Stream::Stderr, b"two\n"),
    ];
    let gaps = Vec::new();
    desk.finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 8)
        .await;
    std::fs::remove_file(&segment.path).expect("unlinked");
    job
}

#[tokio::test]
async fn a_final_job_is_told_from_any_place() {
    let desk = Desk::new().await;
    let job = finished(&desk).await;
    let behind = ["<caught up 8>", "<end succeeded>"];
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
            let told = whole(&desk, job, options(from, follow)).await;
            assert_eq!(told, [&output[..], &behind].concat(), "{from:?}");
        }
    }
    let beyond = options(StartAt::Offset(9), true);
    let refused = OutputTail::begin(
        &desk.store,
        &desk.log,
        &desk.hub,
        JobRef::Number(job),
        beyond,
    )
    .await;
    assert!(matches!(refused, Err(TailError::BeyondEnd(8))));
}

#[tokio::test]
async fn a_tail_of_one_stream_counts_its_lines_and_passes_over_the_others() {
    let desk = Desk::new().await;
    let job = finished(&desk).await;
    let options = TailOptions {
        streams: Some(vec![Stream::Stdout]),
        ..options(StartAt::LastLines(1), true)
    };
    assert_eq!(desk.tail(job, options.clone()).await.from(), 0);
    let told = whole(&desk, job, options).await;
    assert_eq!(told, ["one\n", "<caught up 8>", "<end succeeded>"]);
}

#[tokio::test]
async fn a_final_job_without_output_is_told_at_once() {
    let desk = Desk::new().await;
    let job = desk.running().await;
    let (chunks, gaps) = (Vec::new(), Vec::new());
    desk.finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 0)
        .await;
    let told = whole(&desk, job, live()).await;
    assert_eq!(told, ["<caught up 0>", "<end succeeded>"]);
}

#[tokio::test]
async fn without_following_a_queued_job_is_caught_up_and_no_more() {
    let desk = Desk::new().await;
    let job = desk.queued().await;
    let told = whole(&desk, job, options(StartAt::Offset(0), false)).await;
    assert_eq!(told, ["<caught up 0>"]);
}

#[tokio::test]
async fn a_live_tail_waits_armed_and_ends_with_the_job() {
    let mut desk = Desk::new().await;
    let job = desk.queued().await;
    let mut tail = desk.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    desk.claim("shim").await;
    assert_eq!(take(&mut tail, 1).await, ["<running>"]);
    let mut segment = desk.segment(job, 1, 0);
    let mut chunks = vec![segment.out("a")];
    desk.hub.grew(job, 0);
    assert_eq!(take(&mut tail, 1).await, ["a"]);
    // Dropped while it waits, again and again: nothing is lost or told twice.
    for _ in 0..3 {
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), next(&mut tail));
        assert!(waiting.await.is_err(), "there is nothing to tell");
    }
    let mut last_armed = None;
    while let Ok(arm) = desk.armed.try_recv() {
        last_armed = Some(arm.offset);
    }
    assert_eq!(last_armed, Some(1), "it waits for what follows");
    chunks.push(segment.out("b"));
    let gaps = Vec::new();
    desk.finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 2)
        .await;
    std::fs::remove_file(&segment.path).expect("unlinked");
    assert_eq!(take(&mut tail, 2).await, ["b", "<end succeeded>"]);
    assert_eq!(next(&mut tail).await, None);
}

/// A rescue takes the right to start by a segment with an intent. A reader that has looked into
/// it must not stay there.
#[tokio::test]
async fn a_tail_goes_on_behind_a_void_attempt() {
    let desk = Desk::new().await;
    let job = desk.running().await;
    desk.segment(job, 1, 0);
    let mut tail = desk.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    let void = desk.store.void(job, 1, Micros(4)).await;
    assert_eq!(void.expect("void"), Fenced::Done);
    desk.hub.changed(job);
    assert_eq!(take(&mut tail, 1).await, ["<queued>"]);
    desk.claim("other").await;
    let mut segment = desk.segment(job, 2, 0);
    segment.out("second");
    assert_eq!(take(&mut tail, 2).await, ["<running>", "second"]);
}

#[tokio::test]
async fn a_closed_hub_ends_a_tail_that_waits() {
    let desk = Desk::new().await;
    let job = desk.queued().await;
    let mut tail = desk.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    desk.hub.close();
    assert!(matches!(tail.next().await, Err(TailError::Stopping)));
}

/// Takes the job away as the executor does: the row, then the word, then the files.
async fn delete(desk: &Desk, job: JobNumber) {
    let Ok(Deleted::Done(deleted)) = desk.store.delete(JobRef::Number(job)).await else {
        panic!("not deleted");
    };
    desk.hub.deleted(deleted.job);
    for entry in std::fs::read_dir(desk.spool()).expect("the spool") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            std::fs::remove_file(path).expect("unlinked");
        }
    }
}

#[tokio::test]
async fn what_was_not_told_of_a_deleted_job_is_a_gap_before_its_end() {
    let desk = Desk::new().await;
    let job = desk.running().await;
    let mut first = desk.segment(job, 1, 0);
    first.out("one ");
    first.seal();
    desk.enter(&first).await;
    let mut second = desk.segment(job, 1, 4);
    second.out("two");
    second.exit();
    let rows = vec![second.row()];
    let kept = OutputPlacement::Segments {
        rows,
        gaps: Vec::new(),
    };
    desk.finish(job, 1, kept, 7).await;
    // One has told nothing yet, one stands in the middle, one between a byte and its end.
    let mut fresh = desk.tail(job, live()).await;
    let mut middle = desk.tail(job, options(StartAt::Offset(2), true)).await;
    let mut at_end = desk.tail(job, options(StartAt::Offset(7), true)).await;
    assert_eq!(next(&mut middle).await.as_deref(), Some("e "));
    delete(&desk, job).await;
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
async fn a_tail_that_has_not_heard_of_the_end_is_told_it_by_the_deletion() {
    let desk = Desk::new().await;
    let job = desk.running().await;
    let mut segment = desk.segment(job, 1, 0);
    segment.out("one");
    let mut tail = desk.tail(job, live()).await;
    assert_eq!(take(&mut tail, 2).await, ["one", "<caught up 3>"]);
    let chunks = vec![segment.out(" two")];
    let gaps = Vec::new();
    desk.finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 7)
        .await;
    delete(&desk, job).await;
    assert_eq!(rest(&mut tail).await, ["gap 3-7", "<end succeeded>"]);
    let begun = OutputTail::begin(
        &desk.store,
        &desk.log,
        &desk.hub,
        JobRef::Number(job),
        live(),
    );
    assert!(matches!(begun.await, Err(TailError::NotFound)));
}

/// The row goes with the commit; the word of it comes a moment later.
#[tokio::test]
async fn a_tail_waits_for_the_word_of_a_deletion() {
    let desk = Desk::new().await;
    let job = desk.running().await;
    let mut tail = desk.tail(job, live()).await;
    assert_eq!(take(&mut tail, 1).await, ["<caught up 0>"]);
    let (chunks, gaps) = (Vec::new(), Vec::new());
    desk.finish(job, 1, OutputPlacement::Rows { chunks, gaps }, 0)
        .await;
    let Ok(Deleted::Done(deleted)) = desk.store.delete(JobRef::Number(job)).await else {
        panic!("not deleted");
    };
    let (told, ()) = tokio::join!(rest(&mut tail), async {
        tokio::task::yield_now().await;
        desk.hub.deleted(deleted.job);
    });
    assert_eq!(told, ["<end succeeded>"]);
}

/// All that a tail has still to tell.
async fn rest(tail: &mut OutputTail) -> Vec<String> {
    let mut events = Vec::new();
    while let Some(event) = next(tail).await {
        events.push(event);
    }
    events
}
