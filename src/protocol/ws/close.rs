//! Why a session ends, and what its client is told.
//!
//! Who says it is `life`'s business.

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
    /// The client said goodbye.
    Left,
    /// The connection broke, or its client answers nothing any more.
    Broken,
    /// A message was too long.
    TooLong,
    /// Text that is not UTF-8.
    NotText,
    /// A frame that the protocol does not allow.
    NotAllowed,
    /// The time to authenticate is over.
    Stranger,
    /// Too much came before it had authenticated.
    Intrusive,
    /// A tail failed.
    Failed,
    /// It had not authenticated, and another client needs its seat.
    Displaced,
    /// It had not authenticated, and another client needs its connection: there is no time for words.
    Crowded,
    /// Too much is held for all clients, and this one did the least about it.
    Evicted,
}

impl SessionEnd {
    /// The last words, where there is somebody to hear them.
    pub fn farewell(self) -> Option<CloseMessage> {
        let (code, reason) = match self {
            Self::Left | Self::Broken | Self::Crowded => return None,
            Self::Stopping => (CloseCode::Away, "the server stops: reconnect and resume"),
            Self::TooLong => (CloseCode::Size, "a message was too long"),
            Self::NotText => (CloseCode::Invalid, "text must be UTF-8"),
            Self::NotAllowed => (CloseCode::Protocol, "the frame broke the protocol"),
            Self::Stranger => (CloseCode::Policy, "not authenticated in time"),
            Self::Intrusive => (CloseCode::Policy, "too much before authenticating"),
            Self::Displaced => (
                CloseCode::Again,
                "another client needs this seat: authenticate at once, or show the token with the upgrade",
            ),
            Self::Failed => (CloseCode::Error, "a tail failed: reconnect and resume"),
            Self::Evicted => (
                CloseCode::Again,
                "too much is held for clients: read replies, finish messages; reconnect and go on",
            ),
        };
        let away = json!({"reason": "the server stops; reconnect and resume"});
        let note = (self == Self::Stopping).then(|| notification("server.going_away", away));
        Some(CloseMessage { note, code, reason })
    }

    /// What the log is told about its client, where it is to blame.
    pub fn reason(self) -> Option<RefusalReason> {
        match self {
            Self::TooLong => Some(RefusalReason::TooLong),
            Self::NotText => Some(RefusalReason::NotText),
            Self::NotAllowed => Some(RefusalReason::NotAllowed),
            Self::Stranger => Some(RefusalReason::Late),
            Self::Intrusive => Some(RefusalReason::Intrusive),
            Self::Displaced | Self::Crowded => Some(RefusalReason::GaveWay),
            // Those that are evicted are counted where that is decided.
            Self::Stopping | Self::Left | Self::Broken | Self::Failed | Self::Evicted => None,
        }
    }

    /// What a failed read means.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::TooLong,
            Error::Utf8(_) => Self::NotText,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Broken,
            Error::Protocol(_) => Self::NotAllowed,
            Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => Self::Intrusive,
            _ => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::error::CapacityError;

    use super::*;

    fn code(ending: SessionEnd) -> Option<u16> {
        ending.farewell().map(|farewell| farewell.code.into())
    }

    #[test]
    fn every_ending_has_its_code() {
        for (ending, expected) in [
            (SessionEnd::Stopping, Some(1001)),
            (SessionEnd::NotAllowed, Some(1002)),
            (SessionEnd::NotText, Some(1007)),
            (SessionEnd::Stranger, Some(1008)),
            (SessionEnd::Intrusive, Some(1008)),
            (SessionEnd::TooLong, Some(1009)),
            (SessionEnd::Failed, Some(1011)),
            (SessionEnd::Evicted, Some(1013)),
            (SessionEnd::Displaced, Some(1013)),
            (SessionEnd::Crowded, None),
            (SessionEnd::Left, None),
            (SessionEnd::Broken, None),
        ] {
            assert_eq!(code(ending), expected, "{ending:?}");
        }
        let words = SessionEnd::Displaced.farewell().expect("words");
        // A control frame has 125 bytes, two of them for the code (RFC 6455, 5.5).
        assert!(words.reason.len() <= 123);
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
        let note = SessionEnd::Stopping
            .farewell()
            .and_then(|farewell| farewell.note);
        assert!(note.is_some_and(|note| note.contains("server.going_away")));
        assert!(
            SessionEnd::Stranger
                .farewell()
                .is_some_and(|farewell| farewell.note.is_none())
        );
    }
}
