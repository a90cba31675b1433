//! The HTTP routes, the same on both listeners, and the guard in front of them.
//!
//! Sockets are `listener`'s business, sessions `ws`'s.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tower_service::Service;

use super::{
    ErrorKind, RefusalReason, ServerState,
    auth::Bearer,
    job_counts::counts,
    origin::Foreign,
    peer::{Connection, Peer},
    problem::HttpProblem,
    ws,
};

/// The routes.
pub fn router(door: Arc<ServerState>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        // Not `get`: it would take HEAD for GET.
        .route("/ws", any(ws::upgrade))
        .route("/ws/mcp", any(ws::upgrade))
        .fallback(async || HttpProblem::new(ErrorKind::NotFound, "there is no such route"))
        .method_not_allowed_fallback(async || {
            HttpProblem::new(ErrorKind::InvalidRequest, "this route knows no such method")
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .with_state(door)
}

/// Answers one request: the guard first, whatever it asks for, then the routes.
pub async fn answer(
    door: Arc<ServerState>,
    mut router: Router,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    if let Err((reason, problem)) = guard(&door, connection.peer, &request) {
        door.refusals.tell(connection.peer, reason);
        return Ok(problem.into_response());
    }
    let is_known = match door.token.check(request.headers()) {
        Bearer::Right => true,
        Bearer::Absent => connection.peer.is_trusted(),
        Bearer::Wrong => false,
    };
    if is_known {
        connection.place.known();
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(connection);
    router.call(request).await
}

fn guard(
    door: &ServerState,
    peer: Peer,
    request: &Request<Incoming>,
) -> Result<(), (RefusalReason, HttpProblem)> {
    let checked = match peer {
        Peer::Tcp(_) => door.origins.check_tcp(request.uri(), request.headers()),
        Peer::Unix { ours: true, .. } => door.origins.check_unix(request.headers()),
        Peer::Unix { ours: false, .. } => {
            let message = "this socket answers only the user who runs the server";
            return Err((
                RefusalReason::OtherUser,
                HttpProblem::new(ErrorKind::Forbidden, message),
            ));
        }
    };
    checked.map_err(|foreign| {
        let reason = match foreign {
            Foreign::HostCount | Foreign::Host => RefusalReason::Host,
            Foreign::Origin => RefusalReason::Origin,
        };
        (reason, foreign.into())
    })
}

async fn health(State(door): State<Arc<ServerState>>) -> Result<Json<Value>, HttpProblem> {
    let info = door.executor.info().await?;
    Ok(Json(json!({
        "status": "ok",
        "version": info.version,
        "uptime_s": door.uptime_s(),
        "sessions": door.sessions.count(),
        "jobs": counts(&info.counts),
    })))
}

async fn ready(
    State(door): State<Arc<ServerState>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: axum::extract::Request,
) -> Result<Json<Value>, HttpProblem> {
    if !door.authenticated(connection.peer, request.headers())? {
        door.refusals.tell(connection.peer, RefusalReason::NoToken);
        return Err(HttpProblem::new(
            ErrorKind::Unauthenticated,
            "send the token as Authorization: Bearer",
        ));
    }
    if door.stopping.is_cancelled() || door.draining.is_cancelled() {
        return Err(HttpProblem::new(
            ErrorKind::Unavailable,
            "the server is stopping",
        ));
    }
    door.executor.info().await?;
    Ok(Json(json!({"status": "ready"})))
}
