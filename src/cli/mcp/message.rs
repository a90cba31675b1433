//! The JSON-RPC messages of MCP, as far as a relay has to read them. Pure.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{ids::MessageId, replies};

/// A well-formed message.
#[derive(Debug)]
pub enum McpMessage<'a> {
    /// Asks for an answer.
    Request {
        /// Names the request in its answer.
        id: MessageId,
        /// Such as `tools/call`.
        method: String,
        /// Its parameters, as they were written.
        params: Option<&'a RawValue>,
    },
    /// Gets no answer.
    Notification {
        /// Such as `notifications/cancelled`.
        method: String,
        /// Its parameters, as they were written.
        params: Option<&'a RawValue>,
    },
    /// Answers a request.
    Answer {
        /// The request's id; `None` if its sender could not read one.
        id: Option<MessageId>,
        /// The result, or the error object.
        outcome: Result<&'a RawValue, &'a RawValue>,
    },
}

/// Why a text is no message.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAMessage {
    /// The id, if there is a valid one.
    pub id: Option<MessageId>,
    /// The JSON-RPC code.
    pub code: i64,
    /// What is wrong and what would be right.
    pub message: String,
}

/// The members of a message; others are ignored.
#[derive(Deserialize)]
struct RawMembers<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// A member that is there, even if it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a message.
pub fn read(text: &str) -> Result<McpMessage<'_>, NotAMessage> {
    let refuse = |id, code, message: String| Err(NotAMessage { id, code, message });
    let members: RawMembers<'_> = match serde_json::from_str(text) {
        Ok(members) => members,
        Err(error) if error.is_data() => {
            let message = "must be one JSON object: a request, a notification or an answer; batches and repeated keys are not supported";
            return refuse(None, replies::INVALID_REQUEST, message.to_owned());
        }
        Err(error) => return refuse(None, replies::PARSE_ERROR, format!("not JSON: {error}")),
    };
    let id = members.id.and_then(value);
    let invalid = |message: &str| refuse(id.clone(), replies::INVALID_REQUEST, message.to_owned());
    if members.jsonrpc.and_then(value::<String>).as_deref() != Some("2.0") {
        return invalid("jsonrpc: must be \"2.0\"");
    }
    let method = members.method.map(value::<String>);
    match (method, members.result, members.error) {
        (Some(Some(method)), None, None) => match (members.id, id) {
            (None, _) => Ok(McpMessage::Notification {
                method,
                params: members.params,
            }),
            (Some(_), Some(id)) => Ok(McpMessage::Request {
                id,
                method,
                params: members.params,
            }),
            (Some(_), None) => {
                let message = "id: must be a string or an integer; leave it out of a notification";
                refuse(None, replies::INVALID_REQUEST, message.to_owned())
            }
        },
        (None, Some(result), None) => Ok(McpMessage::Answer {
            id,
            outcome: Ok(result),
        }),
        (None, None, Some(error)) => Ok(McpMessage::Answer {
            id,
            outcome: Err(error),
        }),
        _ => invalid("must have a method, which is a string, or else one of result and error"),
    }
}

fn value<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (Option<MessageId>, i64) {
        let refused = read(text).expect_err(text);
        (refused.id, refused.code)
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        let request = r#"{"method":"ping","jsonrpc":"2.0","id":"a\u0062","more":1}"#;
        let Ok(McpMessage::Request { id, method, .. }) = read(request) else {
            panic!("no request");
        };
        assert_eq!(
            (id, method.as_str()),
            (MessageId::Text("ab".into()), "ping")
        );
        let notification = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert!(matches!(
            read(notification),
            Ok(McpMessage::Notification { params: None, .. })
        ));
        let answer = r#"{"jsonrpc":"2.0","id":-7,"result":null}"#;
        let Ok(McpMessage::Answer { id, outcome: Ok(_) }) = read(answer) else {
            panic!("no answer");
        };
        assert_eq!(id, Some(MessageId::Number(-7)));
        let answer = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#;
        assert!(matches!(
            read(answer),
            Ok(McpMessage::Answer {
                id: None,
                outcome: Err(_)
            })
        ));
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_id_if_it_has_one() {
        let five = Some(MessageId::Number(5));
        for (text, expected) in [
            ("{", (None, -32700)),
            ("garbage", (None, -32700)),
            ("{} {}", (None, -32700)),
            ("[]", (None, -32600)),
            ("7", (None, -32600)),
            (
                r#"[{"jsonrpc":"2.0","id":5,"method":"ping"}]"#,
                (None, -32600),
            ),
            (r#"{"id":5,"method":"ping"}"#, (five.clone(), -32600)),
            (
                r#"{"jsonrpc":"1.0","id":5,"method":"ping"}"#,
                (five.clone(), -32600),
            ),
            (
                r#"{"jsonrpc":"2.0","id":5,"method":7}"#,
                (five.clone(), -32600),
            ),
            (r#"{"jsonrpc":"2.0","id":5}"#, (five.clone(), -32600)),
            (
                r#"{"jsonrpc":"2.0","id":5,"method":"ping","result":{}}"#,
                (five.clone(), -32600),
            ),
            (
                r#"{"jsonrpc":"2.0","id":5,"result":{},"error":{}}"#,
                (five, -32600),
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
                (None, -32600),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
                (None, -32600),
            ),
            (
                r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
                (None, -32600),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
                (None, -32600),
            ),
        ] {
            assert_eq!(refused(text), expected, "{text}");
        }
    }
}
