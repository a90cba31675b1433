//! The kinds of errors, the same on every interface, with their JSON-RPC code and HTTP status.

use axum::http::StatusCode;

use crate::executor::Error;

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is not JSON.
    ParseError,
    /// The JSON is no request.
    InvalidRequest,
    /// No method has this name.
    MethodNotFound,
    /// Wrong, missing or unknown parameters.
    InvalidParams,
    /// The server failed.
    Internal,
    /// The client has to show the token first.
    Unauthenticated,
    /// Not allowed, for any client.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The state of a job or queue does not allow it.
    Conflict,
    /// A bound is reached.
    LimitExceeded,
    /// Not possible now; the client may try again later.
    Unavailable,
    /// The protocol has it, but this version does not.
    Unsupported,
}

impl ErrorKind {
    /// The JSON-RPC error code.
    pub fn code(self) -> i64 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
            Self::Unauthenticated => -32001,
            Self::Forbidden => -32002,
            Self::NotFound => -32003,
            Self::Conflict => -32004,
            Self::LimitExceeded => -32005,
            Self::Unavailable => -32006,
            Self::Unsupported => -32007,
        }
    }

    /// The name: `data.kind` of a JSON-RPC error, `kind` of a problem document.
    pub fn name(self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::InvalidRequest => "invalid_request",
            Self::MethodNotFound => "method_not_found",
            Self::InvalidParams => "invalid_params",
            Self::Internal => "internal",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::LimitExceeded => "limit_exceeded",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::ParseError | Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::InvalidParams => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Conflict => StatusCode::CONFLICT,
            Self::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The kind of an executor's error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::NotFound(_) => Self::NotFound,
            Error::Invalid { .. } => Self::InvalidParams,
            Error::About { error, .. } => Self::of(error),
            Error::Forbidden { .. } | Error::Policy { .. } => Self::Forbidden,
            Error::Conflict(_) => Self::Conflict,
            Error::Limit { .. } => Self::LimitExceeded,
            Error::Unavailable(_) | Error::Stopping => Self::Unavailable,
            Error::Internal(_) => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_row_for_each_kind() {
        let kinds = [
            ErrorKind::ParseError,
            ErrorKind::InvalidRequest,
            ErrorKind::MethodNotFound,
            ErrorKind::InvalidParams,
            ErrorKind::Internal,
            ErrorKind::Unauthenticated,
            ErrorKind::Forbidden,
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::LimitExceeded,
            ErrorKind::Unavailable,
            ErrorKind::Unsupported,
        ];
        let page = include_str!("../../docs/protocol.md");
        for kind in kinds {
            let row = format!("\n| {} | `{}` | ", kind.code(), kind.name());
            assert!(page.contains(&row), "{row}");
        }
        assert_eq!(page.matches("\n| -32").count(), kinds.len());
    }
}
