//! The messages that the relay writes itself: errors, results of tools that failed, cancels. Pure.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::ids::MessageId;

/// The text is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The JSON is no message, or is one at the wrong time.
pub const INVALID_REQUEST: i64 = -32600;
/// A bound is reached.
pub const LIMIT_EXCEEDED: i64 = -32005;
/// Not possible now.
pub const UNAVAILABLE: i64 = -32006;

/// An error as the answer to a request; `None`: the id is not known.
pub fn error(id: Option<&MessageId>, code: i64, message: &str) -> Utf8Bytes {
    let kind = match code {
        PARSE_ERROR => "parse_error",
        INVALID_REQUEST => "invalid_request",
        LIMIT_EXCEEDED => "limit_exceeded",
        _ => "unavailable",
    };
    let error = json!({"code": code, "message": message, "data": {"kind": kind}});
    text(&json!({"jsonrpc": "2.0", "id": id, "error": error}))
}

/// The result of a `tools/call` that failed. Unlike an error, every agent shows its whole text to the
/// model.
pub fn failed_tool(id: &MessageId, has_result_type: bool, told: &str) -> Utf8Bytes {
    let mut result = json!({"content": [{"type": "text", "text": told}], "isError": true});
    if has_result_type {
        result["resultType"] = json!("complete");
    }
    text(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// A progress notification with these parameters.
pub fn progress(params: &Value) -> Utf8Bytes {
    text(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))
}

/// Tells the client that a request of the server needs no answer any more.
pub fn cancel(id: &MessageId) -> Utf8Bytes {
    let reason = "the server needs no answer to this any more";
    let params = json!({"requestId": id, "reason": reason});
    text(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
}

fn text(message: &Value) -> Utf8Bytes {
    message.to_string().into()
}
