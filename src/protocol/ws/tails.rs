//! The subscriptions of a session: one task per tail, which fetches, cuts, and waits for room.
//!
//! Where output lies and when there is more is the executor's business.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, SessionClosed};
use crate::{
    executor::{Error, Observed, Tail, TailEvent},
    job::{Chunk, Offset},
    protocol::{
        encode::{chunk_binary, notifications::TailScope, utf8_chunker::TextCutter},
        jsonrpc::error::Refusal,
    },
};

/// How long the beginning of a character waits for its rest.
const HOLD: Duration = Duration::from_millis(200);

/// A tail that cannot read because something is short looks again so often, at this distance, before
/// its session ends.
const FAILED_LOOKS_MAX: u32 = 40;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How output is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailEncoding {
    /// As JSON with text or base64.
    Text,
    /// As binary frames.
    Binary,
}

/// A tail that has been granted and begins once its reply is on its way.
#[derive(Debug)]
pub struct Granted {
    /// Its number in the session.
    pub subscription: u32,
    /// The cursor.
    pub tail: Tail,
    /// Whether it goes on behind the end as it stands.
    pub follow: bool,
    /// How it is sent.
    pub encoding: TailEncoding,
}

/// A tail that is not silent yet: its task speaks, or something that it said still waits to be
/// written. Both hold `muted`.
#[derive(Debug)]
struct Live {
    muted: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Live {
    fn is_silent(&self) -> bool {
        Arc::strong_count(&self.muted) == 1
    }
}

/// The subscriptions of a session.
#[derive(Debug)]
pub struct Tails {
    live: Mutex<HashMap<u32, Live>>,
    given: AtomicU32,
    max: u64,
    /// Set when a tail fails: output would be missing without a word, so the session ends.
    failed: CancellationToken,
}

impl Tails {
    /// At most so many at a time; `failed` is told when one cannot go on.
    pub fn new(max: u64, failed: CancellationToken) -> Self {
        Self {
            live: Mutex::default(),
            given: AtomicU32::new(0),
            max,
            failed,
        }
    }

    /// Whether there is room for one more.
    pub fn check_room(&self) -> Result<(), Refusal> {
        let mut live = self.lock();
        // One that has said its last word stays until that is written, so that it can be muted.
        live.retain(|_, tail| !tail.is_silent());
        if (live.len() as u64) < self.max {
            return Ok(());
        }
        let message = format!(
            "this session has {} tails; end one with job.untail",
            self.max
        );
        Err(Refusal::limit("subscriptions_max", message))
    }

