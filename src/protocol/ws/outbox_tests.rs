//! Tests of the outbox: order, bounds, pings, and muted subscriptions.

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
};

use tokio::sync::Semaphore;

use super::*;
use crate::protocol::limits::memory_budget::MemoryBudget;

const CONFIG: WriterConfig = WriterConfig {
    notifications_max: 2,
    reply_bytes_max: 100,
    ping_interval: Duration::from_secs(20),
    unanswered_max: 3,
};

fn outbox(
    config: WriterConfig,
    pings: Arc<PingCount>,
) -> (Outbox, OutboxWriter, oneshot::Sender<CloseMessage>) {
    super::outbox(config, pings, MemoryBudget::new(1 << 20).session_usage())
}

/// A connection whose client reads only as many messages as it is allowed to.
#[derive(Clone, Default)]
struct Client {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    got: Vec<Message>,
    may_read: usize,
    waker: Option<Waker>,
}

impl Client {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn read(&self, messages: usize) {
        let mut state = self.lock();
        state.may_read += messages;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// What it has got, as text: pings as `ping`, closes as their code.
    fn got(&self) -> Vec<String> {
        let state = self.lock();
        let show = |message: &Message| match message {
            Message::Ping(_) => "ping".to_owned(),
            Message::Close(Some(frame)) => u16::from(frame.code).to_string(),
            other => other.to_text().expect("text").to_owned(),
        };
        state.got.iter().map(show).collect()
    }
}

impl Sink<Message> for Client {
    type Error = ();

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let mut state = self.lock();
        if state.may_read == 0 {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.may_read -= 1;
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), ()> {
        self.lock().got.push(message);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }
}

fn note(text: &str) -> Message {
    Message::Text(text.to_owned().into())
}

fn reply(text: &str) -> QueuedReply {
    QueuedReply {
        text: text.to_owned(),
        in_flight: None,
    }
}

fn close_message() -> CloseMessage {
    CloseMessage {
        notification: Some("bye".into()),
        code: CloseCode::Away,
        reason: "stopping",
    }
}

#[tokio::test]
async fn replies_go_before_notifications_and_the_close_message_before_both_are_lost() {
    let (outbox, writer, last) = outbox(CONFIG, Arc::default());
    let mut client = Client::default();
    let unmuted = Arc::default();
    outbox.notify(note("note"), &unmuted).await.expect("open");
    outbox.reply(reply("one")).await.expect("open");
    outbox.reply(reply("two")).await.expect("open");
    last.send(close_message()).expect("a writer");
    client.read(9);
    assert_eq!(writer.run(&mut client).await, Written::Closed);
    assert_eq!(client.got(), ["one", "two", "bye", "1001"]);
}

#[tokio::test]
async fn a_muted_subscription_sends_nothing_behind_the_reply() {
    let (outbox, writer, last) = outbox(CONFIG, Arc::default());
    let client = Client::default();
    let (ended, other) = (Arc::new(AtomicBool::new(false)), Arc::default());
    outbox
        .notify(note("of the ended one"), &ended)
        .await
        .expect("open");
    outbox
        .notify(note("of another"), &other)
        .await
        .expect("open");
    ended.store(true, Ordering::SeqCst);
    client.read(9);
    let written = tokio::spawn({
        let mut client = client.clone();
        async move { writer.run(&mut client).await }
    });
    outbox.reply(reply("untailed")).await.expect("open");
    // The first notification is written before the queue takes this many more.
    for _ in 0..2 * CONFIG.notifications_max {
        outbox.notify(note("muted"), &ended).await.expect("open");
    }
    last.send(close_message()).expect("a writer");
    assert_eq!(written.await.expect("no panic"), Written::Closed);
    let got = client.got();
    assert!(got.contains(&"of another".to_owned()), "{got:?}");
    assert!(
        !got.iter()
            .any(|text| text.contains("ended") || text == "muted"),
        "{got:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_fills_the_queues_and_is_not_called_silent() {
    let (outbox, writer, _last) = outbox(CONFIG, Arc::default());
    let mut client = Client::default();
    let reading = client.clone();
    let written = tokio::spawn(async move { writer.run(&mut client).await });
    let unmuted = Arc::default();
    // One is with the writer, the others wait in the queue.
    for _ in 0..=CONFIG.notifications_max {
        outbox.notify(note("x"), &unmuted).await.expect("open");
    }
    let more = outbox.notify(note("x"), &unmuted);
    let stuck = tokio::time::timeout(Duration::from_secs(3600), more).await;
    assert!(
        stuck.is_err(),
        "there is space although the client does not read"
    );
    assert!(!written.is_finished());
    reading.read(1);
    outbox.notify(note("x"), &unmuted).await.expect("open");
    written.abort();
}

#[tokio::test(start_paused = true)]
async fn replies_that_nobody_reads_are_bounded_by_their_bytes() {
    let (outbox, writer, _last) = outbox(CONFIG, Arc::default());
    let mut client = Client::default();
    let reading = client.clone();
    let written = tokio::spawn(async move { writer.run(&mut client).await });
    for _ in 0..100 {
        outbox.reply(reply("x")).await.expect("open");
    }
    let stuck = tokio::time::timeout(Duration::from_secs(3600), outbox.reply_permit()).await;
    assert!(stuck.is_err(), "a hundred bytes wait");
    reading.read(1000);
    outbox
        .reply(reply(&"y".repeat(1000)))
        .await
        .expect("one may be longer");
    outbox.reply_permit().await.expect("all of it is written");
    let replies = reading.got().iter().filter(|text| *text != "ping").count();
    assert_eq!(replies, 101);
    written.abort();
}

#[tokio::test(start_paused = true)]
async fn tails_take_turns() {
    let (outbox, writer, _last) = outbox(CONFIG, Arc::default());
    let permits = [outbox.tail_permit().await, outbox.tail_permit().await];
    let third = tokio::time::timeout(Duration::from_secs(3600), outbox.tail_permit()).await;
    assert!(third.is_err(), "two at a time");
    drop(permits);
    outbox.tail_permit().await.expect("free again");
    drop(writer);
}

#[tokio::test]
async fn there_is_no_reply_permit_without_a_writer() {
    let (outbox, writer, _last) = outbox(CONFIG, Arc::default());
    outbox.reply(reply(&"x".repeat(1000))).await.expect("open");
    drop(writer);
    assert_eq!(outbox.reply_permit().await.err(), Some(SessionClosed));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_nothing_is_left_after_three_pings() {
    let pings = Arc::<PingCount>::default();
    let (_outbox, writer, _last) = outbox(CONFIG, pings.clone());
    pings.reading();
    let mut client = Client::default();
    client.read(9);
    let begun = Instant::now();
    assert_eq!(writer.run(&mut client).await, Written::Unresponsive);
    assert_eq!(client.got(), ["ping", "ping", "ping"]);
    assert_eq!(begun.elapsed(), 4 * CONFIG.ping_interval);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_only_answers_pings_is_kept() {
    let pings = Arc::<PingCount>::default();
    let (_outbox, writer, _last) = outbox(CONFIG, pings.clone());
    pings.reading();
    let mut client = Client::default();
    client.read(1000);
    let seen = client.clone();
    let written = tokio::spawn(async move { writer.run(&mut client).await });
    let mut answers = tokio::time::interval(CONFIG.ping_interval);
    while seen.got().len() < 50 {
        answers.tick().await;
        pings.received();
        pings.reading();
    }
    assert!(!written.is_finished());
    written.abort();
}

/// Its answers wait in the connection until the session reads again.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_read_from_is_not_called_silent() {
    let pings = Arc::<PingCount>::default();
    let (_outbox, writer, _last) = outbox(CONFIG, pings.clone());
    let mut client = Client::default();
    client.read(1000);
    let seen = client.clone();
    let written = tokio::spawn(async move { writer.run(&mut client).await });
    let mut ticks = tokio::time::interval(CONFIG.ping_interval);
    while seen.got().len() < 50 {
        ticks.tick().await;
    }
    assert!(!written.is_finished());
    pings.reading();
    let begun = Instant::now();
    assert_eq!(written.await.expect("no panic"), Written::Unresponsive);
    assert!(begun.elapsed() >= 3 * CONFIG.ping_interval);
}

/// One long frame on a slow line has no place for an answer.
#[tokio::test(start_paused = true)]
async fn a_client_whose_message_arrives_slowly_is_not_called_silent() {
    let pings = Arc::<PingCount>::default();
    let usage = MemoryBudget::new(1 << 20).session_usage();
    let (_outbox, writer, _last) = super::outbox(CONFIG, pings.clone(), usage.clone());
    let mut client = Client::default();
    client.read(1000);
    let seen = client.clone();
    let written = tokio::spawn(async move { writer.run(&mut client).await });
    pings.reading();
    let mut ticks = tokio::time::interval(3 * CONFIG.ping_interval);
    while seen.got().len() < 50 {
        ticks.tick().await;
        usage.received(PROGRESS_BYTES);
    }
    assert!(!written.is_finished());
    // A byte now and then is no progress.
    usage.received(1);
    assert_eq!(written.await.expect("no panic"), Written::Unresponsive);
}

#[tokio::test]
async fn a_pause_holds_back_the_tails_that_it_is_about() {
    let (outbox, _writer, _last) = outbox(CONFIG, Arc::default());
    let (job, other) = (JobId(uuid::Uuid::now_v7()), JobId(uuid::Uuid::now_v7()));
    for (tails, held) in [
        (PausedTails::None, [false, false]),
        (PausedTails::Of(JobRef::Id(job)), [true, false]),
        (PausedTails::Of(JobRef::Number(2)), [false, true]),
        (PausedTails::All, [true, true]),
    ] {
        let pause = outbox.pause_notifications(tails);
        let are_held = [outbox.is_paused(job, 1), outbox.is_paused(other, 2)];
        assert_eq!(are_held, held, "{tails:?}");
        let resumed = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.resumed(job, 1).await }
        });
        drop(pause);
        resumed.await.expect("the pause is over");
        assert!(!outbox.is_paused(job, 1));
    }
}

