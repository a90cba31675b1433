//! The only place where a session's frames are written, with the two bounded queues before it: replies,
//! bounded by their bytes, and notifications, which are written only while no reply waits.
//!
//! A sender waits for a permit. So a client that does not read costs a few messages of memory and
//! delays no other client.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{Sink, SinkExt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_tungstenite::tungstenite::{
    Bytes, Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    job::{JobId, JobNumber, JobRef},
    protocol::limits::{
        buffered::{BufferKind, PROGRESS_BYTES},
        byte_semaphore::{BytePermit, ByteSemaphore},
        memory_budget::SessionUsage,
    },
    sys::lock,
};

/// Replies that are being made at a time; each has at most `message_bytes_max`.
const REPLIES_MADE_MAX: usize = 2;

/// A reply, with the permit of its request among those in flight.
#[derive(Debug)]
pub struct QueuedReply {
    /// The JSON.
    pub text: String,
    /// Held until the reply is written; `None` for a message that answers no request in flight.
    pub in_flight: Option<OwnedSemaphorePermit>,
}

/// A notification of a subscription that may be muted while it waits.
#[derive(Debug)]
struct QueuedNotification {
    message: Message,
    muted: Arc<AtomicBool>,
}

/// The last frames of a session.
#[derive(Debug)]
pub struct CloseMessage {
    /// A notification before the close frame, as JSON.
    pub notification: Option<String>,
    /// The code of the close frame.
    pub code: CloseCode,
    /// The reason in the close frame: up to 123 bytes (RFC 6455, 5.5).
    pub reason: &'static str,
}

/// The session is over: nothing is sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct SessionClosed;

/// Where a session's messages are queued. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// The channel has no bound: every sender waits for `queued` first.
    replies: mpsc::UnboundedSender<(QueuedReply, BytePermit)>,
    /// The bytes of replies that the kernel has not taken yet.
    queued: ByteSemaphore,
    reply_bytes_max: usize,
    being_made: Arc<Semaphore>,
    notifications: mpsc::Sender<QueuedNotification>,
    tail_permits: Arc<Semaphore>,
    /// The tails that wait for the reply to the request that is being executed.
    paused: watch::Sender<PausedTails>,
}

/// The right to send one reply. A reply is made only after its permit is there, so that it does not wait
/// in memory.
#[derive(Debug)]
pub struct ReplyPermit {
    replies: mpsc::UnboundedSender<(QueuedReply, BytePermit)>,
    queued: ByteSemaphore,
    _being_made: OwnedSemaphorePermit,
}

impl ReplyPermit {
    /// Queues the reply; does nothing if the session is over.
    pub fn send(self, reply: QueuedReply) {
        let permit = self.queued.add(reply.text.len());
        let _ = self.replies.send((reply, permit));
    }
}

/// The right of a tail to fetch output and queue it, while other tails of its session wait.
#[derive(Debug)]
pub struct TailPermit(#[expect(dead_code, reason = "held, not looked at")] OwnedSemaphorePermit);

/// The tails of a session whose notifications a request may cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PausedTails {
    /// None of them.
    #[default]
    None,
    /// Those of this job.
    Of(JobRef),
    /// All of them.
    All,
}

impl PausedTails {
    fn has(self, id: JobId, number: JobNumber) -> bool {
        match self {
            Self::None => false,
            Self::Of(JobRef::Id(job)) => job == id,
            Self::Of(JobRef::Number(job)) => job == number,
            Self::All => true,
        }
    }
}

/// While it is held, these tails queue no notifications.
#[derive(Debug)]
pub struct NotificationPause(watch::Sender<PausedTails>);

impl Drop for NotificationPause {
    fn drop(&mut self) {
        self.0.send_replace(PausedTails::None);
    }
}

/// The pings that a client has not answered. Only those count that are sent while the session reads: an
/// answer that the server does not read yet is no silence.
#[derive(Debug, Default)]
pub struct PingCount(Mutex<Pings>);

#[derive(Debug, Default)]
struct Pings {
    is_reading: bool,
    unanswered: u64,
    /// How many bytes had arrived at the last answer or progress.
    arrived: u64,
}

impl PingCount {
    /// The session reads its client's next frame from now on.
    pub fn reading(&self) {
        lock(&self.0).is_reading = true;
    }

    /// A frame has come, of any kind; the session is busy with it.
    pub fn received(&self) {
        let mut pings = lock(&self.0);
        (pings.is_reading, pings.unanswered) = (false, 0);
    }

    /// Counts one more ping; returns how many were unanswered before it. A message that is not complete and
    /// makes progress, by the bytes that have `arrived`, is as good as answers: those cannot come in between.
    fn sent(&self, arrived: u64) -> u64 {
        let mut pings = lock(&self.0);
        if arrived - pings.arrived >= PROGRESS_BYTES as u64 {
            (pings.unanswered, pings.arrived) = (0, arrived);
        }
        let before = pings.unanswered;
        pings.unanswered += u64::from(pings.is_reading);
        before
    }
}

