//! The WebSocket interface: the upgrade, then a session of JSON-RPC requests and notifications.
//!
//! Here are the shape, the order and the bounds of requests; the executor does what they ask for.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    ErrorKind, RefusalReason, ServerState, SessionSlot,
    auth::Bearer,
    mcp::client::{SESSION_HEADER, WsSession},
    peer::{Connection, Peer},
    problem::HttpProblem,
    refusals::RefusalSource,
    sub_protocol::{Dialect, SubProtocolOffer},
    tokens::WrongToken,
};
use crate::access::Principal;

mod admit;
mod close;
mod connection;
mod dispatch;
mod held_parts;
mod mcp;
mod methods;
mod outbox;
mod session;
mod tails;

/// `GET /ws`, `GET /ws/mcp`: checks the token and takes a session slot, then begins a session.
///
/// A client that offers the sub-protocol `mcp`, and not `cc-executor`, gets a session of MCP.
pub async fn upgrade(
    State(server): State<Arc<ServerState>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Response {
    let _entering = server.sessions.enter().await;
    accept(server, connection, request).unwrap_or_else(IntoResponse::into_response)
}

fn accept(
    server: Arc<ServerState>,
    connection: Arc<Connection>,
    mut request: Request,
) -> Result<Response, HttpProblem> {
    if request.method() != Method::GET {
        return Err(HttpProblem::method_not_allowed("GET"));
    }
    let offer = SubProtocolOffer::read(request.headers());
    let shown = server.shown(connection.peer, &request)?;
    let principal = check_sub_protocol(&server, connection.peer, &offer)?.or(shown);
    if request.version() < Version::HTTP_11 {
        return Err(not_an_upgrade());
    }
    let accept = accept_key(request.headers())?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(not_an_upgrade)?;
    let dialect = offer.dialect();
    if dialect == Dialect::Mcp && principal.is_none() {
        server.refused(connection.peer, RefusalReason::NoToken);
        let message = "send the token as Authorization: Bearer; MCP has no other way";
        return Err(HttpProblem::new(ErrorKind::Unauthenticated, message));
    }
    let mcp_session = session_of(request.headers());
    if server.stopping.is_cancelled() {
        return Err(HttpProblem::new(
            ErrorKind::Unavailable,
            "the server is stopping",
        ));
    }
    let slot = take_slot(&server, connection.peer, principal.is_some())?;
    if principal.is_some() {
        connection.slot.set_authenticated();
    }
    let tasks = server.tasks.clone();
    tasks.spawn(async move {
        // The session keeps the connection and its slot.
        match upgrade.await {
            Ok(upgraded) => {
                let opened = Opened {
                    slot,
                    connection,
                    principal,
                    dialect,
                    mcp_session,
                };
                connection::run(upgraded, server, opened).await
            }
            Err(error) => tracing::debug!(%error, "a client left during the upgrade"),
        }
    });
    Ok(switching_protocols(&accept, offer.selected))
}

/// A session that is about to begin.
struct Opened {
    slot: SessionSlot,
    connection: Arc<Connection>,
    /// The client's rights; `None`: it has to show a token.
    principal: Option<Arc<Principal>>,
    dialect: Dialect,
    /// What the session is for MCP.
    mcp_session: WsSession,
}

/// The MCP session: its name is the client's, which it sends again when it reconnects, or a new one.
fn session_of(headers: &HeaderMap) -> WsSession {
    const NAME_BYTES_MAX: usize = 200;
    let name = headers
        .get(SESSION_HEADER)
        .and_then(|name| name.to_str().ok());
    let name = name.filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()));
    WsSession {
        is_resumed: name.is_some(),
        name: name.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned),
    }
}

/// The client whose token is among the sub-protocols. It is refused if `cc-executor` or `mcp` is not beside it: a browser
/// fails an upgrade in which none of its sub-protocols is selected, and the token is never sent back.
fn check_sub_protocol(
    server: &ServerState,
    peer: Peer,
    offer: &SubProtocolOffer,
) -> Result<Option<Arc<Principal>>, HttpProblem> {
    let recognized = match offer.bearer() {
        Bearer::Absent => return Ok(None),
        Bearer::Token(text) => server.tokens.recognize(text),
        Bearer::Wrong => Err(WrongToken::Unknown),
    };
    match recognized {
        Err(wrong) => {
            server.refused(peer, RefusalReason::WrongSubProtocol);
            Err(HttpProblem::new(
                ErrorKind::Unauthenticated,
                wrong.to_string(),
            ))
        }
        Ok(_) if offer.selected.is_none() => {
            server.refused(peer, RefusalReason::SubProtocol);
            let message = "offer the sub-protocol cc-executor or mcp beside the token";
            Err(HttpProblem::new(ErrorKind::InvalidRequest, message))
        }
        Ok(principal) => Ok(Some(principal)),
    }
}

fn take_slot(
    server: &ServerState,
    peer: Peer,
    authenticated: bool,
) -> Result<SessionSlot, HttpProblem> {
    if peer.is_trusted() {
        return Ok(server.sessions.take_unix());
    }
    let slot = match authenticated {
        true => server.sessions.take_authenticated(),
        false => server
            .sessions
            .take_unauthenticated(RefusalSource::of(peer)),
    };
    slot.map_err(|full| {
        server.refused(peer, RefusalReason::Sessions);
        HttpProblem::new(
            ErrorKind::LimitExceeded,
            format!("there are too many sessions ({}); try again later", full.0),
        )
        .with_status(StatusCode::SERVICE_UNAVAILABLE)
    })
}

fn not_an_upgrade() -> HttpProblem {
    HttpProblem::new(
        ErrorKind::InvalidRequest,
        "this route is a WebSocket: ask for an upgrade, version 13",
    )
    .with_status(StatusCode::UPGRADE_REQUIRED)
}

/// The answer to the client's key, if its headers ask for a WebSocket (RFC 6455, 4.2.1).
fn accept_key(headers: &HeaderMap) -> Result<String, HttpProblem> {
    let has = |name: header::HeaderName, word: &str| {
        let values = headers
            .get_all(name)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    let asked = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asked);
    key.map(|key| derive_accept_key(key.as_bytes()))
        .ok_or_else(not_an_upgrade)
}

fn switching_protocols(accept: &str, selected: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(name) = selected {
        let name = HeaderValue::from_static(name);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn the_key_of_the_standard_is_answered_as_the_standard_says() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        assert_eq!(
            accept_key(&asked).as_deref(),
            Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        for missing in [
            "connection",
            "upgrade",
            "sec-websocket-version",
            "sec-websocket-key",
        ] {
            let mut asked = asked.clone();
            asked.remove(missing);
            let refused = accept_key(&asked).map_err(|problem| problem.status);
            assert_eq!(refused, Err(StatusCode::UPGRADE_REQUIRED), "{missing}");
        }
    }
}
