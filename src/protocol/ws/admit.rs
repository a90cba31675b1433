//! Checks each frame that a client sends: refuses it, or queues its request for `dispatch`. Also
//! authenticates the session.

use std::sync::atomic::Ordering;

use serde_json::{json, value::RawValue};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    dispatch::QueuedRequest,
    methods::{self, Method},
    outbox::SessionClosed,
    session::Session,
};
use crate::protocol::{
    ErrorKind, RefusalReason,
    encode::notifications::notification,
    jsonrpc::{
        envelope::{self, IncomingFrame, Request, to_raw},
        error::Refusal,
    },
    methods::{PROTOCOL, limits, principal},
};

impl Session {
    /// The notification `server.hello`, as JSON.
    pub fn greeting(&self) -> String {
        let auth = if self.is_authenticated() {
            "ok"
        } else {
            "required"
        };
        let params = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": PROTOCOL,
            "session_id": self.caller.id,
            "auth": auth,
            "principal": principal::view(&self.caller.principal()),
            "limits": limits::greeting(&self.caller.server.settings),
        });
        notification("server.hello", params)
    }

    async fn refuse(&self, id: Option<&RawValue>, refusal: &Refusal) -> Result<(), SessionClosed> {
        self.send(envelope::error(id, refusal)).await
    }

    /// Answers a binary frame with an error.
    pub async fn refuse_binary(&self) -> Result<(), SessionClosed> {
        let message = "binary frames are not accepted; send requests as text frames";
        self.refuse(None, &Refusal::new(ErrorKind::InvalidRequest, message))
            .await
    }

    /// Reads one text frame: queues its request, or answers it at once.
    pub async fn on_text(
        &self,
        text: Utf8Bytes,
        requests: &mpsc::Sender<QueuedRequest>,
    ) -> Result<(), SessionClosed> {
        let (len, depth_max) = (text.len(), self.caller.server.settings.json_depth_max);
        // The message is whole: from here on the server is to act, not the client.
        self.usage.message_complete();
        let bytes = self.queued.add(len);
        let read = move || envelope::read(&text, depth_max);
        let request = match self.caller.server.parser.run(len, read).await {
            IncomingFrame::Notification => return Ok(()),
            IncomingFrame::Refused(id, refusal) => {
                drop(bytes);
                return self.refuse(id.as_deref(), &refusal).await;
            }
            IncomingFrame::Request(request) => request,
        };
        let method = match self.admit(&request) {
            Ok(Some(method)) => method,
            Ok(None) => {
                return self
                    .send(envelope::reply(&request.id, Ok(&empty_result())))
                    .await;
            }
            Err(refusal) => {
                self.caller.count_refusal(&request.method, &refusal);
                return self.refuse(Some(&request.id), &refusal).await;
            }
        };
        let Ok(in_flight) = self.in_flight.clone().try_acquire_owned() else {
            let max = self.caller.server.settings.in_flight_max;
            let message = format!("{max} requests are in flight; wait for a reply");
            let refusal = Refusal::limit("in_flight_max", message);
            return self.refuse(Some(&request.id), &refusal).await;
        };
        requests
            .send(QueuedRequest {
                request,
                method,
                in_flight,
                bytes,
            })
            .await
            .map_err(|_| SessionClosed)
    }

    /// The method of a request, if it may be executed; `None`: it was `session.authenticate` with the right
    /// token.
    fn admit(&self, request: &Request) -> Result<Option<&'static Method>, Refusal> {
        if request.method == methods::AUTHENTICATE {
            let principal =
                methods::authenticate::check(&self.caller.server.tokens, &request.params())
                    .inspect_err(|refusal| {
                        self.report_unauthenticated(refusal, RefusalReason::WrongToken)
                    })?;
            self.set_principal(principal)?;
            self.authenticated.store(true, Ordering::SeqCst);
            self.connection.slot.set_authenticated();
            self.release_unauthenticated_slot();
            return Ok(None);
        }
        if !self.is_authenticated() {
            let message = "call session.authenticate {token} first; the token is in the file \
                           `token` of the server's data directory";
            let refusal = Refusal::new(ErrorKind::Unauthenticated, message);
            self.report_unauthenticated(&refusal, RefusalReason::NoToken);
            return Err(refusal);
        }
        let method = Method::named(&request.method)?;
        self.caller.require(method.name.scopes)?;
        let (limit, containers_max) = method.containers_max;
        if request.containers > containers_max {
            let message = format!("params: at most {containers_max} arrays and objects");
            return Err(Refusal::limit(limit, message));
        }
        if let Some((limit, bytes_max)) = method.id_bytes_max
            && request.id.get().len() > bytes_max
        {
            let message = format!("id: at most {bytes_max} bytes for {}", method.name);
            return Err(Refusal::limit(limit, message));
        }
        Ok(Some(method))
    }

    /// Reports a client without the right token in the log.
    fn report_unauthenticated(&self, refusal: &Refusal, reason: RefusalReason) {
        if refusal.kind == ErrorKind::Unauthenticated {
            self.caller.server.refused(self.connection.peer, reason);
        }
    }
}

/// The result of a method that returns nothing.
fn empty_result() -> Box<RawValue> {
    to_raw(&json!({}))
}
