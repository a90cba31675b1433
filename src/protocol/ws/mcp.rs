//! MCP over a WebSocket, for a client that negotiates the sub-protocol `mcp`: one message per text frame, no
//! greeting. The session's bounds are those of any other session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use rmcp::{
    RoleServer, ServiceExt,
    model::{ClientJsonRpcMessage, ClientNotification, RequestId, ServerJsonRpcMessage},
    transport::{Transport, TransportAdapterIdentity},
};
use serde_json::{Value, value::RawValue};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    outbox::{QueuedReply, SessionClosed},
    session::Session,
};
use crate::{
    protocol::{
        ErrorKind,
        jsonrpc::{envelope, error::Refusal},
        limits::byte_semaphore::BytePermit,
        mcp::{
            McpHandler,
            client::ClientLeft,
            place::{CALLER_NOTIFICATION, ToldPlace},
        },
    },
    sys::lock,
};

/// A message that waits for the handler, with its permits: a request has one among those in flight.
#[derive(Debug)]
pub struct QueuedMessage {
    message: ClientJsonRpcMessage,
    in_flight: Option<OwnedSemaphorePermit>,
    bytes: BytePermit,
}

impl Session {
    /// Reads one text frame of MCP: queues its message, or answers it at once.
    pub async fn on_mcp_text(
        &self,
        text: Utf8Bytes,
        messages: &mpsc::Sender<QueuedMessage>,
    ) -> Result<(), SessionClosed> {
        let len = text.len();
        self.usage.message_complete();
        let bytes = self.queued.add(len);
        let message = match self
            .caller
            .server
            .parser
            .run(len, move || read(&text))
            .await
        {
            Ok(message) => message,
            Err((id, refusal)) => {
                drop(bytes);
                return self.send(envelope::error(id.as_deref(), &refusal)).await;
            }
        };
        let in_flight = match &message {
            ClientJsonRpcMessage::Request(request) => {
                let Ok(permit) = self.in_flight.clone().try_acquire_owned() else {
                    let max = self.caller.server.settings.in_flight_max;
                    let message = format!("{max} requests are in flight; wait for a reply");
                    let refusal = Refusal::limit("in_flight_max", message);
                    let id = envelope::to_raw(&request.id);
                    return self.send(envelope::error(Some(&id), &refusal)).await;
                };
                Some(permit)
            }
            _ => None,
        };
        let queued = QueuedMessage {
            message,
            in_flight,
            bytes,
        };
        messages.send(queued).await.map_err(|_| SessionClosed)
    }
}

/// The message in a frame, or the refusal with the id that the frame names.
fn read(text: &str) -> Result<ClientJsonRpcMessage, (Option<Box<RawValue>>, Refusal)> {
    if let Ok(message) = serde_json::from_str(text) {
        return Ok(message);
    }
    let value: Value = serde_json::from_str(text).map_err(|wrong| {
        let message = format!("the frame is no JSON: {wrong}");
        (None, Refusal::new(ErrorKind::ParseError, message))
    })?;
    let id = value
        .get("id")
        .filter(|id| id.is_string() || id.is_i64() || id.is_u64());
    let message = "a frame must be one JSON-RPC 2.0 message of MCP";
    let refusal = Refusal::new(ErrorKind::InvalidRequest, message);
    Err((id.map(envelope::to_raw), refusal))
}

/// Answers the session's messages until its client leaves; then the session ends.
pub async fn answer(session: Arc<Session>, messages: mpsc::Receiver<QueuedMessage>) {
    let over = session.over.clone();
    let place = ToldPlace::default();
    let server = session.caller.server.clone();
    let handler = McpHandler::at(
        server,
        place.clone(),
        session.caller.principal(),
        session.connection.peer,
    );
    let transport = SessionTransport {
        session,
        place,
        messages,
        in_flight: Arc::default(),
    };
    let served = handler
        .serve::<_, _, TransportAdapterIdentity>(transport)
        .await;
    match served {
        Ok(service) => drop(service.waiting().await),
        Err(error) => tracing::debug!(%error, "an MCP session has not begun"),
    }
    over.cancel();
}

/// The parameters of the notification that tells the client's place, which may come before the protocol's
/// own first message.
fn place_of(message: &mut ClientJsonRpcMessage) -> Option<Option<Value>> {
    let ClientJsonRpcMessage::Notification(sent) = message else {
        return None;
    };
    match &mut sent.notification {
        ClientNotification::CustomNotification(custom) if custom.method == CALLER_NOTIFICATION => {
            Some(custom.params.take())
        }
        _ => None,
    }
}

/// The session as the SDK sees it.
struct SessionTransport {
    session: Arc<Session>,
    place: ToldPlace,
    messages: mpsc::Receiver<QueuedMessage>,
    /// The permits of requests that are not answered.
    in_flight: Arc<Mutex<HashMap<RequestId, OwnedSemaphorePermit>>>,
}

impl SessionTransport {
    fn permit_of(&self, message: &ServerJsonRpcMessage) -> Option<OwnedSemaphorePermit> {
        let id = match message {
            ServerJsonRpcMessage::Response(response) => &response.id,
            ServerJsonRpcMessage::Error(error) => error.id.as_ref()?,
            _ => return None,
        };
        lock(&self.in_flight).remove(id)
    }

    /// Whether this answers a request that the client sends to the next server. While the server stops, the
    /// answer of a wait would only say so.
    fn is_asked_again(&self, message: &ServerJsonRpcMessage) -> bool {
        let is_answer = matches!(
            message,
            ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_)
        );
        let is_stopping = self.session.caller.server.stopping.is_cancelled();
        is_answer && is_stopping && self.session.mcp_session.is_resumed
    }

    /// Keeps the permit of a request; a request that is cancelled gets no answer.
    fn keep_permit(&self, message: &ClientJsonRpcMessage, permit: Option<OwnedSemaphorePermit>) {
        match (message, permit) {
            (ClientJsonRpcMessage::Request(request), Some(permit)) => {
                lock(&self.in_flight).insert(request.id.clone(), permit);
            }
            (ClientJsonRpcMessage::Notification(sent), _) => {
                if let ClientNotification::CancelledNotification(cancelled) = &sent.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    lock(&self.in_flight).remove(id);
                }
            }
            _ => {}
        }
    }
}

impl Transport<RoleServer> for SessionTransport {
    type Error = SessionClosed;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), SessionClosed>> + Send + 'static {
        let in_flight = self.permit_of(&message);
        let is_asked_again = self.is_asked_again(&message);
        let session = self.session.clone();
        async move {
            if is_asked_again {
                return Ok(());
            }
            let text = envelope::to_json(&message);
            session.rate_limiter.charge_reply(text.len());
            session.outbox.reply(QueuedReply { text, in_flight }).await
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let over = self.session.over.clone();
        loop {
            let queued = over.run_until_cancelled(self.messages.recv()).await??;
            let QueuedMessage {
                mut message,
                in_flight,
                bytes,
            } = queued;
            drop(bytes);
            if let Some(params) = place_of(&mut message) {
                if self.session.connection.peer.is_trusted() {
                    self.place.set(params);
                }
                continue;
            }
            self.keep_permit(&message, in_flight);
            message.insert_extension(self.session.mcp_session.clone());
            message.insert_extension(ClientLeft(over));
            return Some(message);
        }
    }

    async fn close(&mut self) -> Result<(), SessionClosed> {
        Ok(())
    }
}
