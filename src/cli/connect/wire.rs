//! The client's side of the protocol's messages: writes requests, parses replies, notifications and
//! binary output frames. Pure.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Bytes;

use crate::job::Stream;

/// Longest message that every server takes, bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The version of the protocol that this client speaks.
pub const PROTOCOL: u64 = 1;
/// Length of the header of a binary frame, bytes.
const FRAME_HEADER_BYTES: usize = 32;

/// A message from the server.
#[derive(Debug)]
pub enum ServerMessage {
    /// The reply to a request.
    Reply {
        /// The request's id.
        id: u64,
        /// What it returned.
        result: Result<Value, WireError>,
    },
    /// Output of a tail in binary encoding.
    Output(OutputFrame),
    /// Any other notification.
    Notification {
        /// `job.state`, `job.end`, …
        method: String,
        /// Its parameters.
        params: Value,
    },
}

impl ServerMessage {
    /// Whether the server announces its stop.
    pub fn is_going_away(&self) -> bool {
        matches!(self, Self::Notification { method, .. } if method == "server.going_away")
    }
}

/// Output bytes of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFrame {
    /// The subscription of the tail.
    pub subscription: u32,
    /// The stream that the job wrote them to.
    pub stream: Stream,
    /// When they were captured.
    pub at: DateTime<Utc>,
    /// The offset of the first byte in the output.
    pub offset: u64,
    /// The output's bytes.
    pub data: Bytes,
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// The JSON-RPC code, such as [`Self::NOT_FOUND`].
    pub code: i64,
    /// What is wrong and what to do.
    pub message: String,
    /// `kind`, and `key` or other facts; null if there are none.
    #[serde(default)]
    pub data: Value,
}

impl WireError {
    /// There is no such job or queue.
    pub const NOT_FOUND: i64 = -32003;
    /// The state of the job or queue does not allow it.
    pub const CONFLICT: i64 = -32004;
    /// A limit is reached.
    pub const LIMIT_EXCEEDED: i64 = -32005;
    /// The server is stopping, its disk is full, or a shim does not answer.
    pub const UNAVAILABLE: i64 = -32006;

    /// Whether the same request may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self.code, Self::LIMIT_EXCEEDED | Self::UNAVAILABLE)
    }
}

/// A message that this version cannot parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server sent something that this version does not understand ({0})")]
pub struct BadFrame(&'static str);

#[derive(Deserialize)]
struct Envelope {
    id: Option<Value>,
    method: Option<String>,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    result: Value,
    error: Option<WireError>,
}

/// A request as text.
pub fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// Reads a text frame.
pub fn text(frame: &str) -> Result<ServerMessage, BadFrame> {
    let envelope: Envelope =
        serde_json::from_str(frame).map_err(|_| BadFrame("a message that is not JSON-RPC"))?;
    if let Some(method) = envelope.method {
        let params = envelope.params;
        return Ok(ServerMessage::Notification { method, params });
    }
    let result = match envelope.error {
        Some(error) => Err(error),
        None => Ok(envelope.result),
    };
    match (envelope.id.as_ref().and_then(Value::as_u64), result) {
        (Some(id), result) => Ok(ServerMessage::Reply { id, result }),
        (None, _) => Err(BadFrame("a reply without an id")),
    }
}

/// Reads a binary frame.
pub fn binary(frame: &Bytes) -> Result<OutputFrame, BadFrame> {
    if frame.len() < FRAME_HEADER_BYTES {
        return Err(BadFrame("a binary frame without its header"));
    }
    let stream = Stream::from_code(frame[4]).ok_or(BadFrame("an unknown stream"))?;
    let at = i64::try_from(u64_at(frame, 16))
        .ok()
        .and_then(DateTime::from_timestamp_micros)
        .ok_or(BadFrame("a time out of range"))?;
    Ok(OutputFrame {
        subscription: u32_at(frame, 0),
        stream,
        at,
        offset: u64_at(frame, 24),
        data: frame.slice(FRAME_HEADER_BYTES..),
    })
}

fn u32_at(frame: &Bytes, at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&frame[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn u64_at(frame: &Bytes, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&frame[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(7u32.to_le_bytes());
        frame.extend([1, 0, 0, 0]);
        frame.extend(2u32.to_le_bytes());
        frame.extend(0u32.to_le_bytes());
        frame.extend(1_000_001u64.to_le_bytes());
        frame.extend(99u64.to_le_bytes());
        frame.extend(b"\xff\0bytes");
        frame
    }

    #[test]
    fn a_binary_frame_is_read_field_by_field() {
        let read = binary(&Bytes::from(frame())).expect("a frame");
        assert_eq!(read.subscription, 7);
        assert_eq!(read.stream, Stream::Stderr);
        assert_eq!(read.at.timestamp_micros(), 1_000_001);
        assert_eq!(read.offset, 99);
        assert_eq!(&read.data[..], b"\xff\0bytes");
    }

    #[test]
    fn broken_binary_frames_are_refused() {
        assert!(binary(&Bytes::from(frame()[..31].to_vec())).is_err());
        let mut unknown = frame();
        unknown[4] = 9;
        assert!(binary(&Bytes::from(unknown)).is_err());
        let mut far = frame();
        far[16..24].fill(0xff);
        assert!(binary(&Bytes::from(far)).is_err());
    }

    #[test]
    fn text_frames_are_replies_errors_or_notices() {
        let reply = text(r#"{"jsonrpc":"2.0","id":3,"result":{"a":1}}"#).expect("a reply");
        assert!(matches!(reply, ServerMessage::Reply { id: 3, result: Ok(v) } if v["a"] == 1));
        let error = r#"{"jsonrpc":"2.0","id":4,"error":{"code":-32003,"message":"no"}}"#;
        let refused = text(error).expect("a reply");
        assert!(
            matches!(refused, ServerMessage::Reply { id: 4, result: Err(e) } if e.code == -32003)
        );
        let notice = text(r#"{"jsonrpc":"2.0","method":"job.end","params":{}}"#).expect("a notice");
        assert!(
            matches!(notice, ServerMessage::Notification { method, .. } if method == "job.end")
        );
        assert!(text("[]").is_err());
        assert!(text(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#).is_err());
    }
}
