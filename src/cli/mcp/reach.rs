//! Connects to the server for MCP: starts one if there is none, and waits for one that is being restarted.

use std::{pin::Pin, time::Duration};

use anyhow::anyhow;
use tokio::time::{Instant, sleep, sleep_until};

use super::{limits::MessageLimits, socket::McpSocket};
use crate::cli::{
    connect::{
        autostart,
        backoff::ReconnectBackoff,
        client::Client,
        dial::ConnectError,
        holder,
        link::{self, VersionNotice},
        target::Target,
    },
    render::print,
};

/// First pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long to wait for another process to start the server again before this one does: of a server that
/// was started by a command line and did not stop on purpose.
const START_AFTER_CRASH: Duration = Duration::from_millis(500);
/// The same for any other server: its service manager or its user may start it again.
const START_AFTER_STOP: Duration = Duration::from_secs(15);
/// How long to try, on this machine, if there was no connection before.
const FIRST_LOCAL_MAX: Duration = Duration::from_secs(30);
/// The same for a server at an address.
const FIRST_REMOTE_MAX: Duration = Duration::from_secs(5);
/// How long requests wait for a server that was lost.
const LOST_MAX: Duration = Duration::from_secs(600);

/// A connection was lost.
#[derive(Debug, Clone, Copy)]
struct LostServer {
    at: Instant,
    /// Whether this process may soon start a server again.
    is_ours_to_start: bool,
}

/// Which server to connect to, and what is known of it.
#[derive(Debug, Clone)]
pub struct ServerReach {
    target: Target,
    session: String,
    lost: Option<LostServer>,
    version: Option<String>,
    is_autostarted: bool,
    backoff: ReconnectBackoff,
}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Reached, String>>>>;

/// A connection, and what the server accepts on it.
pub struct Reached {
    /// The connection.
    pub socket: McpSocket,
    /// What the server accepts.
    pub limits: MessageLimits,
    version: String,
    is_autostarted: bool,
}

impl ServerReach {
    /// A new session with a server.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            session: uuid::Uuid::now_v7().to_string(),
            lost: None,
            version: None,
            is_autostarted: false,
            backoff: ReconnectBackoff::new(),
        }
    }

    /// The connection is there.
    pub fn on_reached(&mut self, reached: &Reached) {
        self.lost = None;
        self.version = Some(reached.version.clone());
        self.is_autostarted = reached.is_autostarted;
    }

    /// Whether there was a connection at any time.
    pub fn was_reached(&self) -> bool {
        self.version.is_some()
    }

    /// The connection is lost; `is_planned`: the server was stopped on purpose.
    pub fn on_lost(&mut self, is_planned: bool) {
        self.lost = Some(LostServer {
            at: Instant::now(),
            is_ours_to_start: self.is_autostarted && !is_planned,
        });
    }

    /// A request was answered: if the connection is lost now, another one is made at once.
    pub fn on_progress(&mut self) {
        self.backoff.on_progress();
    }

    /// Connects when the next try is due. An error says why that is not possible, and what to do.
    pub fn begin(&mut self) -> Connecting {
        let (next_try, reach) = (self.backoff.next_try(), self.clone());
        self.backoff.on_try();
        Box::pin(async move {
            sleep_until(next_try).await;
            reach.connect().await
        })
    }

    async fn connect(self) -> Result<Reached, String> {
        let give_up = self.give_up_at();
        let mut pause = PAUSE_MIN;
        loop {
            let failed = match self.try_once().await {
                Ok(reached) => return Ok(reached),
                Err(ConnectError::Refused(why)) => return Err(why),
                Err(failed) => failed,
            };
            if let Target::Local(layout) = &self.target
                && self.may_start(&failed)
                && !holder::is_locked(layout)
            {
                let started = autostart::connect_or_start(layout).await;
                drop(started.map_err(|error| print::chain(&error))?);
                continue;
            }
            if Instant::now() >= give_up {
                return Err(self.explain(failed));
            }
            #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
            sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    fn give_up_at(&self) -> Instant {
        let first = match self.target {
            Target::Local(_) => FIRST_LOCAL_MAX,
            Target::Remote { .. } => FIRST_REMOTE_MAX,
        };
        let soon = Instant::now() + first;
        self.lost.map_or(soon, |lost| soon.max(lost.at + LOST_MAX))
    }

    /// Whether to start a server. One that is there but busy needs none.
    fn may_start(&self, failed: &ConnectError) -> bool {
        let is_gone = matches!(failed, ConnectError::Absent(_) | ConnectError::BrokenOff(_));
        let is_time = match self.lost {
            None => true,
            Some(lost) if lost.is_ours_to_start => lost.at.elapsed() >= START_AFTER_CRASH,
            Some(lost) => lost.at.elapsed() >= START_AFTER_STOP,
        };
        is_gone && is_time
    }

    /// A session of the command line's own protocol tells the server's version and limits, and whether
    /// the two versions can talk at all; then the one for MCP.
    async fn try_once(&self) -> Result<Reached, ConnectError> {
        let client = Client::connect(&self.target).await?;
        if self.version.as_deref() != Some(client.version()) {
            link::print_version_difference(&client, VersionNotice::Always);
        }
        let socket = McpSocket::open(&self.target, &self.session).await?;
        let default = MessageLimits::default();
        let bytes_max = client.limit("message_bytes_max");
        let bytes_max = bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        Ok(Reached {
            socket,
            limits: MessageLimits {
                bytes_max: bytes_max.unwrap_or(default.bytes_max),
                depth_max: client.limit("json_depth_max").unwrap_or(default.depth_max),
            },
            version: client.version().to_owned(),
            is_autostarted: link::is_autostarted(&client),
        })
    }

    fn explain(&self, failed: ConnectError) -> String {
        match (failed, &self.target) {
            (ConnectError::Absent(place), Target::Remote { .. }) => {
                format!("no server answers at {place}; start one there with `cc-executor serve`")
            }
            (failed, _) => print::chain(&anyhow!(failed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Layout;

    fn local() -> ServerReach {
        ServerReach::new(Target::Local(Layout::new("/no/such/place")))
    }

    fn absent() -> ConnectError {
        ConnectError::Absent(String::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_started_when_nobody_else_had_time_to_do_it() {
        let mut reach = local();
        assert!(reach.may_start(&absent()), "there was none");
        assert!(!reach.may_start(&ConnectError::Busy(String::new())));
        for (is_autostarted, is_planned, wait) in [
            (true, false, START_AFTER_CRASH),
            (true, true, START_AFTER_STOP),
            (false, false, START_AFTER_STOP),
        ] {
            reach.is_autostarted = is_autostarted;
            reach.on_lost(is_planned);
            assert!(!reach.may_start(&absent()));
            tokio::time::advance(wait).await;
            assert!(reach.may_start(&absent()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_lost_is_waited_for_longer_than_one_that_never_was_there() {
        let mut reach = local();
        assert_eq!(reach.give_up_at(), Instant::now() + FIRST_LOCAL_MAX);
        reach.on_lost(false);
        assert_eq!(reach.give_up_at(), Instant::now() + LOST_MAX);
        tokio::time::advance(LOST_MAX).await;
        assert_eq!(reach.give_up_at(), Instant::now() + FIRST_LOCAL_MAX);
    }
}
