//! The state that all connections share: the executor, the settings, and the bounds over all clients.

use std::{path::PathBuf, sync::Arc, time::Instant};

use axum::{extract::Request, http::HeaderMap};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ErrorKind,
    auth::Bearer,
    limits::{
        memory_budget::MemoryBudget, offload::ParserThread, rate_limit::FairQueue,
        session_slots::SessionSlots,
    },
    mcp::McpShared,
    origin,
    peer::Peer,
    problem::HttpProblem,
    refusals::{RefusalLog, RefusalReason},
    tokens::{Tokens, WrongToken},
};
use crate::{access::Principal, config::Settings, executor::Executor};

/// Where the server can be reached, and where its data is.
#[derive(Debug, Clone)]
pub struct ServerAddresses {
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// The path of the Unix socket, absolute.
    pub socket: PathBuf,
    /// The TCP address as bound, `HOST:PORT`; `None` without TCP.
    pub listen: Option<String>,
}

/// The client that a request shows; an extension of the request.
pub type ShownClient = Result<Option<Arc<Principal>>, WrongToken>;

/// The state that all connections share.
#[derive(Debug)]
pub struct ServerState {
    /// Executes all methods.
    pub executor: Executor,
    /// The settings in force.
    pub settings: Settings,
    /// The tokens that clients show.
    pub tokens: Tokens,
    /// The rights of the server's own user on the Unix socket.
    pub owner: Arc<Principal>,
    /// Which Host and Origin are answered on TCP, and which Origin on the Unix socket.
    pub origins: origin::Allowed,
    /// The slots for sessions.
    pub sessions: Arc<SessionSlots>,
    /// Logs refused clients.
    pub refusals: RefusalLog,
    /// The queue of sessions that have used up their burst of requests.
    pub fair_queue: Arc<FairQueue>,
    /// What all sessions together hold in memory.
    pub memory_budget: Arc<MemoryBudget>,
    /// The permits of `job.submit_many` with many jobs.
    pub large_batches: Semaphore,
    /// The thread that parses and writes long messages.
    pub parser: ParserThread,
    /// What all MCP sessions share.
    pub mcp: McpShared,
    /// The data directory and the addresses.
    pub addresses: ServerAddresses,
    /// When the server began to serve.
    pub started: Instant,
    /// Cancelled when a drain begins: no new jobs.
    pub draining: CancellationToken,
    /// Cancelled when the server stops: all connections end.
    pub stopping: CancellationToken,
    /// The tasks of connections and sessions.
    pub tasks: TaskTracker,
}

impl ServerState {
    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// The client of a request by what it shows; `None`: it has to show a token. A token counts on the Unix
    /// socket, too: its client has the rights of the token.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> ShownClient {
        match Bearer::of(headers) {
            Bearer::Token(text) => self.tokens.recognize(text).map(Some),
            Bearer::Absent => Ok(peer.is_trusted().then(|| self.owner.clone())),
            Bearer::Wrong => Err(WrongToken::Unknown),
        }
    }

    /// Reports a refused client in the log; where it lacks a right, it counts for the audit trail.
    pub fn refused(&self, peer: Peer, reason: RefusalReason) {
        self.refusals.report(peer, reason);
        if reason.is_of_rights() {
            let door = match peer {
                Peer::Unix { .. } => "unix",
                Peer::Tcp(_) => "tcp",
            };
            let origin = peer.origin(door, Principal::NOBODY);
            let action = "session.authenticate";
            self.executor.count_refusal(origin, action, reason.name());
        }
    }

    /// The client that a request has shown.
    ///
    /// # Errors
    ///
    /// It has shown a wrong token.
    pub fn shown(
        &self,
        peer: Peer,
        request: &Request,
    ) -> Result<Option<Arc<Principal>>, HttpProblem> {
        let shown = request.extensions().get::<ShownClient>().cloned();
        shown.unwrap_or(Ok(None)).map_err(|wrong| {
            self.refused(peer, RefusalReason::WrongBearer);
            HttpProblem::new(ErrorKind::Unauthenticated, wrong.to_string())
        })
    }
}
