//! THE DOORS: the only code that knows a wire format. HTTP and WebSocket, over a Unix socket and
//! TCP; every door calls the same [`Executor`].
//!
//! What a job is and how it runs is not known here.

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config::Settings, executor::Executor};

pub mod auth;
mod encode;
mod http;
mod jsonrpc;
mod kind;
pub mod limits;
pub mod listener;
pub mod origin;
mod problem;
mod refusals;
mod sub_protocol;
mod ws;

pub use kind::Kind;
pub use limits::session_slots::{Seat, Sessions};
pub use refusals::{Reason, Refusals};
pub use ws::{Aside, Floods, Hoard};

/// What the doors tell about the server, besides what the executor knows.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// The Unix socket.
    pub socket: PathBuf,
    /// The TCP address as bound, `HOST:PORT`.
    pub listen: Option<String>,
}

/// Everything that the doors share.
#[derive(Debug)]
pub struct Door {
    /// Does the work.
    pub executor: Executor,
    /// The bounds.
    pub settings: Settings,
    /// Opens TCP.
    pub token: auth::Token,
    /// Which Host and Origin are answered on TCP, and which Origin on the Unix socket.
    pub origins: origin::Allowed,
    /// Who is in.
    pub sessions: Arc<Sessions>,
    /// What clients are refused, for the log.
    pub refusals: Refusals,
    /// The turns of those that ask too fast.
    pub floods: Arc<Floods>,
    /// What all sessions hold together.
    pub hoard: Arc<Hoard>,
    /// Where long messages are read and made.
    pub aside: Aside,
    /// Where we are.
    pub place: Place,
    /// Since when we serve.
    pub started: Instant,
    /// No new work: a drain has begun.
    pub draining: CancellationToken,
    /// Everybody leaves.
    pub stopping: CancellationToken,
    /// Connections and sessions that are still being served.
    pub tasks: TaskTracker,
}

impl Door {
    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}
