//! Tests of ending a tail that has ended already: its notifications that are not written yet must not
//! be written after the reply.

use super::*;
use crate::protocol::{limits::memory_budget::MemoryBudget, ws::outbox};

const CONFIG: outbox::WriterConfig = outbox::WriterConfig {
    notifications_max: 2,
    reply_bytes_max: 100,
    ping_interval: Duration::from_secs(20),
    unanswered_max: 3,
};

/// Tails with one whose task has ended and whose last notification waits to be written.
async fn with_a_last_notification(outbox: &Outbox) -> Tails {
    let tails = Tails::new(1);
    let subscription = tails.next_number();
    let muted = Arc::new(AtomicBool::new(false));
    let sent = outbox.notify(Message::text("job.end"), &muted).await;
    assert_eq!(sent, Ok(()));
    let task = tokio::spawn(async {});
    let mut live = tails.lock();
    live.insert(subscription, ActiveTail { muted, task });
    drop(live);
    tails
}

/// What is written once the session is over.
async fn written(writer: outbox::OutboxWriter, outbox: Outbox, tails: Tails) -> Vec<Message> {
    let reply = outbox::QueuedReply {
        text: "untailed".to_owned(),
        in_flight: None,
    };
    assert_eq!(outbox.reply(reply).await, Ok(()));
    drop((outbox, tails));
    let mut got = Vec::new();
    let mut sink = futures_util::sink::unfold((), |(), message: Message| {
        got.push(message);
        std::future::ready(Ok::<_, std::convert::Infallible>(()))
    });
    let mut sink = std::pin::pin!(&mut sink);
    writer.run(&mut sink).await;
    got
}

#[tokio::test]
async fn a_last_notification_that_waits_does_not_follow_the_reply_to_untail() {
    let (outbox, writer, close_message) = outbox::outbox(
        CONFIG,
        Arc::default(),
        MemoryBudget::new(1 << 20).session_usage(),
    );
    let tails = with_a_last_notification(&outbox).await;
    assert!(tails.reserve().is_err(), "it has not ended yet");
    assert!(tails.end(1).await);
    let muted = written(writer, outbox, tails);
    drop(close_message);
    assert_eq!(muted.await, [Message::text("untailed")]);
}

#[tokio::test]
async fn a_tail_takes_no_room_once_its_last_notification_is_written() {
    let tails = Tails::new(1);
    let task = tokio::spawn(async {});
    let muted = Arc::default();
    tails
        .lock()
        .insert(tails.next_number(), ActiveTail { muted, task });
    let place = tails.reserve();
    assert!(place.is_ok());
    assert!(tails.reserve().is_err(), "a place is reserved");
    drop(place);
    assert!(tails.reserve().is_ok());
    assert!(tails.end(1).await, "it is known for ever");
}
