//! One connection to a server: connects, reads the greeting, sends requests, receives messages.
//! `link` reconnects after a loss.

use std::{io::ErrorKind, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, Request, header},
        protocol::WebSocketConfig,
    },
};

use super::{
    target::{Secret, Target},
    wire::{self, ServerMessage, WireError},
};
use crate::{data_dir::OwnDir, spool::Layout};

/// How long connecting may take, up to the greeting.
const GREETING_MAX: Duration = Duration::from_secs(30);
/// Silence on TCP after which the client sends a ping.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Unanswered pings after which a TCP connection counts as lost.
const PINGS_MAX: u32 = 3;

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// No process listens there.
    #[error("no server answers at {0}")]
    Absent(String),
    /// A process listens but does not take the connection now: trying again later may help.
    #[error("{0}")]
    Busy(String),
    /// The server closed the connection before its greeting, as one does that is stopping: the next
    /// try finds its successor, or none.
    #[error("{0}")]
    BrokenOff(String),
    /// Trying again does not help.
    #[error("{0}")]
    Refused(String),
}

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
    /// The request is longer than any message may be.
    #[error("the request has {0} bytes, but at most {max} are allowed; leave something out (the environment with --clean-env)", max = wire::MESSAGE_BYTES_MAX)]
    TooLong(usize),
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A session after its greeting.
pub struct Client {
    ws: WebSocketStream<Box<dyn Io>>,
    next_id: u64,
    version: String,
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
        if text.len() > wire::MESSAGE_BYTES_MAX {
            return Err(RequestError::TooLong(text.len()));
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

#[allow(clippy::needless_pass_by_value)]
fn lost(error: tungstenite::Error) -> Lost {
    Lost(error.to_string())
}

/// The process id of the listener on the socket of a data directory, from the kernel and without a
/// word sent; 0 if it is in another PID namespace.
pub async fn listener_pid(layout: &Layout) -> Result<Option<i32>, ConnectError> {
    unix(layout).await.map(|(_, pid)| pid)
}

async fn connect(target: &Target) -> Result<Client, ConnectError> {
    let (stream, peer) = match target {
        Target::Local(layout) => unix(layout).await?,
        Target::Remote { address, .. } => (tcp(address).await?, None),
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(wire::MESSAGE_BYTES_MAX))
        .max_frame_size(Some(wire::MESSAGE_BYTES_MAX));
    let (ws, _) = client_async_with_config(upgrade(target)?, stream, Some(config))
        .await
        .map_err(upgrade_error)?;
    let mut client = Client {
        ws,
        next_id: 1,
        version: String::new(),
        server_pid: peer,
        sends_pings: matches!(target, Target::Remote { .. }),
        going_away: false,
    };
    client.version = greeting(client.next().await)?;
    Ok(client)
}

/// Connects to the socket. The path goes through a descriptor of the directory, because the path of
/// a Unix socket has at most 107 bytes. Checks the listener's user before anything is sent.
async fn unix(layout: &Layout) -> Result<(Box<dyn Io>, Option<i32>), ConnectError> {
    let here = || layout.root().display().to_string();
    let dir = OwnDir::open(layout.root())
        .map_err(|error| ConnectError::Refused(error.to_string()))?
        .ok_or_else(|| ConnectError::Absent(here()))?;
    let stream = UnixStream::connect(dir.short_path(Layout::SOCKET))
        .await
        .map_err(|error| connect_error(&error, here()))?;
    let peer = stream
        .peer_cred()
        .map_err(|error| connect_error(&error, here()))?;
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(ConnectError::Refused(format!(
            "a process of user {} listens in {}, not a server of yours; nothing was sent. Remove {} and start a server",
            peer.uid(),
            here(),
            layout.socket().display()
        )));
    }
    Ok((Box::new(stream), peer.pid()))
}

async fn tcp(address: &str) -> Result<Box<dyn Io>, ConnectError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| connect_error(&error, address.to_owned()))?;
    // Requests are single small frames: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    Ok(Box::new(stream))
}

fn connect_error(error: &std::io::Error, place: String) -> ConnectError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ConnectError::Absent(place),
        ErrorKind::PermissionDenied | ErrorKind::NotADirectory => {
            ConnectError::Refused(format!("the server at {place} cannot be reached: {error}"))
        }
        _ => ConnectError::Busy(format!("the server at {place} cannot be reached: {error}")),
    }
}

fn upgrade(target: &Target) -> Result<Request<()>, ConnectError> {
    let (host, token) = match target {
        Target::Local(_) => ("localhost", None),
        Target::Remote { address, token } => (address.as_str(), token.as_ref()),
    };
    let refused = |what: String| ConnectError::Refused(what);
    let mut request = format!("ws://{host}/ws")
        .into_client_request()
        .map_err(|error| refused(format!("{host} is not an address: {error}")))?;
    if let Some(Secret(token)) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| refused("the token contains characters that no token has".to_owned()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(request)
}

fn upgrade_error(error: tungstenite::Error) -> ConnectError {
    let tungstenite::Error::Http(response) = &error else {
        return ConnectError::BrokenOff(format!("the server broke off the connection: {error}"));
    };
    match response.status().as_u16() {
        401 => ConnectError::Refused(NO_TOKEN.to_owned()),
        503 => ConnectError::Busy(
            "the server has reached its limit of sessions; try again later, or raise that limit"
                .to_owned(),
        ),
        status => ConnectError::Refused(format!(
            "the server answered HTTP {status} instead of opening a session; is it a cc-executor server, and is this host in its allowed_hosts?"
        )),
    }
}

const NO_TOKEN: &str = "the server requires a token, or refuses this one; give --token-file FILE (on its machine, `cc-executor token` prints it)";

/// The version in a `server.hello`.
fn greeting(first: Result<ServerMessage, Lost>) -> Result<String, ConnectError> {
    let params = match first {
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
    Ok(version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hello(params: Value) -> Result<String, ConnectError> {
        greeting(Ok(ServerMessage::Notification {
            method: "server.hello".to_owned(),
            params,
        }))
    }

    #[test]
    fn a_greeting_tells_the_version() {
        let fine = hello(json!({"version": "9.9.9", "protocol": 1, "auth": "ok"}));
        assert_eq!(fine.expect("greeted"), "9.9.9");
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
