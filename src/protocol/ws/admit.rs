//! What becomes of a frame that a client sends: it is refused, or a request is handed on; and the text
//! of a reply. Authentication is here.

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
    methods::{PROTOCOL, limits},
};

impl Session {
    /// `server.hello`.
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
            "limits": limits::greeted(&self.caller.server.settings),
        });
        notification("server.hello", params)
    }

    async fn refuse(&self, id: Option<&RawValue>, refusal: &Refusal) -> Result<(), SessionClosed> {
        self.say(envelope::error(id, refusal)).await
    }

    /// Answers a binary frame.
    pub async fn refuse_binary(&self) -> Result<(), SessionClosed> {
        let message = "binary frames are not taken; send requests as text";
        self.refuse(None, &Refusal::new(ErrorKind::InvalidRequest, message))
            .await
    }

    /// Takes one text frame: hands a request on, or refuses it at once.
    pub async fn take(
        &self,
        text: Utf8Bytes,
        work: &mpsc::Sender<QueuedRequest>,
    ) -> Result<(), SessionClosed> {
        let (bytes, depth_max) = (text.len(), self.caller.server.settings.json_depth_max);
        // From now on it is our turn.
        self.share.arrived();
        let weight = self.queued.add(bytes);
        let read = move || envelope::read(&text, depth_max);
        let request = match self.caller.server.aside.run(bytes, read).await {
            IncomingFrame::Notification => return Ok(()),
            IncomingFrame::Refused(id, refusal) => {
                drop(weight);
                return self.refuse(id.as_deref(), &refusal).await;
            }
            IncomingFrame::Request(request) => request,
        };
        let method = match self.admit(&request) {
            Ok(Some(method)) => method,
            Ok(None) => return self.say(envelope::reply(&request.id, Ok(&nothing()))).await,
            Err(refusal) => return self.refuse(Some(&request.id), &refusal).await,
        };
        let Ok(place) = self.in_flight.clone().try_acquire_owned() else {
            let max = self.caller.server.settings.in_flight_max;
            let message = format!("{max} requests are in flight; wait for a reply");
            let refusal = Refusal::limit("in_flight_max", message);
            return self.refuse(Some(&request.id), &refusal).await;
        };
        work.send(QueuedRequest {
            request,
            method,
            place,
            weight,
        })
        .await
        .map_err(|_| SessionClosed)
    }

    /// Whether a request may be executed, and as what; `None`: it was the token, and right.
    fn admit(&self, request: &Request) -> Result<Option<&'static Method>, Refusal> {
        if request.method == methods::AUTHENTICATE {
            methods::authenticate::check(&self.caller.server.token, &request.params())
                .inspect_err(|refusal| self.tell(refusal, RefusalReason::WrongToken))?;
            self.authenticated.store(true, Ordering::SeqCst);
            self.connection.place.known();
            self.leave_strangers_seat();
            return Ok(None);
        }
        if !self.is_authenticated() {
            let message = "call session.authenticate {token} first; the token is in the file \
                           `token` of the server's data directory";
            let refusal = Refusal::new(ErrorKind::Unauthenticated, message);
            self.tell(&refusal, RefusalReason::NoToken);
            return Err(refusal);
        }
        let method = Method::named(&request.method)?;
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

    /// Tells the log of one that knows no token.
    fn tell(&self, refusal: &Refusal, reason: RefusalReason) {
        if refusal.kind == ErrorKind::Unauthenticated {
            self.caller
                .server
                .refusals
                .tell(self.connection.peer, reason);
        }
    }
}

/// The result of a method that has nothing to tell.
fn nothing() -> Box<RawValue> {
    to_raw(&json!({}))
}
