//! The state that all connections share: the executor, the settings, and the bounds over all clients.

use std::{path::PathBuf, sync::Arc, time::Instant};

use axum::http::HeaderMap;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ErrorKind,
    auth::{self, Bearer},
    limits::{
        memory_budget::MemoryBudget, offload::ParserThread, rate_limit::FairQueue,
        session_slots::SessionSlots,
    },
    mcp::McpShared,
    origin,
    peer::Peer,
    problem::HttpProblem,
    refusals::{RefusalLog, RefusalReason},
};
use crate::{config::Settings, executor::Executor};

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

/// The state that all connections share.
#[derive(Debug)]
pub struct ServerState {
    /// Executes all methods.
    pub executor: Executor,
    /// The settings in force.
    pub settings: Settings,
    /// The token that clients show on TCP.
    pub token: auth::Token,
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

    /// Whether the client of a request may call every method.
    ///
    /// # Errors
    ///
    /// It shows a wrong token, which is refused on the Unix socket, too.
    pub fn authenticated(&self, peer: Peer, headers: &HeaderMap) -> Result<bool, HttpProblem> {
        match self.token.check(headers) {
            Bearer::Right => Ok(true),
            Bearer::Absent => Ok(peer.is_trusted()),
            Bearer::Wrong => {
                self.refusals.report(peer, RefusalReason::WrongBearer);
                Err(HttpProblem::new(
                    ErrorKind::Unauthenticated,
                    "the token is wrong",
                ))
            }
        }
    }
}
