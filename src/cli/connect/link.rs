//! A connection that reconnects: it waits for a server that is gone, and starts one again that was
//! autostarted. The caller repeats its requests after a loss, or uses [`Link::request`].

use std::{cell::Cell, time::Duration};

use anyhow::bail;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    autostart,
    backoff::ReconnectBackoff,
    client::{Client, RequestError},
    dial::ConnectError,
    holder, proc,
    target::Target,
    wire::WireError,
};
use crate::cli::render::print;

/// Pause between two attempts to connect for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait for a restart by another process before an autostarted server is started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// Longest time from a refusal because of a stop to the `server.going_away` that announces it.
const GOING_AWAY_MAX: Duration = Duration::from_millis(500);
/// How long [`Link::request`] repeats a request after losses.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What to do if no server runs on the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPolicy {
    /// Start one.
    Always,
    /// Start one if the data directory has a database, so that there may be jobs.
    IfData,
}

/// When to print that the server has another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionNotice {
    /// In any case.
    Always,
    /// Only on a terminal: otherwise stderr belongs to the job.
    OnTerminal,
}

/// A connection to a server that is made again after a loss.
pub struct Link {
    target: Target,
    client: Option<Client>,
    restartable: bool,
    lost_at: Option<Instant>,
    backoff: ReconnectBackoff,
}

/// What became of a request that was sent once.
enum SentRequest {
    Reply(Value),
    /// The server refused it because it is stopping: nothing was done.
    Stopping,
    /// The connection was lost before the reply; whether the server has acted is unknown.
    Lost,
}

/// Connects; `None` if [`StartPolicy::IfData`] found no database.
pub async fn open(
    target: Target,
    start: StartPolicy,
    notice: VersionNotice,
) -> anyhow::Result<Option<Link>> {
    let client = match (&target, connect_first(&target).await) {
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
    let mut link = Link::unconnected(target);
    link.set_client(client);
    Ok(Some(link))
}

/// Connects. A server that broke off the connection was there a moment ago, so that another process may
/// be about to start it again: that has a moment to do so.
async fn connect_first(target: &Target) -> Result<Client, ConnectError> {
    let began = Instant::now();
    let mut broken_off = false;
    loop {
        let error = match Client::connect(target).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        broken_off |= matches!(error, ConnectError::BrokenOff(_));
        let is_gone = matches!(error, ConnectError::BrokenOff(_) | ConnectError::Absent(_));
        if !is_gone || !broken_off || began.elapsed() >= RESTART_AFTER {
            return Err(error);
        }
        #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
        sleep(FIRST_PAUSE).await;
    }
}

/// Connects, and starts a server if none runs.
pub async fn open_always(target: Target, notice: VersionNotice) -> anyhow::Result<Link> {
    match open(target, StartPolicy::Always, notice).await? {
        Some(link) => Ok(link),
        None => bail!("no server could be started"),
    }
}

/// Prints that the server has another version than this command, if it has.
pub fn print_version_difference(client: &Client, notice: VersionNotice) {
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

/// Whether a command line has started the server, so that it may be started again.
pub fn is_autostarted(client: &Client) -> bool {
    client
        .server_pid()
        .and_then(|pid| proc::argv(pid).ok())
        .and_then(|argv| argv.get(1..).map(autostart::was_autostarted))
        .unwrap_or(false)
}

impl Link {
    /// A connection that is made by its first request, and waits for a server without starting one.
    pub fn unconnected(target: Target) -> Self {
        Self {
            target,
            client: None,
            restartable: false,
            lost_at: None,
            backoff: ReconnectBackoff::new(),
        }
    }

    /// The connected session; waits while the server is gone. Cancel-safe.
    pub async fn client(&mut self) -> anyhow::Result<&mut Client> {
        while self.client.is_none() {
            self.reconnect_once().await?;
        }
        match self.client.as_mut() {
            Some(client) => Ok(client),
            None => bail!("the connection was lost while it was being made"),
        }
    }

    /// What was asked for goes on: if the connection is lost now, another one is made at once.
    pub fn on_progress(&mut self) {
        self.backoff.on_progress();
    }

    /// The session, if it is connected right now.
    pub fn connected(&mut self) -> Option<&mut Client> {
        self.client.as_mut()
    }

    /// Drops the session; the next use connects again.
    pub fn mark_lost(&mut self) {
        // A server that was stopped on purpose must not be started again.
        if self
            .client
            .take()
            .is_some_and(|client| client.is_going_away())
        {
            self.restartable = false;
        }
        self.lost_at.get_or_insert_with(Instant::now);
    }

    /// Sends a request that the server answers at once, and repeats it if the server went away:
    /// only for requests that do no harm when they are done twice.
    pub async fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        self.submit(method, params, &Cell::new(false)).await
    }

    /// The same for a request that makes jobs, each with an idempotency key. `may_exist` is set while the
    /// server may have made them without our knowing: until a reply comes, and after a reply that was lost.
    pub async fn submit(
        &mut self,
        method: &str,
        params: &Value,
        may_exist: &Cell<bool>,
    ) -> anyhow::Result<Value> {
        let give_up = Instant::now() + RETRY_MAX;
        let mut was_lost = may_exist.get();
        loop {
            self.client().await?;
            may_exist.set(true);
            let attempt = self.attempt(method, params).await;
            was_lost |= matches!(attempt, Ok(SentRequest::Lost));
            may_exist.set(was_lost);
            if let SentRequest::Reply(result) = attempt? {
                may_exist.set(false);
                self.on_progress();
                return Ok(result);
            }
            // This request needs a server, even if the last one was stopped on purpose.
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

    /// Sends a request once. `None` if the connection was lost before the reply; whether the server
    /// has acted is unknown then.
    pub async fn try_request(
        &mut self,
        method: &str,
        params: &Value,
    ) -> anyhow::Result<Option<Value>> {
        let reply = self.try_subscribe(method, params).await?;
        if reply.is_some() {
            self.on_progress();
        }
        Ok(reply)
    }

    /// The same for a request whose reply is no progress, because what it begins may be lost at once.
    pub async fn try_subscribe(
        &mut self,
        method: &str,
        params: &Value,
    ) -> anyhow::Result<Option<Value>> {
        Ok(match self.attempt(method, params).await? {
            SentRequest::Reply(reply) => Some(reply),
            SentRequest::Stopping | SentRequest::Lost => None,
        })
    }

    async fn attempt(&mut self, method: &str, params: &Value) -> anyhow::Result<SentRequest> {
        let attempt = match self.client().await?.request(method, params).await {
            Ok(result) => return Ok(SentRequest::Reply(result)),
            Err(RequestError::Lost(_)) => SentRequest::Lost,
            Err(RequestError::Refused(error)) if self.is_stopping(&error).await => {
                SentRequest::Stopping
            }
            Err(error) => return Err(error.into()),
        };
        self.mark_lost();
        Ok(attempt)
    }

    /// Whether the server refused because it is stopping: then it soon sends `server.going_away` or
    /// closes the connection. A full disk is `unavailable` too, but the connection stays.
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

    /// Cancel-safe: the time of the next try stays while it is waited for.
    async fn reconnect_once(&mut self) -> anyhow::Result<()> {
        sleep_until(self.backoff.next_try()).await;
        self.backoff.on_try();
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
        }
        Ok(())
    }

    fn set_client(&mut self, client: Client) {
        self.restartable = is_autostarted(&client);
        self.client = Some(client);
        self.lost_at = None;
    }
}
