//! What the client sends.

use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{INITIALIZE, LinkState, Outgoing, Relay};
use crate::cli::{
    connect::wire::MESSAGE_BYTES_MAX,
    mcp::{
        held::{self, HeldRequest},
        ids::MessageId,
        limits::{check, overlong_text},
        message::{self, McpMessage, NotAMessage},
        overlong::OverlongMessage,
        params::{CallParams, cancelled_id},
        replies::{self, INVALID_REQUEST, LIMIT_EXCEEDED, PARSE_ERROR},
    },
};

impl Relay {
    /// A line of the client.
    pub fn on_line(&mut self, line: Vec<u8>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let Ok(text) = String::from_utf8(line) else {
            let message = "not JSON: the line is not UTF-8";
            self.to_client
                .push_back(replies::error(None, PARSE_ERROR, message));
            return;
        };
        let text = Utf8Bytes::from(text);
        match message::read(&text) {
            Err(NotAMessage { id, code, message }) => {
                let id = id.filter(|id| self.held.get_mut(id).is_none());
                self.to_client
                    .push_back(replies::error(id.as_ref(), code, &message));
            }
            Ok(McpMessage::Request { id, method, params }) => {
                self.on_request(id, method, params, text.clone());
            }
            Ok(McpMessage::Notification { method, params }) => {
                self.on_notification(&method, params, text.clone());
            }
            Ok(McpMessage::Answer { id, outcome }) => {
                let ours = id.as_ref();
                let answer = ours.and_then(|id| self.server_requests.answer(id, outcome));
                self.to_server.extend(answer.map(Outgoing::Text));
            }
        }
    }

    /// A line of the client that is longer than any message may be.
    pub fn on_overlong_line(&mut self, head: &[u8], tail: &[u8]) {
        let OverlongMessage { id, has_method } = OverlongMessage::read(head, tail);
        let error = overlong_text(MESSAGE_BYTES_MAX);
        let asked = id.as_ref().filter(|_| !has_method);
        let refusal = RawValue::from_string(format!(
            r#"{{"code":{LIMIT_EXCEEDED},"message":"the answer is longer than a message may be"}}"#
        ));
        if let (Some(ours), Ok(refusal)) = (asked, refusal)
            && let Some(answer) = self.server_requests.answer(ours, Err(&refusal))
        {
            self.to_server.push_back(Outgoing::Text(answer));
            return;
        }
        let id = id.filter(|id| self.held.get_mut(id).is_none());
        self.to_client
            .push_back(replies::error(id.as_ref(), LIMIT_EXCEEDED, &error));
    }

    fn on_request(
        &mut self,
        id: MessageId,
        method: String,
        params: Option<&RawValue>,
        text: Utf8Bytes,
    ) {
        if self.held.get_mut(&id).is_some() {
            let message = "id: a request with this id waits for its answer; use another one";
            self.to_client
                .push_back(replies::error(None, INVALID_REQUEST, message));
            return;
        }
        let params = CallParams::read(params);
        let opens = method == INITIALIZE;
        if let Err(refused) = self
            .held
            .add(HeldRequest::new(id.clone(), method, &params, text))
        {
            let message = format!(
                "at most {} requests of {} MiB together wait for their answers; wait for one",
                held::REQUESTS_MAX,
                held::REQUESTS_BYTES_MAX >> 20
            );
            let error = replies::error(Some(&refused.id), LIMIT_EXCEEDED, &message);
            self.to_client.push_back(error);
            return;
        }
        if let Some(token) = params.progress_token() {
            self.progress.begin(token);
        }
        if self.link == LinkState::Up {
            self.to_server.push_back(Outgoing::Request(id.clone()));
            if opens {
                // What follows waits for its answer, as on every later connection.
                self.link = LinkState::Opening {
                    id,
                    is_replay: false,
                };
            }
        }
    }

    /// A notification of the client. The server needs none of those that come while there is no
    /// connection: it knows nothing of the session then.
    fn on_notification(&mut self, method: &str, params: Option<&RawValue>, text: Utf8Bytes) {
        let is_wanted = match method {
            "notifications/initialized" => {
                self.opening.initialized = Some(text.clone());
                self.link == LinkState::Up
            }
            "notifications/cancelled" => self.cancel(params),
            _ => self.link == LinkState::Up,
        };
        if is_wanted && check(&text, self.limits).is_ok() {
            self.to_server.push_back(Outgoing::Text(text));
        }
    }

    /// The client needs no answer any more. Returns whether the server is to know: it has the request.
    /// A cancel of an answered request is dropped, and so is an answer that comes after a cancel.
    fn cancel(&mut self, params: Option<&RawValue>) -> bool {
        let Some(id) = cancelled_id(params) else {
            return false;
        };
        // MCP forbids to cancel it, and the session depends on its answer.
        let is_initialize = |held: &mut HeldRequest| held.method == INITIALIZE;
        if self.held.get_mut(&id).is_some_and(is_initialize) {
            return false;
        }
        self.held.remove(&id).is_some_and(|held| held.is_sent)
    }
}
