//! Opens a WebSocket to a server: the socket, the upgrade, and why it failed. `client` and `mcp` speak
//! on it.

use std::io::ErrorKind;

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest,
        error::ProtocolError,
        http::{HeaderMap, HeaderValue, Request, header},
        protocol::WebSocketConfig,
    },
};

use super::target::{Secret, Target};
use crate::{config::MESSAGE_BYTES_LIMIT, data_dir::OwnDir, spool::Layout};

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

/// The text for a client without a token, or with a wrong one.
pub const NO_TOKEN: &str = "the server requires a token, or refuses this one; give --token-file FILE (on its machine, `cc-executor token` prints it)";

/// A stream to a server: a Unix socket or a TCP connection.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A WebSocket before its first message.
pub struct Dialed {
    /// The messages, at most [`MESSAGE_BYTES_LIMIT`] each: the server may be set to send longer ones
    /// than usual.
    pub ws: WebSocketStream<Box<dyn Io>>,
    /// The server's process id, from the kernel; `None` over TCP, 0 if the server is in another PID
    /// namespace.
    pub server_pid: Option<i32>,
}

/// Connects to a path of the server, such as `/ws`, with more headers for the upgrade.
pub async fn dial(target: &Target, path: &str, more: HeaderMap) -> Result<Dialed, ConnectError> {
    let (stream, server_pid) = match target {
        Target::Local(layout) => unix(layout).await?,
        Target::Remote { address, .. } => (tcp(address).await?, None),
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_LIMIT))
        .max_frame_size(Some(MESSAGE_BYTES_LIMIT));
    let mut request = upgrade(target, path)?;
    request.headers_mut().extend(more);
    let (ws, _) = client_async_with_config(request, stream, Some(config))
        .await
        .map_err(upgrade_error)?;
    Ok(Dialed { ws, server_pid })
}

/// The process id of the listener on the socket of a data directory, from the kernel and without a
/// word sent; 0 if it is in another PID namespace.
pub async fn listener_pid(layout: &Layout) -> Result<Option<i32>, ConnectError> {
    unix(layout).await.map(|(_, pid)| pid)
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

fn upgrade(target: &Target, path: &str) -> Result<Request<()>, ConnectError> {
    let (host, token) = match target {
        Target::Local(_) => ("localhost", None),
        Target::Remote { address, token } => (address.as_str(), token.as_ref()),
    };
    let refused = |what: String| ConnectError::Refused(what);
    let mut request = format!("ws://{host}{path}")
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
    if let tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) = error {
        return ConnectError::Refused(OTHER_SUB_PROTOCOL.to_owned());
    }
    let tungstenite::Error::Http(response) = &error else {
        return ConnectError::BrokenOff(format!("the server broke off the connection: {error}"));
    };
    match response.status().as_u16() {
        401 => ConnectError::Refused(match detail(response.body().as_deref()) {
            Some(why) => format!("the server refuses the token: {why}"),
            None => NO_TOKEN.to_owned(),
        }),
        503 if kind(response.body().as_deref()).as_deref() == Some("unavailable") => {
            ConnectError::BrokenOff("the server is stopping; try again".to_owned())
        }
        503 => ConnectError::Busy(
            "the server has reached its limit of sessions; try again later, or raise that limit"
                .to_owned(),
        ),
        status => ConnectError::Refused(format!(
            "the server answered HTTP {status} instead of opening a session; is it a cc-executor server, and is this host in its allowed_hosts?"
        )),
    }
}

/// The `detail` of an answer that is problem details (RFC 9457).
fn detail(body: Option<&[u8]>) -> Option<String> {
    member(body, "detail")
}

/// The `kind` of such an answer.
fn kind(body: Option<&[u8]>) -> Option<String> {
    member(body, "kind")
}

fn member(body: Option<&[u8]>, name: &str) -> Option<String> {
    let problem: Value = serde_json::from_slice(body?).ok()?;
    problem[name].as_str().map(str::to_owned)
}

const OTHER_SUB_PROTOCOL: &str = "the server is of a version that does not speak this protocol; `cc-executor restart` starts it in this version (running jobs go on)";

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::http::Response;

    use super::*;

    #[test]
    fn a_server_that_stops_is_not_one_that_has_too_many_sessions() {
        let refused = |kind: &str| {
            let body = format!("{{\"kind\":\"{kind}\",\"detail\":\"why\"}}");
            let response = Response::builder()
                .status(503)
                .body(Some(body.into_bytes()));
            let response = response.expect("a response");
            upgrade_error(tungstenite::Error::Http(Box::new(response)))
        };
        assert!(matches!(refused("unavailable"), ConnectError::BrokenOff(_)));
        assert!(matches!(refused("limit_exceeded"), ConnectError::Busy(_)));
    }
}
