//! The subscriptions of a session: one task for each tail, which fetches output, cuts it, and queues it
//! when a permit is there.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use tokio_tungstenite::tungstenite::Message;

use super::outbox::{Outbox, SessionClosed, TailPermit};
use crate::{
    executor::{Error, Observed, Tail, TailEvent},
    job::{Chunk, JobNumber, Offset},
    protocol::{
        encode::{chunk_binary, notifications::TailScope, utf8_chunker::TextCutter},
        jsonrpc::error::Refusal,
    },
    sys::lock,
};

/// How long the first bytes of a character wait for the rest.
const HOLD: Duration = Duration::from_millis(200);

/// How often a tail that cannot read for lack of a resource tries again, at intervals of
/// [`READ_AGAIN_AFTER`], before it ends with an error.
const FAILED_READS_MAX: u32 = 40;
const READ_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How output is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailEncoding {
    /// As JSON with text or base64.
    Text,
    /// As binary frames.
    Binary,
}

/// A tail that has been granted; it begins after its reply is queued.
#[derive(Debug)]
pub struct Granted {
    /// Its number in the session.
    pub subscription: u32,
    /// The cursor over the job's output.
    pub tail: Tail,
    /// Whether the tail goes on after the output that is there now.
    pub follow: bool,
    /// How output is sent.
    pub encoding: TailEncoding,
    /// Its place among the session's tails until it begins.
    pub place: ReservedTail,
}

/// A place for a tail that has not begun.
#[derive(Debug)]
pub struct ReservedTail {
    reserved: Arc<AtomicU64>,
}

