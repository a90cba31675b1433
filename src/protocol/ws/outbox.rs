//! The one place where a session's frames are written, and the two bounded queues in front of it:
//! replies, bounded by their bytes, and behind them notifications.
//!
//! Whoever wants to send waits for room, so that a client which does not read costs a few messages
//! of memory and delays nobody but itself. What the messages say is not known here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{Sink, SinkExt};
use tokio::{
    sync::{OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_tungstenite::tungstenite::{
    Bytes, Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::protocol::limits::{
    buffered::BufferKind,
    byte_gate::{BytePermit, ByteSemaphore},
    memory_budget::SessionUsage,
};

/// Replies that are being made at a time; each has at most `message_bytes_max`.
const REPLIES_MADE_MAX: usize = 2;

/// A reply, and the request's place among those in flight, which it keeps until it is written.
#[derive(Debug)]
pub struct QueuedReply {
    /// The JSON.
    pub text: String,
    /// The place; errors that were never in flight have none.
    pub place: Option<OwnedSemaphorePermit>,
}

/// A notification of a subscription that may be muted while it waits.
#[derive(Debug)]
struct Note {
    message: Message,
    muted: Arc<AtomicBool>,
}

/// The last words of a session.
#[derive(Debug)]
pub struct CloseMessage {
    /// A notification before the close.
    pub note: Option<String>,
    /// Why it is closed.
    pub code: CloseCode,
    /// The same in words.
    pub reason: &'static str,
}

/// The session is over: nothing is sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionClosed;

/// Where a session's messages are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// Without a bound of its own: whoever sends has found `waiting` light.
    replies: mpsc::UnboundedSender<(QueuedReply, BytePermit)>,
    /// Replies that are not with the kernel yet.
    waiting: ByteSemaphore,
    reply_bytes_max: usize,
    making: Arc<Semaphore>,
    notes: mpsc::Sender<Note>,
    turns: Arc<Semaphore>,
    /// Taken by a request while it may cause notifications, looked at by each of them.
    quiet: Arc<RwLock<()>>,
}

/// Room for one reply, so that it need not exist while it waits.
#[derive(Debug)]
pub struct ReplyPermit {
    replies: mpsc::UnboundedSender<(QueuedReply, BytePermit)>,
    waiting: ByteSemaphore,
    _making: OwnedSemaphorePermit,
}

impl ReplyPermit {
    /// Sends the reply; where the session is over, nobody misses it.
    pub fn send(self, reply: QueuedReply) {
        let weight = self.waiting.add(reply.text.len());
        let _ = self.replies.send((reply, weight));
    }
}

/// The right of one tail to fetch output and hand it in, while others of its session wait.
#[derive(Debug)]
pub struct TailPermit(#[expect(dead_code, reason = "held, not looked at")] OwnedSemaphorePermit);

/// As long as it is held, no notification is handed in.
#[derive(Debug)]
pub struct NotificationPause(
    #[expect(dead_code, reason = "held, not looked at")] OwnedRwLockWriteGuard<()>,
);

/// How the writer takes care of the connection.
#[derive(Debug, Clone, Copy)]
pub struct WriterConfig {
    /// Notifications that may wait, and tails that may hold output for the next ones.
    pub notes_max: usize,
    /// Bytes of replies that may wait.
    pub reply_bytes_max: u64,
    /// Between two pings.
    pub ping_interval: Duration,
    /// Pings without an answer after which the client counts as gone.
    pub unanswered_max: u64,
}

/// The writer's side of the queues.
#[derive(Debug)]
pub struct OutboxWriter {
    replies: mpsc::UnboundedReceiver<(QueuedReply, BytePermit)>,
    /// Of replies that are with the connection and may not be with the kernel yet.
    fed: Vec<BytePermit>,
    notes: mpsc::Receiver<Note>,
    farewell: oneshot::Receiver<CloseMessage>,
    care: WriterConfig,
    /// Tells when what waits must go.
    share: Arc<SessionUsage>,
    /// Pings since the client was last heard; the reader sets it to zero.
    unanswered: Arc<AtomicU64>,
}

/// How the writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The farewell is out.
    Farewell,
    /// The connection broke, or the session is over without a farewell.
    Broken,
    /// The client answers nothing any more.
    Silent,
    /// What waits must go, and the client does not read.
    Abandoned,
}

/// An outbox, its writer, and where the last words go; replies are held in `share`.
pub fn outbox(
    care: WriterConfig,
    unanswered: Arc<AtomicU64>,
    share: Arc<SessionUsage>,
) -> (Outbox, OutboxWriter, oneshot::Sender<CloseMessage>) {
    let (replies_in, replies) = mpsc::unbounded_channel();
    let (notes_in, notes) = mpsc::channel(care.notes_max.max(1));
    let (farewell_in, farewell) = oneshot::channel();
    let outbox = Outbox {
        replies: replies_in,
        waiting: ByteSemaphore::new(care.reply_bytes_max, share.clone(), BufferKind::Replies),
        reply_bytes_max: usize::try_from(care.reply_bytes_max).unwrap_or(usize::MAX / 2),
        making: Arc::new(Semaphore::new(REPLIES_MADE_MAX)),
        notes: notes_in,
        turns: Arc::new(Semaphore::new(care.notes_max.max(1))),
        quiet: Arc::default(),
    };
    (
        outbox,
        OutboxWriter {
            replies,
            fed: Vec::new(),
            notes,
            farewell,
            care,
            share,
            unanswered,
        },
        farewell_in,
    )
}

impl Outbox {
    /// Waits for room for a reply.
    pub async fn room(&self) -> Result<ReplyPermit, SessionClosed> {
        let making = self.making.clone().acquire_owned().await;
        self.waiting.light().await;
        let room = ReplyPermit {
            replies: self.replies.clone(),
            waiting: self.waiting.clone(),
            _making: making.map_err(|_| SessionClosed)?,
        };
        if self.replies.is_closed() {
            Err(SessionClosed)
        } else {
            Ok(room)
        }
    }

    /// Sends a reply, or any other message that no notification may overtake.
    pub async fn reply(&self, reply: QueuedReply) -> Result<(), SessionClosed> {
        self.room().await.map(|room| room.send(reply))
    }

    /// Returns once everything before it, the answers to pings included, is with the kernel: who
    /// reads on only then makes nobody answer more pings than the client reads answers.
    pub async fn settle(&self) -> Result<(), SessionClosed> {
        let room = self.room().await?;
        let all = self.waiting.add(self.reply_bytes_max);
        let text = String::new();
        let _ = room.replies.send((QueuedReply { text, place: None }, all));
        self.waiting.light().await;
        Ok(())
    }

    /// Waits until a tail may fetch output: the tails of a session take turns, so that a client
    /// which does not read costs the output of few of them, however many it has. Whoever has the
    /// turn finds room for a notification, so that what is fetched need not wait in its hands.
    pub async fn turn(&self) -> Result<TailPermit, SessionClosed> {
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map(TailPermit).map_err(|_| SessionClosed)?;
        drop(self.notes.reserve().await.map_err(|_| SessionClosed)?);
        Ok(turn)
    }

    /// Keeps notifications back from before a request is executed until its reply is handed in:
    /// none that it causes may overtake it.
    pub async fn quiet(&self) -> NotificationPause {
        NotificationPause(self.quiet.clone().write_owned().await)
    }

    /// Sends a notification, unless `muted` is set before it is written.
    pub async fn notify(
        &self,
        message: Message,
        muted: &Arc<AtomicBool>,
    ) -> Result<(), SessionClosed> {
        let note = Note {
            message,
            muted: muted.clone(),
        };
        drop(self.quiet.read().await);
        self.notes.send(note).await.map_err(|_| SessionClosed)
    }
}

/// What the writer does next.
enum NextFrame {
    Reply(QueuedReply, BytePermit),
    Note(Note),
    Farewell(CloseMessage),
    Ping,
    Over,
}

impl OutboxWriter {
    /// Writes until the farewell, or until the connection breaks or falls silent.
    ///
    /// While a write waits for the client, no ping is due: a client that is slow to read is not a
    /// client that is gone, and the kernel finds out by itself about one that is.
    pub async fn run<S>(mut self, sink: &mut S) -> Written
    where
        S: Sink<Message> + Unpin,
    {
        let share = self.share.clone();
        let first = Instant::now() + self.care.ping_interval;
        let mut pings = interval_at(first, self.care.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                biased;
                Some((reply, weight)) = self.replies.recv() => NextFrame::Reply(reply, weight),
                farewell = &mut self.farewell => farewell.map_or(NextFrame::Over, NextFrame::Farewell),
                Some(note) = self.notes.recv() => NextFrame::Note(note),
                _ = pings.tick() => NextFrame::Ping,
            };
            let message = match next {
                NextFrame::Reply(QueuedReply { text, place }, weight) => {
                    self.fed.push(weight);
                    // Before the client can have read it, so that it may ask again at once.
                    drop(place);
                    // Without text it is only to be flushed.
                    (!text.is_empty()).then(|| text.into())
                }
                NextFrame::Note(note) if note.muted.load(Ordering::SeqCst) => None,
                NextFrame::Note(note) => Some(note.message),
                NextFrame::Ping if self.is_silent() => return Written::Silent,
                NextFrame::Ping => Some(Message::Ping(Bytes::new())),
                NextFrame::Over => return Written::Broken,
                NextFrame::Farewell(farewell) => {
                    return tokio::select! {
                        biased;
                        written = say(sink, farewell) => written,
                        () = share.evicted() => Written::Abandoned,
                    };
                }
            };
            tokio::select! {
                biased;
                written = self.write(sink, message) => if written.is_err() {
                    return Written::Broken;
                },
                // No last words where they would have to wait for the client.
                () = share.evicted() => return Written::Abandoned,
            }
        }
    }

    /// Counts one more ping; whether it would be one too many.
    fn is_silent(&self) -> bool {
        self.unanswered.fetch_add(1, Ordering::SeqCst) >= self.care.unanswered_max
    }

    /// Hands a message to the connection; messages that wait already go with it.
    async fn write<S>(&mut self, sink: &mut S, message: Option<Message>) -> Result<(), S::Error>
    where
        S: Sink<Message> + Unpin,
    {
        if let Some(message) = message {
            sink.feed(message).await?;
        }
        if self.replies.is_empty() && self.notes.is_empty() {
            sink.flush().await?;
            self.fed.clear();
        }
        Ok(())
    }
}

async fn say<S>(sink: &mut S, farewell: CloseMessage) -> Written
where
    S: Sink<Message> + Unpin,
{
    let frame = CloseFrame {
        code: farewell.code,
        reason: Utf8Bytes::from_static(farewell.reason),
    };
    let note = farewell.note.map(|note| Message::Text(note.into()));
    for message in note.into_iter().chain([Message::Close(Some(frame))]) {
        if sink.feed(message).await.is_err() {
            return Written::Broken;
        }
    }
    match sink.flush().await {
        Ok(()) => Written::Farewell,
        Err(_) => Written::Broken,
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
