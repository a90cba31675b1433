//! What the server sends.

use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{INITIALIZE, LinkState, Outgoing, Relay};
use crate::cli::mcp::{
    ids::MessageId,
    message::{self, McpMessage},
    params::cancelled_id,
    progress::ProgressVerdict,
    replies::{self, LIMIT_EXCEEDED},
};

impl Relay {
    /// A message of the server. An error says why the session cannot go on.
    pub fn on_server_message(&mut self, text: Utf8Bytes) -> Result<(), String> {
        match message::read(&text) {
            Err(refused) => Err(format!(
                "the server sent something that this version does not understand ({})",
                refused.message
            )),
            Ok(McpMessage::Answer { id: None, .. }) => {
                self.to_client.push_back(text.clone());
                Ok(())
            }
            Ok(McpMessage::Answer {
                id: Some(id),
                outcome,
            }) => self.on_answer(&id, outcome, text.clone()),
            Ok(McpMessage::Request { id, method, params }) => {
                match self.server_requests.pass(id.clone(), &method, params) {
                    Some(request) => self.to_client.push_back(request),
                    None => {
                        let message = "too many requests wait for the client";
                        let refused = replies::error(Some(&id), LIMIT_EXCEEDED, message);
                        self.to_server.push_back(Outgoing::Text(refused));
                    }
                }
                Ok(())
            }
            Ok(McpMessage::Notification { method, params }) => {
                self.on_server_notification(&method, params, text.clone());
                Ok(())
            }
        }
    }

    fn on_answer(
        &mut self,
        id: &MessageId,
        outcome: Result<&RawValue, &RawValue>,
        text: Utf8Bytes,
    ) -> Result<(), String> {
        let opens = match &self.link {
            LinkState::Opening {
                id: awaited,
                is_replay,
            } if awaited == id => Some(*is_replay),
            _ => None,
        };
        if opens == Some(true) {
            if let Err(error) = outcome {
                return Err(format!(
                    "the server does not open the session again: {error}; connect anew"
                ));
            }
            self.go_up();
            return Ok(());
        }
        if self.held.get_mut(id).is_some_and(|held| held.is_sent)
            && let Some(held) = self.held.remove(id)
        {
            if held.method == INITIALIZE && outcome.is_ok() {
                self.opening.initialize = Some((held.id, held.text));
            }
            self.to_client.push_back(text);
        }
        if opens.is_some() {
            self.go_up();
        }
        Ok(())
    }

    fn on_server_notification(&mut self, method: &str, params: Option<&RawValue>, text: Utf8Bytes) {
        let passed = match method {
            "notifications/progress" => match self.progress.check(params) {
                ProgressVerdict::Pass => Some(text),
                ProgressVerdict::Rewrite(params) => Some(replies::progress(&params)),
                ProgressVerdict::Drop => None,
            },
            "notifications/cancelled" => cancelled_id(params)
                .and_then(|id| self.server_requests.cancel(&id))
                .map(|ours| replies::cancel(&ours)),
            _ => Some(text),
        };
        self.to_client.extend(passed);
    }
}
