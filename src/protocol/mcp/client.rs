//! The client of an MCP request, as far as the request tells: its name and session, and which call of
//! which conversation this is.

use std::collections::BTreeMap;

use axum::http::request::Parts;
use rmcp::{RoleServer, service::RequestContext};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

/// Header that names a session over HTTP, and at the upgrade of a WebSocket.
pub const SESSION_HEADER: &str = "mcp-session-id";
/// Longest key of a call that is not made from a digest, bytes.
const KEY_BYTES_MAX: usize = 200;
/// Longest text of a client that becomes a label, bytes.
const LABEL_BYTES_MAX: usize = 200;
/// Label of a job that names the client's program.
pub const CLIENT_LABEL: &str = "mcp.client";
/// Label that names the client's session.
pub const SESSION_LABEL: &str = "mcp.session";
/// Label of a job whose prompts the client's user answers.
pub const ASK_USER_LABEL: &str = "mcp.ask_user";
/// Keys of `_meta` under which agents send the id of a tool call.
const CALL_KEYS: [&str; 3] = ["claudecode/toolUseId", "callId", "toolCallId"];
/// Keys of `_meta` under which agents send the id of a conversation.
const THREAD_KEYS: [&str; 3] = ["threadId", "claudecode/sessionId", "conversationId"];

/// The session of a request that comes over a WebSocket; an extension of its message.
#[derive(Debug, Clone)]
pub struct WsSession {
    /// Its name: the client's, or a new one.
    pub name: String,
    /// Whether the client named it: then it reconnects under that name, and sends again what has no
    /// answer.
    pub is_resumed: bool,
}

/// Cancelled when the client of a request has left before it had the whole answer.
#[derive(Debug, Clone)]
pub struct ClientLeft(pub CancellationToken);

/// The client of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpClient {
    /// The program's name, such as `claude-code`.
    pub name: String,
    /// The program's version.
    pub version: Option<String>,
    /// The session, where the client has one.
    pub session: Option<String>,
    /// Whether the client sends again what has no answer when it reconnects.
    pub sends_again: bool,
    /// The id that the agent gave to the tool call.
    pub call: Option<String>,
    /// The id of the conversation.
    pub thread: Option<String>,
    /// The id of the JSON-RPC request, unique in its session.
    pub request: String,
    /// The trace that the call is part of (W3C Trace Context): `traceparent` and `tracestate`.
    pub trace: Option<(String, Option<String>)>,
}

impl McpClient {
    /// The client of this request.
    pub fn of(context: &RequestContext<RoleServer>) -> Self {
        let info = context.client_info();
        let meta = &context.meta.0;
        let text = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| meta.get(*key));
            found.and_then(Value::as_str).map(str::to_owned)
        };
        let parent = meta
            .get_traceparent()
            .filter(|parent| is_traceparent(parent));
        let trace = parent.map(|parent| {
            let state = meta.get_tracestate().filter(|state| is_tracestate(state));
            (parent.to_owned(), state.map(str::to_owned))
        });
        Self {
            name: info
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), |info| info.name.clone()),
            version: info.map(|info| info.version),
            session: session(context),
            sends_again: context
                .extensions
                .get::<WsSession>()
                .is_some_and(|session| session.is_resumed),
            call: text(&CALL_KEYS),
            thread: text(&THREAD_KEYS),
            request: context.id.to_string(),
            trace,
        }
    }

    /// What a job keeps of its client.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let values = [
            (CLIENT_LABEL, Some(&self.name)),
            ("mcp.client_version", self.version.as_ref()),
            ("mcp.call", self.call.as_ref()),
            ("mcp.thread", self.thread.as_ref()),
            (SESSION_LABEL, self.session.as_ref()),
            ("traceparent", self.trace.as_ref().map(|(parent, _)| parent)),
        ];
        let present = values.into_iter().filter_map(|(key, value)| {
            let value = value.filter(|value| !value.is_empty())?;
            Some((key.to_owned(), bounded(value)))
        });
        present.collect()
    }

    /// The variables that hand the trace to the process (`TRACEPARENT`, `TRACESTATE`).
    pub fn environment(&self) -> BTreeMap<String, String> {
        let Some((parent, state)) = &self.trace else {
            return BTreeMap::new();
        };
        let mut variables = BTreeMap::from([("TRACEPARENT".to_owned(), parent.clone())]);
        if let Some(state) = state {
            variables.insert("TRACESTATE".to_owned(), state.clone());
        }
        variables
    }

    /// Names the call, so that the same call that arrives twice is recognised: the agent's id of it, or
    /// the request's id, within the session. `None` if neither is unique. Up to 256 bytes.
    pub fn call_key(&self) -> Option<String> {
        let scope = match (&self.session, &self.thread) {
            (Some(session), _) => session.clone(),
            (None, Some(thread)) => format!("{}/{thread}", self.name),
            (None, None) => self.name.clone(),
        };
        let key = match (&self.call, &self.session) {
            (Some(call), _) => format!("mcp:{scope}/{call}"),
            (None, Some(_)) => format!("mcp:{scope}/#{}", self.request),
            (None, None) => return None,
        };
        let is_plain = key.bytes().all(|c| c.is_ascii_graphic());
        if is_plain && key.len() <= KEY_BYTES_MAX {
            return Some(key);
        }
        let digest = Sha256::digest(key.as_bytes());
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("mcp:sha256:{digits}"))
    }
}