/// A tail that always has more to send fills the queue again while a notification is being written.
#[tokio::test]
async fn notifications_that_never_end_do_not_keep_replies_from_being_made() {
    let config = WriterConfig {
        notifications_max: 16,
        ..CONFIG
    };
    let (outbox, writer, _last) = outbox(config, Arc::default());
    let client = Client::default();
    let written = tokio::spawn({
        let mut client = client.clone();
        async move { writer.run(&mut client).await }
    });
    let tail = tokio::spawn({
        let outbox = outbox.clone();
        async move {
            let unmuted = Arc::default();
            while outbox.notify(note("x"), &unmuted).await.is_ok() {}
        }
    });
    for _ in 0..20 {
        let permit = outbox.reply_permit();
        let mut permit = std::pin::pin!(permit);
        let permit = loop {
            // One message after the other, and the queue is full again before the next one.
            tokio::select! {
                biased;
                permit = &mut permit => break permit.expect("open"),
                () = tokio::task::yield_now() => client.read(1),
            }
            assert!(client.got().len() < 10_000, "no reply can be made");
        };
        permit.send(reply(&"y".repeat(90)));
    }
    written.abort();
    tail.abort();
}

#[tokio::test]
async fn a_permit_in_flight_is_free_once_the_reply_is_being_written() {
    let (outbox, writer, _last) = outbox(CONFIG, Arc::default());
    let mut client = Client::default();
    let semaphore = Arc::new(Semaphore::new(1));
    let in_flight = semaphore.clone().try_acquire_owned().ok();
    outbox
        .reply(QueuedReply {
            text: "x".into(),
            in_flight,
        })
        .await
        .expect("open");
    assert_eq!(semaphore.available_permits(), 0);
    let written = tokio::spawn(async move { writer.run(&mut client).await });
    let freed = semaphore.acquire().await;
    assert!(freed.is_ok());
    written.abort();
}

/// What is held for an evicted client is released at once; one that reads still gets the reason.
#[tokio::test(start_paused = true)]
async fn who_is_evicted_is_told_only_where_nothing_waits() {
    for may_read in [0, 10] {
        let usage = MemoryBudget::new(0).session_usage();
        let (outbox, writer, last) = super::outbox(CONFIG, Arc::default(), usage.clone());
        let client = Client::default();
        client.read(may_read);
        let mut sink = client.clone();
        let running = tokio::spawn(async move { writer.run(&mut sink).await });
        // Beyond what is free, and so beyond this budget.
        usage.received(1 << 20);
        assert!(usage.is_evicted());
        outbox.reply(reply("reply")).await.expect("taken");
        last.send(close_message()).expect("a writer");
        let (written, got): (_, &[&str]) = match may_read {
            0 => (Written::Abandoned, &[]),
            _ => (Written::Closed, &["reply", "bye", "1001"]),
        };
        assert_eq!(running.await.expect("no panic"), written);
        assert_eq!(client.got(), got);
    }
}