    /// A number that no other tail of this session has or had.
    pub fn number(&self) -> u32 {
        self.given.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Begins to send.
    pub fn start(&self, granted: Granted, outbox: Outbox) {
        let subscription = granted.subscription;
        let muted = Arc::new(AtomicBool::new(false));
        let failed = self.failed.clone();
        let mut speaker = TailSender::new(&granted, outbox, muted.clone());
        let mut tail = granted.tail;
        // Many of them wait: nothing is moved within the task, for it would be there twice.
        let task = tokio::spawn(async move {
            if let Err(error) = speaker.run(&mut tail).await {
                tracing::error!(%error, subscription, "a tail failed; its session ends");
                failed.cancel();
            }
        });
        self.lock().insert(subscription, Live { muted, task });
    }

    /// Ends a tail; when this returns, nothing more of it is written. False where no tail of this
    /// session ever had the number.
    pub async fn end(&self, subscription: u64) -> bool {
        let known = (1..=u64::from(self.given.load(Ordering::SeqCst))).contains(&subscription);
        let number = u32::try_from(subscription).unwrap_or(0);
        let live = self.lock().remove(&number);
        if let Some(Live { muted, task }) = live {
            muted.store(true, Ordering::SeqCst);
            task.abort();
            // Aborted or done: either way it hands in nothing more.
            let _ = task.await;
        }
        known
    }

    /// Ends all of them, without waiting.
    pub fn end_all(&self) {
        for (_, Live { muted, task }) in self.lock().drain() {
            muted.store(true, Ordering::SeqCst);
            task.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tails {
    fn drop(&mut self) {
        self.end_all();
    }
}

/// Why a tail says no more.
enum TailStop {
    /// All is said, or nobody listens.
    Over,
    /// It cannot go on.
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

/// Tells one tail's events to the client.
struct TailSender {
    about: TailScope,
    follow: bool,
    encoding: TailEncoding,
    cutter: TextCutter,
    outbox: Outbox,
    muted: Arc<AtomicBool>,
}

impl TailSender {
    fn new(granted: &Granted, outbox: Outbox, muted: Arc<AtomicBool>) -> Self {
        let about = TailScope {
            subscription: granted.subscription,
            job: granted.tail.job_id(),
        };
        let Granted {
            follow, encoding, ..
        } = *granted;
        Self {
            about,
            follow,
            encoding,
            cutter: TextCutter::default(),
            outbox,
            muted,
        }
    }

    /// Until the last event, or until nobody listens any more.
    async fn run(&mut self, tail: &mut Tail) -> Result<(), Error> {
        let mut held: Option<(Offset, Instant)> = None;
        let mut failed_looks = 0;
        loop {
            held = self.held_since(held);
            let told = tokio::select! {
                biased;
                ready = tail.ready() => match ready {
                    Ok(()) => self.take_a_turn(tail).await,
                    Err(error) => Err(error.into()),
                },
                () = waited(held) => Box::pin(self.flush()).await.map_err(Into::into),
            };
            match told {
                Ok(()) => failed_looks = 0,
                // The session is told in its own way that the server stops.
                Err(TailStop::Over | TailStop::Failed(Error::Stopping)) => return Ok(()),
                // Nothing is lost by it: the cursor stands where it stood.
                Err(TailStop::Failed(Error::Unavailable(why)))
                    if failed_looks < FAILED_LOOKS_MAX =>
                {
                    failed_looks += 1;
                    tracing::debug!(why, "a tail looks again soon");
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "nobody announces the end of a shortage"
                    )]
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
                Err(TailStop::Failed(error)) => return Err(error),
            }
        }
    }

    /// One look, and what it found, while this tail has its turn: whatever is fetched is handed in
    /// before another tail fetches, so that a client that does not read holds little output here.
    async fn take_a_turn(&mut self, tail: &mut Tail) -> Result<(), TailStop> {
        let _turn = self.outbox.turn().await?;
        // A look needs room for a question to the ledger; those that wait should not.
        Box::pin(self.tell_what_is_there(tail)).await
    }

    async fn tell_what_is_there(&mut self, tail: &mut Tail) -> Result<(), TailStop> {
        loop {
            match tail.look().await? {
                Observed::Event(event) => self.tell(event).await?,
                Observed::Nothing => return Ok(()),
                Observed::Over => return Err(TailStop::Over),
            }
            if !tail.holds_events() {
                return Ok(());
            }
        }
    }

    /// The held bytes and since when nothing has come for them.
    fn held_since(&self, before: Option<(Offset, Instant)>) -> Option<(Offset, Instant)> {
        let from = self.cutter.held_from()?;
        before
            .filter(|(offset, _)| *offset == from)
            .or_else(|| Some((from, Instant::now())))
    }

    async fn tell(&mut self, event: TailEvent) -> Result<(), SessionClosed> {
        match event {
            TailEvent::Output(chunk) => self.output(chunk).await,
            TailEvent::Gap(gap) => {
                self.flush().await?;
                self.notify(self.about.gap(gap)).await
            }
            TailEvent::State { state, reason, at } => {
                self.notify(self.about.state(state, reason, at)).await
            }
            TailEvent::CaughtUp { next_offset } => self.caught_up(next_offset).await,
            TailEvent::End(job) => {
                self.flush().await?;
                self.notify(self.about.end(&job)).await
            }
        }
    }

    async fn output(&mut self, chunk: Chunk) -> Result<(), SessionClosed> {
        if self.encoding == TailEncoding::Binary {
            let frame = chunk_binary::encode(self.about.subscription, &chunk);
            return self.send(Message::Binary(frame.into())).await;
        }
        for chunk in self.cutter.push(chunk) {
            self.notify(self.about.output(&chunk)).await?;
        }
        Ok(())
    }

    /// Held bytes are not yet sent; but where nothing may follow, they are sent first.
    async fn caught_up(&mut self, next_offset: Offset) -> Result<(), SessionClosed> {
        if !self.follow {
            self.flush().await?;
        }
        let next_offset = self.cutter.held_from().unwrap_or(next_offset);
        self.notify(self.about.caught_up(next_offset)).await
    }

    async fn flush(&mut self) -> Result<(), SessionClosed> {
        match self.cutter.flush() {
            Some(chunk) => self.notify(self.about.output(&chunk)).await,
            None => Ok(()),
        }
    }

    async fn notify(&self, mut text: String) -> Result<(), SessionClosed> {
        // It was written into room that doubles, and may wait.
        text.shrink_to_fit();
        self.send(Message::Text(text.into())).await
    }

    async fn send(&self, message: Message) -> Result<(), SessionClosed> {
        self.outbox.notify(message, &self.muted).await
    }
}

/// Returns when held bytes have waited long enough; never where there are none.
async fn waited(held: Option<(Offset, Instant)>) {
    match held {
        Some((_, since)) => tokio::time::sleep_until(since + HOLD).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "tails_tests.rs"]
mod tests;