impl Drop for ReservedTail {
    fn drop(&mut self) {
        self.reserved.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A tail that may still send: its task runs, or one of its notifications waits to be written. Both hold
/// `muted`.
#[derive(Debug)]
struct ActiveTail {
    muted: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl ActiveTail {
    fn has_ended(&self) -> bool {
        Arc::strong_count(&self.muted) == 1
    }
}

/// The subscriptions of a session.
#[derive(Debug)]
pub struct Tails {
    live: Mutex<HashMap<u32, ActiveTail>>,
    last_number: AtomicU32,
    /// How many places are reserved for tails that have not begun.
    reserved: Arc<AtomicU64>,
    max: u64,
}

impl Tails {
    /// Up to `max` tails at a time.
    pub fn new(max: u64) -> Self {
        Self {
            live: Mutex::default(),
            last_number: AtomicU32::new(0),
            reserved: Arc::default(),
            max,
        }
    }

    /// Reserves a place for one more tail, unless the session has `max` already.
    pub fn reserve(&self) -> Result<ReservedTail, Refusal> {
        let mut live = self.lock();
        // A tail whose task is over stays until its last notification is written, so that it can be muted.
        live.retain(|_, tail| !tail.has_ended());
        let others = self.reserved.fetch_add(1, Ordering::SeqCst);
        let place = ReservedTail {
            reserved: Arc::clone(&self.reserved),
        };
        if live.len() as u64 + others < self.max {
            return Ok(place);
        }
        let message = format!(
            "this session has {} tails; end one with job.untail",
            self.max
        );
        Err(Refusal::limit("subscriptions_max", message))
    }

    /// A number that no other tail of this session has or had.
    pub fn next_number(&self) -> u32 {
        self.last_number.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Begins to send.
    pub fn start(&self, granted: Granted, outbox: Outbox) {
        let subscription = granted.subscription;
        let muted = Arc::new(AtomicBool::new(false));
        let mut sender = TailSender::new(&granted, outbox, muted.clone());
        let Granted {
            mut tail, place, ..
        } = granted;
        // There may be many tails: a value moved inside the task would take its memory twice.
        let task = tokio::spawn(async move {
            if let Err(error) = sender.run(&mut tail).await {
                // It fails only where the session is over.
                let _ = sender.fail(&tail, error).await;
            }
        });
        self.lock().insert(subscription, ActiveTail { muted, task });
        drop(place);
    }

    /// Ends a tail; when this returns, nothing more of it is written. False if no tail of this session ever
    /// had the number.
    pub async fn end(&self, subscription: u64) -> bool {
        let existed =
            (1..=u64::from(self.last_number.load(Ordering::SeqCst))).contains(&subscription);
        let number = u32::try_from(subscription).unwrap_or(0);
        let live = self.lock().remove(&number);
        if let Some(ActiveTail { muted, task }) = live {
            muted.store(true, Ordering::SeqCst);
            task.abort();
            // Aborted or done: either way it queues nothing more.
            let _ = task.await;
        }
        existed
    }

    /// Ends all tails, without waiting.
    pub fn end_all(&self) {
        for (_, ActiveTail { muted, task }) in self.lock().drain() {
            muted.store(true, Ordering::SeqCst);
            task.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, ActiveTail>> {
        lock(&self.live)
    }
}

impl Drop for Tails {
    fn drop(&mut self) {
        self.end_all();
    }
}

/// Why a tail ends.
enum TailStop {
    /// Everything is sent, or the session is over.
    Over,
    /// The output cannot be read.
    Failed(Error),
}

impl From<SessionClosed> for TailStop {
    fn from(_: SessionClosed) -> Self {
        Self::Over
    }
}

impl From<Error> for TailStop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Sends the events of one tail to the client.
struct TailSender {
    scope: TailScope,
    number: JobNumber,
    follow: bool,
    encoding: TailEncoding,
    cutter: TextCutter,
    outbox: Outbox,
    /// Held while output is fetched and queued.
    permit: Option<TailPermit>,
    muted: Arc<AtomicBool>,
}

impl TailSender {
    fn new(granted: &Granted, outbox: Outbox, muted: Arc<AtomicBool>) -> Self {
        let scope = TailScope {
            subscription: granted.subscription,
            job: granted.tail.job_id(),
        };
        let Granted {
            follow, encoding, ..
        } = *granted;
        Self {
            scope,
            number: granted.tail.number(),
            follow,
            encoding,
            cutter: TextCutter::default(),
            outbox,
            permit: None,
            muted,
        }
    }

    /// Sends until the last event, or until the session is over. An error ends the tail.
    async fn run(&mut self, tail: &mut Tail) -> Result<(), Error> {
        let mut held: Option<(Offset, Instant)> = None;
        let mut failed_reads = 0;
        loop {
            held = self.held_since(held);
            let sent = tokio::select! {
                biased;
                ready = tail.ready() => match ready {
                    Ok(()) => self.send_with_permit(tail).await,
                    Err(error) => Err(error.into()),
                },
                () = hold_elapsed(held) => Box::pin(self.flush()).await.map_err(Into::into),
            };
            self.permit = None;
            match sent {
                Ok(()) => failed_reads = 0,
                // `connection` informs the client that the server stops.
                Err(TailStop::Over | TailStop::Failed(Error::Stopping)) => return Ok(()),
                // Nothing is lost by this: the cursor has not moved.
                Err(TailStop::Failed(Error::Unavailable(why)))
                    if failed_reads < FAILED_READS_MAX =>
                {
                    failed_reads += 1;
                    tracing::debug!(why, "a tail cannot read now; it tries again soon");
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "no event announces the end of a shortage"
                    )]
                    tokio::time::sleep(READ_AGAIN_AFTER).await;
                }
                Err(TailStop::Failed(error)) => return Err(error),
            }
        }
    }

    /// Sends why the tail ends, after all output that came before.
    async fn fail(&mut self, tail: &Tail, error: Error) -> Result<(), SessionClosed> {
        tracing::error!(%error, job = self.number, "a tail ends, because it cannot read the output");
        self.flush().await?;
        let error = Refusal::from(error);
        self.notify(self.scope.error(tail.next_offset(), &error))
            .await
    }

    /// Sends what is there while this tail has a permit. Everything fetched is queued before another tail
    /// fetches, so a client that does not read holds little output here.
    async fn send_with_permit(&mut self, tail: &mut Tail) -> Result<(), TailStop> {
        self.outbox.resumed(self.scope.job, self.number).await;
        self.permit = Some(self.outbox.tail_permit().await?);
        // The query of the store takes memory; a boxed future takes none while the tail waits.
        Box::pin(self.send_available(tail)).await
    }

    async fn send_available(&mut self, tail: &mut Tail) -> Result<(), TailStop> {
        loop {
            match tail.look().await? {
                Observed::Event(event) => self.send_event(event).await?,
                Observed::Nothing => return Ok(()),
                Observed::Over => return Err(TailStop::Over),
            }
            if !tail.holds_events() {
                return Ok(());
            }
        }
    }

    /// The offset of the held bytes, and since when they wait.
    fn held_since(&self, before: Option<(Offset, Instant)>) -> Option<(Offset, Instant)> {
        let from = self.cutter.held_from()?;
        before
            .filter(|(offset, _)| *offset == from)
            .or_else(|| Some((from, Instant::now())))
    }

    async fn send_event(&mut self, event: TailEvent) -> Result<(), SessionClosed> {
        match event {
            TailEvent::Output(chunk) => self.output(chunk).await,
            TailEvent::Gap(gap) => {
                self.flush().await?;
                self.notify(self.scope.gap(gap)).await
            }
            TailEvent::State { state, reason, at } => {
                self.notify(self.scope.state(state, reason, at)).await
            }
            TailEvent::CaughtUp { next_offset } => self.caught_up(next_offset).await,
            TailEvent::End(job) => {
                self.flush().await?;
                self.notify(self.scope.end(&job)).await
            }
        }
    }

    async fn output(&mut self, chunk: Chunk) -> Result<(), SessionClosed> {
        if self.encoding == TailEncoding::Binary {
            let frame = chunk_binary::encode(self.scope.subscription, &chunk);
            return self.send(Message::Binary(frame.into())).await;
        }
        for chunk in self.cutter.push(chunk) {
            self.notify(self.scope.output(&chunk)).await?;
        }
        Ok(())
    }

    /// Held bytes are not sent yet, so the client has caught up only to them; if nothing follows, they are
    /// sent first.
    async fn caught_up(&mut self, next_offset: Offset) -> Result<(), SessionClosed> {
        if !self.follow {
            self.flush().await?;
        }
        let next_offset = self.cutter.held_from().unwrap_or(next_offset);
        self.notify(self.scope.caught_up(next_offset)).await
    }

    async fn flush(&mut self) -> Result<(), SessionClosed> {
        match self.cutter.flush() {
            Some(chunk) => self.notify(self.scope.output(&chunk)).await,
            None => Ok(()),
        }
    }

    async fn notify(&mut self, mut text: String) -> Result<(), SessionClosed> {
        // A growing string doubles its capacity, and the message may wait.
        text.shrink_to_fit();
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), SessionClosed> {
        while self.outbox.is_paused(self.scope.job, self.number) {
            // A request about this job began meanwhile, and its reply may take long. The session's other
            // tails need not wait for it.
            self.permit = None;
            self.outbox.resumed(self.scope.job, self.number).await;
            self.permit = Some(self.outbox.tail_permit().await?);
        }
        self.outbox.notify(message, &self.muted).await
    }
}

/// Returns when held bytes have waited for [`HOLD`]; never if there are none.
async fn hold_elapsed(held: Option<(Offset, Instant)>) {
    match held {
        Some((_, since)) => tokio::time::sleep_until(since + HOLD).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "tails_tests.rs"]
mod tests;
