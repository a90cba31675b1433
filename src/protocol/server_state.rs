//! What the doors share: the executor, the settings, and what is counted over all clients.

use std::{path::PathBuf, sync::Arc, time::Instant};

use axum::http::HeaderMap;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ErrorKind,
    auth::{self, Bearer},
    limits::{
        memory_budget::MemoryBudget, offload::ParserThread, rate_limit::FairQueue,
        session_slots::SessionSlots,
    },
    origin,
    peer::Peer,
    problem::HttpProblem,
    refusals::{RefusalLog, RefusalReason},
};
use crate::{config::Settings, executor::Executor};

/// What the doors tell about the server, besides what the executor knows.
#[derive(Debug, Clone)]
pub struct ServerAddresses {
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// The Unix socket.
    pub socket: PathBuf,
    /// The TCP address as bound, `HOST:PORT`.
    pub listen: Option<String>,
}

/// Everything that the doors share.
#[derive(Debug)]
pub struct ServerState {
    /// Does the work.
    pub executor: Executor,
    /// The bounds.
    pub settings: Settings,
    /// Opens TCP.
    pub token: auth::Token,
    /// Which Host and Origin are answered on TCP, and which Origin on the Unix socket.
    pub origins: origin::Allowed,
    /// Who is in.
    pub sessions: Arc<SessionSlots>,
    /// What clients are refused, for the log.
    pub refusals: RefusalLog,
    /// The turns of those that ask too fast.
    pub floods: Arc<FairQueue>,
    /// What all sessions hold together.
    pub hoard: Arc<MemoryBudget>,
    /// Where long messages are read and made.
    pub aside: ParserThread,
    /// Where we are.
    pub place: ServerAddresses,
    /// Since when we serve.
    pub started: Instant,
    /// No new work: a drain has begun.
    pub draining: CancellationToken,
    /// Everybody leaves.
    pub stopping: CancellationToken,
    /// Connections and sessions that are still being served.
    pub tasks: TaskTracker,
}

impl ServerState {
    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Whether the sender of a request may do everything; a wrong token is refused wherever it comes.
    pub fn authenticated(&self, peer: Peer, headers: &HeaderMap) -> Result<bool, HttpProblem> {
        match self.token.check(headers) {
            Bearer::Right => Ok(true),
            Bearer::Absent => Ok(peer.is_trusted()),
            Bearer::Wrong => {
                self.refusals.tell(peer, RefusalReason::WrongBearer);
                Err(HttpProblem::new(
                    ErrorKind::Unauthenticated,
                    "the token is wrong",
                ))
            }
        }
    }
}
