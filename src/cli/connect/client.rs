//! One connection to a server: connects, reads the greeting, sends requests, receives messages.
//! `link` reconnects after a loss.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, http::HeaderMap},
};

use super::{
    dial::{ConnectError, Dialed, Io, NO_TOKEN, dial},
    target::Target,
    wire::{self, ServerMessage, WireError},
};

/// How long connecting may take, up to the greeting.
const GREETING_MAX: Duration = Duration::from_secs(30);
/// Silence on TCP after which the client sends a ping.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Unanswered pings after which a TCP connection counts as lost.
const PINGS_MAX: u32 = 3;

/// The connection is gone; with the reason, as far as it is known.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the connection to the server was lost: {0}")]
pub struct Lost(String);

/// Why a request has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The connection is gone; whether the server has acted is unknown.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The server refused.
    #[error("{}", crate::escape::visible(&.0.message))]
    Refused(WireError),
    /// The request is longer than the server takes, and was not sent.
    #[error("the request has {bytes} bytes, but at most {max} are allowed; {remedy}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest that the server takes.
        max: usize,
        /// What to do.
        remedy: &'static str,
    },
}

/// A session after its greeting.
pub struct Client {
    ws: WebSocketStream<Box<dyn Io>>,
    next_id: u64,
    version: String,
    limits: Value,
    server_pid: Option<i32>,
    sends_pings: bool,
    going_away: bool,
}

