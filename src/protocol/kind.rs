//! The kinds of refusal, the same on every door, with their JSON-RPC code and HTTP status.
//!
//! When which one applies is decided where it is raised.

use axum::http::StatusCode;

use crate::executor::Error;

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not JSON.
    ParseError,
    /// JSON, but no request.
    InvalidRequest,
    /// Nobody knows the method.
    MethodNotFound,
    /// Wrong, missing or unknown parameters.
    InvalidParams,
    /// Our own failure.
    Internal,
    /// Who are you?
    Unauthenticated,
    /// Not allowed, whoever you are.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The state of things does not allow it.
    Conflict,
    /// A bound is reached.
    LimitExceeded,
    /// Not now.
    Unavailable,
    /// Promised, and not built yet.
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

    /// The name: `data.kind` of a JSON-RPC error, `kind` of a problem.
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

    /// The kind of an executor's refusal.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::NotFound(_) => Self::NotFound,
            Error::Invalid { .. } => Self::InvalidParams,
            Error::Forbidden { .. } => Self::Forbidden,
            Error::Conflict(_) => Self::Conflict,
            Error::Limit { .. } => Self::LimitExceeded,
            Error::Unavailable(_) | Error::Stopping => Self::Unavailable,
            Error::Internal(_) => Self::Internal,
        }
    }
}
