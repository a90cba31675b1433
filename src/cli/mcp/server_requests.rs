//! Requests of the server to the client. Each connection counts its ids from the beginning, so the client
//! is asked under ids of our own: a late answer can never be taken for that to a later question. Pure.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::ids::MessageId;

/// How many may wait for an answer.
const OPEN_MAX: usize = 64;

/// A message with another id.
#[derive(Serialize)]
struct Rewritten<'a> {
    jsonrpc: &'static str,
    id: &'a MessageId,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
}

impl<'a> Rewritten<'a> {
    fn of(id: &'a MessageId) -> Self {
        Self {
            jsonrpc: "2.0",
            id,
            method: None,
            params: None,
            result: None,
            error: None,
        }
    }
}

/// JSON that was parsed can be written: this is never `None`.
fn text(message: &Rewritten<'_>) -> Option<Utf8Bytes> {
    serde_json::to_string(message).ok().map(Utf8Bytes::from)
}

/// Those of the present connection that have no answer yet.
#[derive(Debug, Default)]
pub struct ServerRequests {
    next: u64,
    /// Our id, and the server's.
    open: VecDeque<(MessageId, MessageId)>,
}

impl ServerRequests {
    /// The request as the client gets it; `None` if too many are open.
    pub fn pass(
        &mut self,
        id: MessageId,
        method: &str,
        params: Option<&RawValue>,
    ) -> Option<Utf8Bytes> {
        if self.open.len() == OPEN_MAX {
            return None;
        }
        let ours = MessageId::Text(format!("cc-executor-{}", self.next));
        self.next += 1;
        let text = text(&Rewritten {
            method: Some(method),
            params,
            ..Rewritten::of(&ours)
        });
        self.open.push_back((ours, id));
        text
    }

    /// The client has answered: the answer as the server gets it; `None` if it did not ask.
    pub fn answer(
        &mut self,
        ours: &MessageId,
        outcome: Result<&RawValue, &RawValue>,
    ) -> Option<Utf8Bytes> {
        let at = self.open.iter().position(|(known, _)| known == ours)?;
        let (_, id) = self.open.remove(at)?;
        text(&Rewritten {
            result: outcome.ok(),
            error: outcome.err(),
            ..Rewritten::of(&id)
        })
    }

    /// The server needs no answer any more: our id.
    pub fn cancel(&mut self, id: &MessageId) -> Option<MessageId> {
        let at = self.open.iter().position(|(_, known)| known == id)?;
        self.open.remove(at).map(|(ours, _)| ours)
    }

    /// The connection is lost, and with it the questions: our ids of all that are open.
    pub fn take_all(&mut self) -> impl Iterator<Item = MessageId> + '_ {
        self.open.drain(..).map(|(ours, _)| ours)
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).expect("JSON")
    }

    #[test]
    fn ids_are_exchanged_and_all_else_is_kept() {
        let mut requests = ServerRequests::default();
        let (params, result, error) = (raw("{ \"b\":1,\"a\":2}"), raw("{\"x\": []}"), raw("{}"));
        let zero = MessageId::Number(0);
        let asked = requests.pass(zero.clone(), "elicitation/create", Some(&params));
        let expected = r#"{"jsonrpc":"2.0","id":"cc-executor-0","method":"elicitation/create","params":{ "b":1,"a":2}}"#;
        assert_eq!(asked.expect("room").as_str(), expected);
        let ours = MessageId::Text("cc-executor-0".to_owned());
        let answer = requests.answer(&ours, Ok(&result)).expect("open");
        assert_eq!(
            answer.as_str(),
            r#"{"jsonrpc":"2.0","id":0,"result":{"x": []}}"#
        );
        assert_eq!(requests.answer(&ours, Ok(&result)), None, "answered twice");

        // The next connection uses the id again; the client cannot mistake the two.
        let asked = requests
            .pass(zero.clone(), "roots/list", None)
            .expect("room");
        assert_eq!(
            asked.as_str(),
            r#"{"jsonrpc":"2.0","id":"cc-executor-1","method":"roots/list"}"#
        );
        assert_eq!(requests.answer(&ours, Ok(&result)), None);
        let ours = MessageId::Text("cc-executor-1".to_owned());
        let answer = requests.answer(&ours, Err(&error)).expect("open");
        assert_eq!(answer.as_str(), r#"{"jsonrpc":"2.0","id":0,"error":{}}"#);
    }

    #[test]
    fn what_is_cancelled_or_lost_is_not_open_any_more() {
        let mut requests = ServerRequests::default();
        for id in 0..3 {
            requests
                .pass(MessageId::Number(id), "m", None)
                .expect("room");
        }
        let ours = |n: u8| MessageId::Text(format!("cc-executor-{n}"));
        assert_eq!(requests.cancel(&MessageId::Number(1)), Some(ours(1)));
        assert_eq!(requests.cancel(&MessageId::Number(1)), None);
        assert_eq!(requests.take_all().collect::<Vec<_>>(), [ours(0), ours(2)]);
        assert!(requests.is_empty());
    }

    #[test]
    fn there_is_a_bound() {
        let mut requests = ServerRequests::default();
        let passed = (0..100).filter_map(|id| requests.pass(MessageId::Number(id), "m", None));
        assert_eq!(passed.count(), OPEN_MAX);
    }
}
