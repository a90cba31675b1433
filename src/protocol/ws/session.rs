//! What the requests of a session share.
//!
//! Its tasks and its end are `connection`'s business, `admit` takes requests, `dispatch` executes
//! them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    outbox::{Outbox, QueuedReply, SessionClosed},
    tails::Tails,
};
use crate::protocol::{
    ServerState, SessionSlot,
    caller::Caller,
    limits::{
        buffered::BufferKind, byte_gate::ByteSemaphore, memory_budget::SessionUsage,
        rate_limit::RateLimiter,
    },
    peer::Connection,
};

/// What the requests of a session share.
#[derive(Debug)]
pub struct Session {
    /// The client as the methods know it.
    pub caller: Caller,
    /// Its tails.
    pub tails: Tails,
    /// Where its messages are handed in.
    pub outbox: Outbox,
    /// Its requests that wait to be executed.
    pub queued: ByteSemaphore,
    /// What it makes us hold.
    pub share: Arc<SessionUsage>,
    /// How fast it may ask.
    pub pace: RateLimiter,
    /// Who is at the other end, and its place.
    pub connection: Arc<Connection>,
    pub(super) authenticated: Arc<AtomicBool>,
    seat: SessionSlot,
    pub(super) in_flight: Arc<Semaphore>,
    heard_at: Mutex<Instant>,
    /// Set when it ends, and by whoever finds that it cannot go on.
    pub over: CancellationToken,
}

impl Session {
    /// A session that has just begun; it sets `authenticated` when it has been shown the token.
    pub fn new(
        door: Arc<ServerState>,
        seat: SessionSlot,
        connection: Arc<Connection>,
        authenticated: Arc<AtomicBool>,
        outbox: Outbox,
        share: Arc<SessionUsage>,
    ) -> Self {
        let over = CancellationToken::new();
        let in_flight_max = usize::try_from(door.settings.in_flight_max).unwrap_or(1);
        Self {
            tails: Tails::new(door.settings.subscriptions_max, over.clone()),
            outbox,
            queued: ByteSemaphore::new(
                door.settings.in_flight_bytes_max,
                share.clone(),
                BufferKind::Requests,
            ),
            share,
            pace: RateLimiter::new(door.floods.clone(), &door.settings),
            connection,
            authenticated,
            seat,
            in_flight: Arc::new(Semaphore::new(in_flight_max)),
            heard_at: Mutex::new(Instant::now()),
            over,
            caller: Caller::new(door, "ws"),
        }
    }

    /// Something of the client has arrived, or its end.
    pub fn heard(&self) {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When something of the client last arrived.
    pub fn heard_at(&self) -> Instant {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has shown the token, or needs none.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::SeqCst)
    }

    /// Sends a message that has no place among the requests in flight.
    pub async fn say(&self, text: String) -> Result<(), SessionClosed> {
        self.pace.answered(text.len());
        self.outbox.reply(QueuedReply { text, place: None }).await
    }

    /// Leaves the seat of a stranger to the next one: it has shown the token, or is over and only says
    /// goodbye.
    pub fn leave_strangers_seat(&self) {
        self.seat.authenticated();
    }
}
