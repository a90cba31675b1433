//! Errors over HTTP: RFC 9457 problem details with the error kinds of every interface.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{ErrorKind, origin::Foreign};
use crate::executor::Error;

/// How long a client shall wait before it tries again, seconds.
const RETRY_AFTER_S: u32 = 5;

/// An error as HTTP answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProblem {
    /// The status line.
    pub status: StatusCode,
    /// The member `kind`.
    pub kind: ErrorKind,
    /// What is wrong, and what to do.
    pub detail: String,
    /// The methods of the route, for the header Allow (RFC 9110, 10.2.1).
    allow: Option<&'static str>,
}

impl HttpProblem {
    /// A problem with the usual status of its kind.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            status: kind.status(),
            kind,
            detail: detail.into(),
            allow: None,
        }
    }

    /// The route supports only these methods.
    pub fn method_not_allowed(methods: &'static str) -> Self {
        let detail = format!("this route does not support this method, only {methods}");
        Self {
            allow: Some(methods),
            ..Self::new(ErrorKind::InvalidRequest, detail)
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
        }
    }

    /// The same with another status.
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl From<Foreign> for HttpProblem {
    fn from(foreign: Foreign) -> Self {
        let kind = match foreign {
            Foreign::HostCount => ErrorKind::InvalidRequest,
            Foreign::Host | Foreign::Origin => ErrorKind::Forbidden,
        };
        Self::new(kind, foreign.to_string())
    }
}

impl From<Error> for HttpProblem {
    fn from(error: Error) -> Self {
        Self::new(ErrorKind::of(&error), error.to_string())
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "kind": self.kind.name(),
            "detail": self.detail,
        });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::METHOD_NOT_ALLOWED if self.allow.is_some() => {
                let allow = HeaderValue::from_static(self.allow.unwrap_or_default());
                headers.insert(header::ALLOW, allow);
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static("13"),
                );
            }
            _ => {}
        }
        response
    }
}