/// The bounds of the queues, and how the writer finds out that a client is gone.
#[derive(Debug, Clone, Copy)]
pub struct WriterConfig {
    /// Notifications that may wait, and tails that may hold output for the next ones; 0 counts as 1.
    pub notifications_max: usize,
    /// Bytes of replies that may wait before no further reply gets a permit.
    pub reply_bytes_max: u64,
    /// The time between two pings.
    pub ping_interval: Duration,
    /// Pings without an answer after which the client counts as gone.
    pub unanswered_max: u64,
}

/// The writer's side of the queues.
#[derive(Debug)]
pub struct OutboxWriter {
    replies: mpsc::UnboundedReceiver<(QueuedReply, BytePermit)>,
    /// The permits of replies in the connection's write buffer, kept until it is flushed.
    unflushed: Vec<BytePermit>,
    notifications: mpsc::Receiver<QueuedNotification>,
    close_message: oneshot::Receiver<CloseMessage>,
    config: WriterConfig,
    /// Signals that the session is evicted and must release what it holds.
    usage: Arc<SessionUsage>,
    pings: Arc<PingCount>,
}

/// How the writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The close message is written.
    Closed,
    /// The connection broke, or the session ended without a close message.
    Broken,
    /// The client answered no ping for too long.
    Unresponsive,
    /// The session is evicted, and the client does not read.
    Abandoned,
}

/// An outbox, its writer, and the sender for the close message; replies that wait count in `usage`.
pub fn outbox(
    config: WriterConfig,
    pings: Arc<PingCount>,
    usage: Arc<SessionUsage>,
) -> (Outbox, OutboxWriter, oneshot::Sender<CloseMessage>) {
    let (replies_in, replies) = mpsc::unbounded_channel();
    let (notifications_in, notifications) = mpsc::channel(config.notifications_max.max(1));
    let (close_message_in, close_message) = oneshot::channel();
    let outbox = Outbox {
        replies: replies_in,
        queued: ByteSemaphore::new(config.reply_bytes_max, usage.clone(), BufferKind::Replies),
        reply_bytes_max: usize::try_from(config.reply_bytes_max).unwrap_or(usize::MAX / 2),
        being_made: Arc::new(Semaphore::new(REPLIES_MADE_MAX)),
        notifications: notifications_in,
        tail_permits: Arc::new(Semaphore::new(config.notifications_max.max(1))),
        paused: watch::Sender::default(),
    };
    (
        outbox,
        OutboxWriter {
            replies,
            unflushed: Vec::new(),
            notifications,
            close_message,
            config,
            usage,
            pings,
        },
        close_message_in,
    )
}

impl Outbox {
    /// Waits until a reply may be made and sent.
    pub async fn reply_permit(&self) -> Result<ReplyPermit, SessionClosed> {
        let being_made = self.being_made.clone().acquire_owned().await;
        self.queued.wait_below_max().await;
        let permit = ReplyPermit {
            replies: self.replies.clone(),
            queued: self.queued.clone(),
            _being_made: being_made.map_err(|_| SessionClosed)?,
        };
        if self.replies.is_closed() {
            Err(SessionClosed)
        } else {
            Ok(permit)
        }
    }

    /// Waits for a permit, then sends a reply or any other message that no notification may overtake.
    pub async fn reply(&self, reply: QueuedReply) -> Result<(), SessionClosed> {
        self.reply_permit().await.map(|permit| permit.send(reply))
    }

    /// Returns after the kernel has taken everything before this, including the answers to pings. The
    /// reader goes on only then, so a client gets no more answers to pings than it reads.
    pub async fn flush(&self) -> Result<(), SessionClosed> {
        let permit = self.reply_permit().await?;
        // It fills the queue, so the wait below ends only when the writer has flushed.
        let all = self.queued.add(self.reply_bytes_max);
        let text = String::new();
        let _ = permit.replies.send((
            QueuedReply {
                text,
                in_flight: None,
            },
            all,
        ));
        self.queued.wait_below_max().await;
        Ok(())
    }

    /// Waits until a tail may fetch output. Only `notifications_max` tails of a session fetch at a time,
    /// so a client that does not read costs the output of few tails, however many it has. When this
    /// returns, the queue has space for a notification, so the output need not wait in the tail.
    pub async fn tail_permit(&self) -> Result<TailPermit, SessionClosed> {
        let permit = self.tail_permits.clone().acquire_owned().await;
        let permit = permit.map(TailPermit).map_err(|_| SessionClosed)?;
        drop(
            self.notifications
                .reserve()
                .await
                .map_err(|_| SessionClosed)?,
        );
        Ok(permit)
    }

    /// Stops the notifications of these tails while a request is executed, until its reply is queued: none
    /// that the request causes may overtake the reply. Requests that need it are executed one after the other.
    pub fn pause_notifications(&self, tails: PausedTails) -> NotificationPause {
        self.paused.send_replace(tails);
        NotificationPause(self.paused.clone())
    }

