//! What the requests of a session share.
//!
//! Its tasks and its end are `connection`'s business, `admit` takes requests, `dispatch` executes
//! them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    outbox::{Closed, Outbox, Reply},
    tails::Tails,
};
use crate::protocol::{
    Door, Seat,
    caller::Caller,
    limits::{buffered::Pile, byte_gate::Load, memory_budget::Share, rate_limit::Pace},
    peer::Connection,
};

use crate::sys::lock;

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
    pub queued: Load,
    /// What it makes us hold.
    pub share: Arc<Share>,
    /// How fast it may ask.
    pub pace: Pace,
    /// Who is at the other end, and its place.
    pub connection: Arc<Connection>,
    pub(super) authenticated: Arc<AtomicBool>,
    seat: Seat,
    pub(super) in_flight: Arc<Semaphore>,
    heard_at: Mutex<Instant>,
    /// Set when it ends, and by whoever finds that it cannot go on.
    pub over: CancellationToken,
}

impl Session {
    /// A session that has just begun; it sets `authenticated` when it has been shown the token.
    pub fn new(
        door: Arc<Door>,
        seat: Seat,
        connection: Arc<Connection>,
        authenticated: Arc<AtomicBool>,
        outbox: Outbox,
        share: Arc<Share>,
    ) -> Self {
        let over = CancellationToken::new();
        let in_flight_max = usize::try_from(door.settings.in_flight_max).unwrap_or(1);
        Self {
            tails: Tails::new(door.settings.subscriptions_max, over.clone()),
            outbox,
            queued: Load::new(
                door.settings.in_flight_bytes_max,
                share.clone(),
                Pile::Requests,
            ),
            share,
            pace: Pace::new(door.floods.clone(), &door.settings),
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
        *lock(&self.heard_at) = Instant::now();
    }

    /// When something of the client last arrived.
    pub fn heard_at(&self) -> Instant {
        *lock(&self.heard_at)
    }

    /// Whether it has shown the token, or needs none.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::SeqCst)
    }

    /// Sends a message that has no place among the requests in flight.
    pub async fn say(&self, text: String) -> Result<(), Closed> {
        self.pace.answered(text.len());
        self.outbox.reply(Reply { text, place: None }).await
    }

    /// Leaves the seat of a stranger to the next one: it has shown the token, or is over and only says
    /// goodbye.
    pub fn leave_strangers_seat(&self) {
        self.seat.authenticated();
    }
}
