//! The state of a session that its requests share.
//!
//! `connection` runs its tasks and ends it, `admit` accepts requests, `dispatch` executes them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::select_all;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Opened,
    close::SessionEnd,
    held_parts::HeldParts,
    outbox::{Outbox, QueuedReply, SessionClosed},
    tails::Tails,
};
use crate::protocol::{
    ErrorKind, ServerState, SessionSlot,
    caller::Caller,
    jsonrpc::error::Refusal,
    limits::{
        buffered::BufferKind, byte_semaphore::ByteSemaphore, memory_budget::SessionUsage,
        rate_limit::RateLimiter,
    },
    mcp::client::WsSession,
    peer::Connection,
};
use crate::{access::Principal, executor::log_events, sys::lock};

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
    /// The rights with which it began, and those that it has now if they are others.
    principals: Mutex<Vec<Arc<Principal>>>,
    /// Notified when those change.
    principal_changed: Notify,
    /// What it is for MCP.
    pub mcp_session: WsSession,
    pub(super) in_flight: Arc<Semaphore>,
    /// Held while an ordered request is executed, until its reply is queued.
    answering: tokio::sync::Mutex<()>,
    began_at: Instant,
    last_received_at: Mutex<Instant>,
    /// Cancelled when the session ends, and by an exchange of MCP that ends.
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
        let principals: Vec<_> = opened.principal.into_iter().collect();
        let principal = principals.first().cloned();
        let principal = principal.unwrap_or_else(|| Arc::new(Principal::nobody()));
        let caller = Caller::new(server.clone(), "ws", principal).at(opened.connection.peer);
        if !principals.is_empty() {
            log_events::session_began(&caller.origin());
        }
        let in_flight_max = usize::try_from(server.settings.in_flight_max).unwrap_or(1);
        Self {
            tails: Tails::new(server.settings.subscriptions_max),
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
            principals: Mutex::new(principals),
            principal_changed: Notify::new(),
            mcp_session: opened.mcp_session,
            in_flight: Arc::new(Semaphore::new(in_flight_max)),
            answering: tokio::sync::Mutex::default(),
            began_at: Instant::now(),
            last_received_at: Mutex::new(Instant::now()),
            over,
            caller,
        }
    }

    /// Writes its end to the log, if its client had shown who it is.
    pub fn log_end(&self, end: SessionEnd) {
        if self.is_authenticated() {
            let elapsed_s = self.began_at.elapsed().as_secs();
            log_events::session_ended(&self.caller.origin(), end.name(), elapsed_s);
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

    /// The client has shown a token. Once it has shown one that has scopes, it can show no other one: what
    /// it has begun would outlive its rights.
    pub fn set_principal(&self, principal: Arc<Principal>) -> Result<(), Refusal> {
        let mut principals = lock(&self.principals);
        let shown = principals.iter().find_map(|principal| principal.token);
        if shown.is_some() && shown != principal.token {
            let message = "the session has shown another token; open a session for this one";
            return Err(Refusal::new(ErrorKind::Conflict, message));
        }
        self.caller.set_principal(principal.clone());
        principals.truncate(1);
        principals.push(principal);
        drop(principals);
        log_events::session_began(&self.caller.origin());
        self.principal_changed.notify_one();
        Ok(())
    }

    /// Returns when a token of the client was revoked, replaced or has expired.
    pub async fn token_ended(&self) {
        loop {
            let principals = lock(&self.principals).clone();
            let ended = async {
                match principals.as_slice() {
                    [] => std::future::pending().await,
                    all => {
                        let ended = all.iter().map(|one| Box::pin(one.ended.cancelled()));
                        select_all(ended).await;
                    }
                }
            };
            tokio::select! {
                () = self.principal_changed.notified() => {}
                () = ended => return,
            }
        }
    }

    /// Waits until the requests that are not done are few enough for one more, whose message of `bytes` bytes
    /// has arrived. Meanwhile the session is not read from. The bound is checked only now, so that until then
    /// pings are answered, and the server sees when the client leaves.
    pub async fn wait_for_room(&self, bytes: usize) {
        if self.queued.is_below_max() {
            return;
        }
        // The message is whole: the client cannot make progress with it.
        self.usage.message_complete();
        let waiting = ByteSemaphore::new(u64::MAX, self.usage.clone(), BufferKind::Requests);
        let _held = waiting.add(bytes);
        self.queued.wait_below_max().await;
    }

    /// While it is held, an ordered request is executed and its reply is not queued yet.
    pub(super) async fn answering(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.answering.lock().await
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