    /// Whether the notifications of this job's tails wait for a reply.
    pub fn is_paused(&self, id: JobId, number: JobNumber) -> bool {
        self.paused.borrow().has(id, number)
    }

    /// Returns when the notifications of this job's tails may be queued.
    pub async fn resumed(&self, id: JobId, number: JobNumber) {
        if !self.is_paused(id, number) {
            return;
        }
        let mut paused = self.paused.subscribe();
        // It fails only without a sender, and `self` is one.
        let _ = paused.wait_for(|paused| !paused.has(id, number)).await;
    }

    /// Sends a notification, unless `muted` is set before it is written. Its tail must not be paused.
    pub async fn notify(
        &self,
        message: Message,
        muted: &Arc<AtomicBool>,
    ) -> Result<(), SessionClosed> {
        let notification = QueuedNotification {
            message,
            muted: muted.clone(),
        };
        self.notifications
            .send(notification)
            .await
            .map_err(|_| SessionClosed)
    }
}

/// What the writer does next; `Over`: the session ended without a close message.
enum NextFrame {
    Reply(QueuedReply, BytePermit),
    Notification(QueuedNotification),
    Close(CloseMessage),
    Ping,
    Over,
}

impl OutboxWriter {
    /// Writes until the close message, or until the connection breaks or the client stops answering.
    ///
    /// While a write waits for the client, no ping is due: a client that is slow to read is not gone, and
    /// the kernel detects one that is.
    pub async fn run<S>(mut self, sink: &mut S) -> Written
    where
        S: Sink<Message> + Unpin,
    {
        let usage = self.usage.clone();
        let first = Instant::now() + self.config.ping_interval;
        let mut pings = interval_at(first, self.config.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                biased;
                Some((reply, permit)) = self.replies.recv() => NextFrame::Reply(reply, permit),
                close_message = &mut self.close_message => close_message.map_or(NextFrame::Over, NextFrame::Close),
                Some(notification) = self.notifications.recv() => NextFrame::Notification(notification),
                _ = pings.tick() => NextFrame::Ping,
            };
            let message = match next {
                NextFrame::Reply(QueuedReply { text, in_flight }, permit) => {
                    self.unflushed.push(permit);
                    // Released before the client can read the reply, so that its next request finds a
                    // permit.
                    drop(in_flight);
                    // An empty text comes from `Outbox::flush`: there is nothing to write.
                    (!text.is_empty()).then(|| text.into())
                }
                NextFrame::Notification(notification)
                    if notification.muted.load(Ordering::SeqCst) =>
                {
                    None
                }
                NextFrame::Notification(notification) => Some(notification.message),
                NextFrame::Ping if self.is_unresponsive() => return Written::Unresponsive,
                NextFrame::Ping => Some(Message::Ping(Bytes::new())),
                NextFrame::Over => return Written::Broken,
                NextFrame::Close(close_message) => {
                    return tokio::select! {
                        biased;
                        written = write_close_message(sink, close_message) => written,
                        () = usage.evicted() => Written::Abandoned,
                    };
                }
            };
            tokio::select! {
                biased;
                written = self.write(sink, message) => if written.is_err() {
                    return Written::Broken;
                },
                // A close message would have to wait for the client after this write.
                () = usage.evicted() => return Written::Abandoned,
            }
        }
    }

    /// Counts one more ping; true if too many are unanswered.
    fn is_unresponsive(&self) -> bool {
        self.pings.sent(self.usage.arrived()) >= self.config.unanswered_max
    }

    /// Hands a message to the connection; flushes only when no other reply waits, and either no notification
    /// does, or replies have been written: as long as those are not flushed, they keep others from being made.
    async fn write<S>(&mut self, sink: &mut S, message: Option<Message>) -> Result<(), S::Error>
    where
        S: Sink<Message> + Unpin,
    {
        if let Some(message) = message {
            sink.feed(message).await?;
        }
        let has_replies = !self.unflushed.is_empty();
        if self.replies.is_empty() && (has_replies || self.notifications.is_empty()) {
            sink.flush().await?;
            self.unflushed.clear();
        }
        Ok(())
    }
}

async fn write_close_message<S>(sink: &mut S, close_message: CloseMessage) -> Written
where
    S: Sink<Message> + Unpin,
{
    let frame = CloseFrame {
        code: close_message.code,
        reason: Utf8Bytes::from_static(close_message.reason),
    };
    let notification = close_message
        .notification
        .map(|text| Message::Text(text.into()));
    for message in notification
        .into_iter()
        .chain([Message::Close(Some(frame))])
    {
        if sink.feed(message).await.is_err() {
            return Written::Broken;
        }
    }
    match sink.flush().await {
        Ok(()) => Written::Closed,
        Err(_) => Written::Broken,
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
