//! Why a session ends, and the close message for its client. `connection` decides when.

use std::io;

use serde_json::json;
use tokio_tungstenite::tungstenite::{
    Error, error::ProtocolError, protocol::frame::coding::CloseCode,
};

use super::outbox::CloseMessage;
use crate::protocol::{RefusalReason, encode::notifications::notification};

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The server stops.
    Stopping,
    /// The client closed the session.
    Left,
    /// The connection broke, or the client answers no ping any more.
    Broken,
    /// A message was longer than `message_bytes_max`.
    TooLong,
    /// A text frame was not UTF-8.
    NotText,
    /// A frame that the protocol does not allow.
    NotAllowed,
    /// The client did not authenticate within `auth_timeout_s`.
    AuthTimeout,
    /// The client sent more than `unauthenticated_bytes_max` before it authenticated.
    UnauthenticatedBytes,
    /// The client's token was revoked, replaced or has expired.
    TokenEnded,
    /// The session speaks MCP, and its exchange of messages has ended.
    McpEnded,
    /// The session was not authenticated, and another client needs its slot.
    SlotDisplaced,
    /// The connection was not authenticated, and another client needs its slot: it is closed without a
    /// message.
    ConnectionDisplaced,
    /// The server holds too much for all clients, and this client made no progress for the longest time.
    Evicted,
}

impl SessionEnd {
    /// As the log has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Left => "left",
            Self::Broken => "broken",
            Self::TooLong => "too_long",
            Self::NotText => "not_text",
            Self::NotAllowed => "not_allowed",
            Self::AuthTimeout => "auth_timeout",
            Self::UnauthenticatedBytes => "unauthenticated_bytes",
            Self::TokenEnded => "token_ended",
            Self::McpEnded => "mcp_ended",
            Self::SlotDisplaced | Self::ConnectionDisplaced => "displaced",
            Self::Evicted => "evicted",
        }
    }

    /// The close message; `None` if the client has left or gets none.
    pub fn close_message(self) -> Option<CloseMessage> {
        let (code, reason) = match self {
            Self::Left | Self::Broken | Self::ConnectionDisplaced => return None,
            Self::Stopping => (CloseCode::Away, "the server stops: reconnect and resume"),
            Self::TooLong => (CloseCode::Size, "a message was too long"),
            Self::NotText => (CloseCode::Invalid, "text must be UTF-8"),
            Self::NotAllowed => (CloseCode::Protocol, "the frame broke the protocol"),
            Self::AuthTimeout => (CloseCode::Policy, "not authenticated in time"),
            Self::UnauthenticatedBytes => {
                (CloseCode::Policy, "too many bytes before authenticating")
            }
            Self::TokenEnded => (
                CloseCode::Policy,
                "the token was revoked or replaced, or has expired",
            ),
            Self::SlotDisplaced => (
                CloseCode::Again,
                "another client needs this slot: authenticate at once, or show the token with the upgrade",
            ),
            Self::McpEnded => (
                CloseCode::Error,
                "the MCP session has ended: begin another one",
            ),
            Self::Evicted => (
                CloseCode::Again,
                "too much is held for clients: read replies, finish messages; reconnect and go on",
            ),
        };
        let away = json!({"reason": "the server stops; reconnect and resume"});
        let notification =
            (self == Self::Stopping).then(|| notification("server.going_away", away));
        Some(CloseMessage {
            notification,
            code,
            reason,
        })
    }

    /// Why the client is refused, for the log; `None` where the client did nothing wrong.
    pub fn reason(self) -> Option<RefusalReason> {
        match self {
            Self::TooLong => Some(RefusalReason::TooLong),
            Self::NotText => Some(RefusalReason::NotText),
            Self::NotAllowed => Some(RefusalReason::NotAllowed),
            Self::AuthTimeout => Some(RefusalReason::AuthTimeout),
            Self::UnauthenticatedBytes => Some(RefusalReason::UnauthenticatedBytes),
            Self::SlotDisplaced | Self::ConnectionDisplaced => Some(RefusalReason::GaveWay),
            // Evictions are logged by the memory budget.
            Self::Stopping
            | Self::Left
            | Self::Broken
            | Self::TokenEnded
            | Self::McpEnded
            | Self::Evicted => None,
        }
    }

    /// The end that a failed read means.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::TooLong,
            Error::Utf8(_) => Self::NotText,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Broken,
            Error::Protocol(_) => Self::NotAllowed,
            Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
                Self::UnauthenticatedBytes
            }
            _ => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::error::CapacityError;

    use super::*;

    fn code(end: SessionEnd) -> Option<u16> {
        end.close_message()
            .map(|close_message| close_message.code.into())
    }

    #[test]
    fn every_ending_has_its_code() {
        for (end, expected) in [
            (SessionEnd::Stopping, Some(1001)),
            (SessionEnd::NotAllowed, Some(1002)),
            (SessionEnd::NotText, Some(1007)),
            (SessionEnd::AuthTimeout, Some(1008)),
            (SessionEnd::UnauthenticatedBytes, Some(1008)),
            (SessionEnd::TokenEnded, Some(1008)),
            (SessionEnd::TooLong, Some(1009)),
            (SessionEnd::McpEnded, Some(1011)),
            (SessionEnd::Evicted, Some(1013)),
            (SessionEnd::SlotDisplaced, Some(1013)),
            (SessionEnd::ConnectionDisplaced, None),
            (SessionEnd::Left, None),
            (SessionEnd::Broken, None),
        ] {
            assert_eq!(code(end), expected, "{end:?}");
        }
        let message = SessionEnd::SlotDisplaced
            .close_message()
            .expect("a message");
        // A control frame has 125 bytes, two of them for the code (RFC 6455, 5.5).
        assert!(message.reason.len() <= 123);
        let capacity = CapacityError::MessageTooLong {
            size: 2,
            max_size: 1,
        };
        assert_eq!(
            SessionEnd::of(&Error::Capacity(capacity)),
            SessionEnd::TooLong
        );
        assert_eq!(
            SessionEnd::of(&Error::Utf8(String::new())),
            SessionEnd::NotText
        );
    }

    #[test]
    fn only_a_planned_stop_is_announced() {
        let notification = SessionEnd::Stopping
            .close_message()
            .and_then(|close_message| close_message.notification);
        assert!(
            notification.is_some_and(|notification| notification.contains("server.going_away"))
        );
        assert!(
            SessionEnd::AuthTimeout
                .close_message()
                .is_some_and(|close_message| close_message.notification.is_none())
        );
    }
}