impl Client {
    /// Connects and reads the greeting.
    pub async fn connect(target: &Target) -> Result<Self, ConnectError> {
        match timeout(GREETING_MAX, connect(target)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Busy(format!(
                "the server at {target} accepted the connection but does not answer"
            ))),
        }
    }

    /// The server's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// One of the server's limits, from its greeting; `None` if it did not tell.
    pub fn limit(&self, name: &str) -> Option<u64> {
        self.limits[name].as_u64()
    }

    /// The longest message that the server takes, bytes.
    fn message_bytes_max(&self) -> usize {
        let told = self.limit("message_bytes_max");
        let told = told.and_then(|bytes| usize::try_from(bytes).ok());
        told.unwrap_or(wire::MESSAGE_BYTES_MAX)
    }

    /// The server's process id, from the kernel; `None` over TCP, 0 if the server is in another PID
    /// namespace.
    pub fn server_pid(&self) -> Option<i32> {
        self.server_pid
    }

    /// Whether the server has announced its stop (`server.going_away`).
    pub fn is_going_away(&self) -> bool {
        self.going_away
    }

    /// Sends a request and returns its id. [`Self::next`] returns the reply.
    pub async fn send(&mut self, method: &str, params: &Value) -> Result<u64, RequestError> {
        let id = self.next_id;
        let text = wire::request(id, method, params);
        let max = self.message_bytes_max();
        if text.len() > max {
            return Err(RequestError::TooLong {
                bytes: text.len(),
                max,
                remedy: remedy(method),
            });
        }
        self.next_id += 1;
        self.ws.send(Message::text(text)).await.map_err(lost)?;
        Ok(id)
    }

    /// Sends a request and waits for its result. Drops notifications that come before it, so it is
    /// for sessions without a tail.
    pub async fn request(&mut self, method: &str, params: &Value) -> Result<Value, RequestError> {
        let sent = self.send(method, params).await?;
        loop {
            match self.next().await? {
                ServerMessage::Reply { id, result } if id == sent => {
                    return result.map_err(RequestError::Refused);
                }
                _ => {}
            }
        }
    }

    /// The next reply, notification or output frame. Cancel-safe.
    pub async fn next(&mut self) -> Result<ServerMessage, Lost> {
        loop {
            match self.next_message().await? {
                Message::Text(text) => {
                    let incoming = wire::text(&text).map_err(|e| Lost(e.to_string()))?;
                    self.going_away |= incoming.is_going_away();
                    return Ok(incoming);
                }
                Message::Binary(bytes) => {
                    let frame = wire::binary(&bytes).map_err(|e| Lost(e.to_string()))?;
                    return Ok(ServerMessage::Output(frame));
                }
                Message::Close(Some(frame)) if !frame.reason.is_empty() => {
                    return Err(Lost(frame.reason.to_string()));
                }
                Message::Close(_) => return Err(Lost("the server closed it".to_owned())),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// The next WebSocket message. On TCP it pings a silent server: a host that has vanished sends
    /// nothing, and the connection would look alive for ever.
    async fn next_message(&mut self) -> Result<Message, Lost> {
        let mut pings = 0;
        loop {
            let message = if self.sends_pings {
                timeout(SILENCE_MAX, self.ws.next()).await
            } else {
                Ok(self.ws.next().await)
            };
            match message {
                Ok(Some(message)) => return message.map_err(lost),
                Ok(None) => return Err(Lost("the server closed it".to_owned())),
                Err(_) if pings == PINGS_MAX => return Err(Lost("no sign of life".to_owned())),
                Err(_) => self
                    .ws
                    .send(Message::Ping(Default::default()))
                    .await
                    .map_err(lost)?,
            }
            pings += 1;
        }
    }
}

/// What to do about a request of this method that is too long.
fn remedy(method: &str) -> &'static str {
    match method {
        "job.submit" | "job.submit_many" | "schedule.set" => {
            "leave something out (the environment with --clean-env)"
        }
        _ => "leave something out",
    }
}

#[allow(clippy::needless_pass_by_value)]
fn lost(error: tungstenite::Error) -> Lost {
    Lost(error.to_string())
}

async fn connect(target: &Target) -> Result<Client, ConnectError> {
    let Dialed { ws, server_pid } = dial(target, "/ws", HeaderMap::new()).await?;
    let mut client = Client {
        ws,
        next_id: 1,
        version: String::new(),
        limits: Value::Null,
        server_pid,
        sends_pings: matches!(target, Target::Remote { .. }),
        going_away: false,
    };
    (client.version, client.limits) = greeting(client.next().await)?;
    Ok(client)
}

/// The version and the limits in a `server.hello`.
fn greeting(first: Result<ServerMessage, Lost>) -> Result<(String, Value), ConnectError> {
    let mut params = match first {
        Ok(ServerMessage::Notification { method, params }) if method == "server.hello" => params,
        Ok(_) => return Err(ConnectError::Refused("the server did not greet".to_owned())),
        Err(error) => return Err(ConnectError::BrokenOff(error.to_string())),
    };
    let version = params["version"].as_str().unwrap_or("unknown").to_owned();
    if params["protocol"].as_u64() != Some(wire::PROTOCOL) {
        return Err(ConnectError::Refused(format!(
            "the server (version {version}) uses protocol {}, this is version {} with protocol {}; `cc-executor restart` starts the server in this version",
            params["protocol"],
            env!("CARGO_PKG_VERSION"),
            wire::PROTOCOL,
        )));
    }
    if params["auth"] == "required" {
        return Err(ConnectError::Refused(NO_TOKEN.to_owned()));
    }
    Ok((version, params["limits"].take()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hello(params: Value) -> Result<(String, Value), ConnectError> {
        greeting(Ok(ServerMessage::Notification {
            method: "server.hello".to_owned(),
            params,
        }))
    }

    #[test]
    fn a_greeting_tells_the_version_and_the_limits() {
        let fine =
            hello(json!({"version": "9.9.9", "protocol": 1, "auth": "ok", "limits": {"n": 7}}));
        assert_eq!(
            fine.expect("greeted"),
            ("9.9.9".to_owned(), json!({"n": 7}))
        );
    }

    #[test]
    fn another_protocol_names_both_versions_and_the_remedy() {
        let error = hello(json!({"version": "9.9.9", "protocol": 2, "auth": "ok"}));
        let text = error.expect_err("refused").to_string();
        for part in ["9.9.9", env!("CARGO_PKG_VERSION"), "restart"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_session_that_needs_a_token_says_how_to_get_one() {
        let error = hello(json!({"version": "1", "protocol": 1, "auth": "required"}));
        assert!(
            error
                .expect_err("refused")
                .to_string()
                .contains("--token-file")
        );
    }
}
