//! A connection that comes back: lost servers are waited for, and servers that a command line had
//! started are started again.
//!
//! What must be asked again after a loss is its user's business; it tells when that is so.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    autostart,
    client::{Client, ConnectError, RequestError},
    holder, proc,
    target::Target,
    wire::WireError,
};
use crate::cli::render::print;

/// First pause between two attempts to connect again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts to connect again.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long somebody else's restart is given before a server that was started by a command line is
/// started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// How soon a server that refuses because it stops says so to its sessions.
const GOING_AWAY_MAX: Duration = Duration::from_millis(500);
/// How long a question is asked again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What to do where no server runs on the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPolicy {
    /// Start one.
    Always,
    /// Start one if there are jobs to ask about.
    IfData,
}

/// Who is told that the server has another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionNotice {
    /// Everybody.
    Always,
    /// Only a person: stderr belongs to somebody else.
    OnTerminal,
}

/// A connection to a server, or the way back to it.
pub struct Link {
    target: Target,
    client: Option<Client>,
    restartable: bool,
    lost_at: Option<Instant>,
    pause: Duration,
}

/// Connects; `None` where [`StartPolicy::IfData`] set_client nothing to ask about.
pub async fn open(
    target: Target,
    start: StartPolicy,
    notice: VersionNotice,
) -> anyhow::Result<Option<Link>> {
    let client = match (&target, Client::connect(&target).await) {
        (_, Ok(client)) => client,
        (Target::Local(layout), Err(ConnectError::Absent(_) | ConnectError::BrokenOff(_))) => {
            if start == StartPolicy::IfData && !layout.database().exists() {
                return Ok(None);
            }
            autostart::connect_or_start(layout).await?
        }
        (Target::Remote { .. }, Err(ConnectError::Absent(place))) => {
            bail!("no server answers at {place}; start one there with `cc-executor serve`")
        }
        (_, Err(error)) => return Err(error.into()),
    };
    print_version_difference(&client, notice);
    let mut link = Link {
        target,
        client: None,
        restartable: false,
        lost_at: None,
        pause: PAUSE_MIN,
    };
    link.set_client(client);
    Ok(Some(link))
}

/// The same for a verb that needs its server in any case.
pub async fn open_always(target: Target, notice: VersionNotice) -> anyhow::Result<Link> {
    match open(target, StartPolicy::Always, notice).await? {
        Some(link) => Ok(link),
        None => bail!("no server could be started"),
    }
}

fn print_version_difference(client: &Client, notice: VersionNotice) {
    let (ours, theirs) = (env!("CARGO_PKG_VERSION"), client.version());
    if ours == theirs {
        return;
    }
    let text = format!(
        "this is version {ours}, the server is version {theirs}; `cc-executor restart` starts the server in version {ours} (running jobs go on)"
    );
    match notice {
        VersionNotice::Always => print::line(&text),
        VersionNotice::OnTerminal => print::line_on_terminal(&text),
    }
}

impl Link {
    /// The connected session; waits for it while the server is away. Cancel-safe.
    pub async fn client(&mut self) -> anyhow::Result<&mut Client> {
        while self.client.is_none() {
            self.reconnect_once().await?;
        }
        match self.client.as_mut() {
            Some(client) => Ok(client),
            None => bail!("the connection was lost while it was being made"),
        }
    }

    /// The session, where there is one right now.
    pub fn connected(&mut self) -> Option<&mut Client> {
        self.client.as_mut()
    }

    /// The session is gone.
    pub fn mark_lost(&mut self) {
        // Whoever stops a server on purpose does not want it started again by us.
        if self
            .client
            .take()
            .is_some_and(|client| client.is_going_away())
        {
            self.restartable = false;
        }
        self.lost_at.get_or_insert_with(Instant::now);
    }

    /// Asks a question that is answered at once; asks again where the server went away meanwhile,
    /// so only for requests that may be asked twice.
    pub async fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let give_up = Instant::now() + RETRY_MAX;
        loop {
            if let Some(result) = self.try_request(method, params).await? {
                return Ok(result);
            }
            // A question is a reason to start a server, whatever became of the last one.
            self.restartable = matches!(self.target, Target::Local(_));
            if Instant::now() > give_up {
                bail!("the server went away before it answered; try again");
            }
        }
    }

    /// Waits until a job is final, across losses.
    pub async fn wait_for_end(&mut self, job: &str) -> anyhow::Result<()> {
        let params = serde_json::json!({"jobs": [job], "until": "final"});
        while self.try_request("job.wait", &params).await?.is_none() {}
        Ok(())
    }

    /// Asks once. `None`: the connection was lost before the answer, and is marked so.
    pub async fn try_request(
        &mut self,
        method: &str,
        params: &Value,
    ) -> anyhow::Result<Option<Value>> {
        match self.client().await?.request(method, params).await {
            Ok(result) => return Ok(Some(result)),
            Err(RequestError::Lost(_)) => {}
            Err(RequestError::Refused(error)) if self.is_stopping(&error).await => {}
            Err(error) => return Err(error.into()),
        }
        self.mark_lost();
        Ok(None)
    }

    /// Whether a refusal only means that this server is about to stop: then it says so, or breaks
    /// the connection soon. A full disk is `unavailable` too, but stays.
    async fn is_stopping(&mut self, error: &WireError) -> bool {
        let Some(client) = self.client.as_mut() else {
            return true;
        };
        if error.code != WireError::UNAVAILABLE {
            return false;
        }
        let going_away = async { while !client.is_going_away() && client.next().await.is_ok() {} };
        timeout(GOING_AWAY_MAX, going_away).await.is_ok()
    }

    async fn reconnect_once(&mut self) -> anyhow::Result<()> {
        match Client::connect(&self.target).await {
            Ok(client) => {
                self.set_client(client);
                return Ok(());
            }
            Err(ConnectError::Refused(why)) => bail!(why),
            Err(ConnectError::Absent(_) | ConnectError::Busy(_) | ConnectError::BrokenOff(_)) => {}
        }
        let away = self.lost_at.get_or_insert_with(Instant::now).elapsed();
        if let Target::Local(layout) = &self.target
            && self.restartable
            && away >= RESTART_AFTER
            && !holder::is_locked(layout)
        {
            let client = autostart::connect_or_start(layout).await?;
            self.set_client(client);
            return Ok(());
        }
        let pause = self.pause;
        self.pause = PAUSE_MAX.min(pause * 2);
        #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
        sleep(pause).await;
        Ok(())
    }

    fn set_client(&mut self, client: Client) {
        self.restartable = client
            .server_pid()
            .and_then(|pid| proc::argv(pid).ok())
            .is_some_and(|argv| autostart::was_autostarted(&argv));
        self.client = Some(client);
        self.lost_at = None;
        self.pause = PAUSE_MIN;
    }
}
