//! One WebSocket to a server that speaks MCP: sends and receives messages, and says how it ended. A task
//! of its own writes, so that a server that does not read never keeps this side from reading.

use std::time::Duration;

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        http::{HeaderMap, HeaderName, HeaderValue, header},
        protocol::frame::coding::CloseCode,
    },
};

use crate::cli::connect::{
    dial::{ConnectError, Dialed, Io, dial},
    target::Target,
};

/// The path of the WebSocket.
const PATH: &str = "/ws/mcp";
/// The sub-protocol: one MCP message per text frame.
const SUB_PROTOCOL: &str = "mcp";
/// The header that names the session: the same for all connections of this process.
const SESSION_HEADER: &str = "mcp-session-id";
/// How long the upgrade may take.
const UPGRADE_MAX: Duration = Duration::from_secs(30);
/// Silence on TCP after which a ping is sent.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Unanswered pings after which a TCP connection counts as lost.
const PINGS_MAX: u32 = 3;
/// How long closing may take.
const CLOSE_MAX: Duration = Duration::from_millis(200);

/// How a connection ended.
#[derive(Debug)]
pub struct SocketEnd {
    /// In words.
    pub why: String,
    /// Whether the server was stopped on purpose.
    pub is_planned: bool,
}

/// A connection.
pub struct McpSocket {
    incoming: SplitStream<WebSocketStream<Box<dyn Io>>>,
    outgoing: mpsc::Sender<Message>,
    writer: JoinHandle<()>,
    opened_at: Instant,
    /// When to ping, and how often that was done since the server was last heard; `None` on a Unix socket.
    pings: Option<(Instant, u32)>,
}

impl McpSocket {
    /// Connects as this session.
    pub async fn open(target: &Target, session: &str) -> Result<Self, ConnectError> {
        let upgrade = dial(target, PATH, headers(session)?);
        let Dialed { ws, .. } = timeout(UPGRADE_MAX, upgrade).await.map_err(|_| {
            let text = format!("the server at {target} does not answer");
            ConnectError::Busy(text)
        })??;
        let (sink, incoming) = ws.split();
        let (outgoing, messages) = mpsc::channel(1);
        let opened_at = Instant::now();
        let is_remote = matches!(target, Target::Remote { .. });
        Ok(Self {
            incoming,
            outgoing,
            writer: tokio::spawn(write(sink, messages)),
            opened_at,
            pings: is_remote.then(|| (opened_at + SILENCE_MAX, 0)),
        })
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }

    /// Waits until it takes a message. Never returns if it is lost: [`Self::next`] does.
    pub fn permit(&self) -> impl Future<Output = mpsc::OwnedPermit<Message>> + use<> {
        let outgoing = self.outgoing.clone();
        async move {
            match outgoing.reserve_owned().await {
                Ok(permit) => permit,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// The next message. Cancel-safe.
    pub async fn next(&mut self) -> Result<Utf8Bytes, SocketEnd> {
        loop {
            let message = match self.pings {
                Some((at, _)) => timeout_at(at, self.incoming.next()).await,
                None => Ok(self.incoming.next().await),
            };
            let Ok(message) = message else {
                self.ping()?;
                continue;
            };
            if let Some(pings) = &mut self.pings {
                *pings = (Instant::now() + SILENCE_MAX, 0);
            }
            match message {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_))) => return Err(end("the server sent a binary frame")),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(SocketEnd {
                        why: frame.reason.to_string(),
                        is_planned: frame.code == CloseCode::Away,
                    });
                }
                Some(Ok(Message::Close(None))) | None => return Err(end("the server closed it")),
                Some(Err(error)) => return Err(end(&error.to_string())),
            }
        }
    }

    fn ping(&mut self) -> Result<(), SocketEnd> {
        if let Some((at, pings)) = &mut self.pings {
            if *pings == PINGS_MAX {
                return Err(end("no sign of life"));
            }
            (*at, *pings) = (Instant::now() + SILENCE_MAX, *pings + 1);
        }
        // If there is no room, the server has not taken earlier bytes: those show whether it lives.
        let _ = self.outgoing.try_send(Message::Ping(Default::default()));
        Ok(())
    }

    /// Closes it in order, if that is soon done.
    pub async fn close(mut self) {
        let closing = async {
            if self.outgoing.send(Message::Close(None)).await.is_ok() {
                let _ = (&mut self.writer).await;
            }
        };
        let _ = timeout(CLOSE_MAX, closing).await;
    }
}

impl Drop for McpSocket {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

fn end(why: &str) -> SocketEnd {
    SocketEnd {
        why: why.to_owned(),
        is_planned: false,
    }
}

fn headers(session: &str) -> Result<HeaderMap, ConnectError> {
    let session = HeaderValue::from_str(session)
        .map_err(|_| ConnectError::Refused("the session's name cannot be sent".to_owned()))?;
    let sub_protocol = HeaderValue::from_static(SUB_PROTOCOL);
    Ok(HeaderMap::from_iter([
        (header::SEC_WEBSOCKET_PROTOCOL, sub_protocol),
        (HeaderName::from_static(SESSION_HEADER), session),
    ]))
}

/// Writes messages until one fails, or a close is written.
async fn write(
    mut sink: SplitSink<WebSocketStream<Box<dyn Io>>, Message>,
    mut messages: mpsc::Receiver<Message>,
) {
    while let Some(message) = messages.recv().await {
        let is_last = message.is_close();
        if sink.send(message).await.is_err() || is_last {
            return;
        }
    }
}
