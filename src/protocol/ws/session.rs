//! The state of a session that its requests share.
//!
//! `connection` runs its tasks and ends it, `admit` accepts requests, `dispatch` executes them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Opened,
    held_parts::HeldParts,
    outbox::{Outbox, QueuedReply, SessionClosed},
    tails::Tails,
};
use crate::protocol::{
    ServerState, SessionSlot,
    caller::Caller,
    limits::{
        buffered::BufferKind, byte_semaphore::ByteSemaphore, memory_budget::SessionUsage,
        rate_limit::RateLimiter,
    },
    mcp::client::WsSession,
    peer::Connection,
};
use crate::sys::lock;

/// The state of a session that its requests share.
#[derive(Debug)]
pub struct Session {
    /// The client as the methods see it.
    pub caller: Caller,
    /// Its subscriptions.
    pub tails: Tails,
    /// The queue of its replies and notifications.
    pub outbox: Outbox,
    /// The bytes of its requests that wait to be executed.
    pub queued: ByteSemaphore,
    /// The parts of a `job.submit_many` whose last one has not come.
    pub parts: HeldParts,
    /// What the server holds in memory for it.
    pub usage: Arc<SessionUsage>,
    /// Decides when the next frame may be read.
    pub rate_limiter: RateLimiter,
    /// The peer and its connection slot.
    pub connection: Arc<Connection>,
    pub(super) authenticated: Arc<AtomicBool>,
    slot: SessionSlot,
    /// What it is for MCP.
    pub mcp_session: WsSession,
    pub(super) in_flight: Arc<Semaphore>,
    last_received_at: Mutex<Instant>,
    /// Cancelled when the session ends, also by a task that finds that it cannot go on.
    pub over: CancellationToken,
}

impl Session {
    /// A session that has just begun; it sets `authenticated` when the client has shown the token.
    pub fn new(
        server: Arc<ServerState>,
        opened: Opened,
        authenticated: Arc<AtomicBool>,
        outbox: Outbox,
        usage: Arc<SessionUsage>,
    ) -> Self {
        let over = CancellationToken::new();
        let in_flight_max = usize::try_from(server.settings.in_flight_max).unwrap_or(1);
        Self {
            tails: Tails::new(server.settings.subscriptions_max, over.clone()),
            outbox,
            queued: ByteSemaphore::new(
                server.settings.in_flight_bytes_max,
                usage.clone(),
                BufferKind::Requests,
            ),
            parts: HeldParts::new(&server.settings, usage.clone()),
            usage,
            rate_limiter: RateLimiter::new(server.fair_queue.clone(), &server.settings),
            connection: opened.connection,
            authenticated,
            slot: opened.slot,
            mcp_session: opened.mcp_session,
            in_flight: Arc::new(Semaphore::new(in_flight_max)),
            last_received_at: Mutex::new(Instant::now()),
            over,
            caller: Caller::new(server, "ws"),
        }
    }

    /// Records that a frame has arrived, or the end of the connection.
    pub fn record_received(&self) {
        *lock(&self.last_received_at) = Instant::now();
    }

    /// When the last frame arrived, or the session began.
    pub fn last_received_at(&self) -> Instant {
        *lock(&self.last_received_at)
    }

    /// Whether the client has shown the token, or needs none.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::SeqCst)
    }

    /// Sends a message that answers no request in flight.
    pub async fn send(&self, text: String) -> Result<(), SessionClosed> {
        self.rate_limiter.charge_reply(text.len());
        self.outbox
            .reply(QueuedReply {
                text,
                in_flight: None,
            })
            .await
    }

    /// Leaves the slot of an unauthenticated session to the next one: the client has shown the token, or
    /// the session is ending.
    pub fn release_unauthenticated_slot(&self) {
        self.slot.set_authenticated();
    }
}