/// Whether this is a `traceparent` (W3C Trace Context, 3.2): version, trace, parent and flags in hexadecimal.
fn is_traceparent(text: &str) -> bool {
    let digits: Vec<usize> = text.split('-').map(str::len).collect();
    let is_hex = |c: u8| c == b'-' || c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    digits == [2, 32, 16, 2] && text.bytes().all(is_hex)
}

/// Whether this may be a `tracestate` (W3C Trace Context, 3.3): printable, up to 512 characters.
fn is_tracestate(text: &str) -> bool {
    text.len() <= 512 && text.bytes().all(|c| (b' '..=b'~').contains(&c))
}

/// The session that the request names.
fn session(context: &RequestContext<RoleServer>) -> Option<String> {
    if let Some(session) = context.extensions.get::<WsSession>() {
        return Some(session.name.clone());
    }
    let parts = context.extensions.get::<Parts>()?;
    let header = parts.headers.get(SESSION_HEADER)?;
    header.to_str().ok().map(str::to_owned)
}

/// The text, cut so that it may be the value of a label.
pub fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(LABEL_BYTES_MAX);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> McpClient {
        McpClient {
            name: "agent".into(),
            version: None,
            session: None,
            sends_again: false,
            call: None,
            thread: None,
            request: "7".into(),
            trace: None,
        }
    }

    #[test]
    fn a_call_is_named_within_its_session() {
        let with = |session: Option<&str>, call: Option<&str>| {
            McpClient {
                session: session.map(str::to_owned),
                call: call.map(str::to_owned),
                ..client()
            }
            .call_key()
        };
        assert_eq!(with(None, None), None);
        assert_eq!(with(Some("s"), None).as_deref(), Some("mcp:s/#7"));
        assert_eq!(with(Some("s"), Some("c")).as_deref(), Some("mcp:s/c"));
        assert_eq!(with(None, Some("c")).as_deref(), Some("mcp:agent/c"));
        // Long ids are not cut to the same key.
        let long = |end: &str| with(Some("s"), Some(&format!("{}{end}", "x".repeat(5_000))));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").is_some_and(|key| key.len() < 100));
    }

    #[test]
    fn only_a_trace_that_is_one_is_handed_on() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(trace));
        for wrong in [
            "",
            "00-1",
            &trace.to_uppercase(),
            &format!("{trace}-x"),
            "\0",
        ] {
            assert!(!is_traceparent(wrong), "{wrong:?}");
        }
        assert!(is_tracestate("rojo=00f067aa0ba902b7") && !is_tracestate("a\0"));
    }

    #[test]
    fn labels_say_what_is_known_and_are_bounded() {
        let client = McpClient {
            call: Some("ä".repeat(150)),
            version: Some(String::new()),
            trace: Some(("00-1".into(), None)),
            ..client()
        };
        let labels = client.labels();
        assert_eq!(labels["mcp.client"], "agent");
        assert_eq!(labels["mcp.call"], "ä".repeat(100));
        assert_eq!(labels["traceparent"], "00-1");
        assert_eq!(labels.len(), 3);
        assert_eq!(client.environment()["TRACEPARENT"], "00-1");
    }
}
