//! The HTTP routes, the same on both listeners, and the guard before them. Sockets are in `listener`,
//! sessions in `ws`.

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
    job_counts::counts,
    origin::Foreign,
    peer::{Connection, Peer},
    problem::HttpProblem,
    ws,
};

/// The routes of the HTTP interface; `mcp` is the route of MCP.
pub fn router(server: Arc<ServerState>, mcp: Router) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        // Not `get`, which would also accept HEAD.
        .route("/ws", any(ws::upgrade))
        .route("/ws/mcp", any(ws::upgrade))
        .fallback(async || HttpProblem::new(ErrorKind::NotFound, "there is no such route"))
        .method_not_allowed_fallback(async || {
            HttpProblem::new(
                ErrorKind::InvalidRequest,
                "this route does not support this method",
            )
            .with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .with_state(server)
        .merge(mcp)
}

/// Answers one request: first the guard, whatever the route, then the routes.
pub async fn answer(
    server: Arc<ServerState>,
    mut router: Router,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    if let Err((reason, problem)) = guard(&server, connection.peer, &request) {
        server.refused(connection.peer, reason);
        return Ok(problem.into_response());
    }
    let client = server.client(connection.peer, request.headers());
    if matches!(client, Ok(Some(_))) {
        connection.slot.set_authenticated();
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(client);
    request.extensions_mut().insert(connection);
    router.call(request).await
}

fn guard(
    server: &ServerState,
    peer: Peer,
    request: &Request<Incoming>,
) -> Result<(), (RefusalReason, HttpProblem)> {
    let checked = match peer {
        Peer::Tcp(_) => server.origins.check_tcp(request.uri(), request.headers()),
        Peer::Unix { ours: true, .. } => server.origins.check_unix(request.headers()),
        Peer::Unix { ours: false, .. } => {
            let message = "this socket answers only the user that runs the server";
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

async fn health(State(server): State<Arc<ServerState>>) -> Result<Json<Value>, HttpProblem> {
    let info = server.executor.info().await?;
    Ok(Json(json!({
        "status": "ok",
        "version": info.version,
        "uptime_s": server.uptime_s(),
        "sessions": server.sessions.count(),
        "jobs": counts(&info.counts),
        "notices": info.notices,
        // Without the place and the reason, which are nothing for everybody.
        "audit": info.audit.map(|audit| json!({"ok": audit.error.is_none(), "at": audit.at})),
    })))
}

async fn ready(
    State(server): State<Arc<ServerState>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: axum::extract::Request,
) -> Result<Json<Value>, HttpProblem> {
    if server.shown(connection.peer, &request)?.is_none() {
        server.refused(connection.peer, RefusalReason::NoToken);
        return Err(HttpProblem::new(
            ErrorKind::Unauthenticated,
            "send the token as Authorization: Bearer",
        ));
    }
    if server.stopping.is_cancelled() || server.draining.is_cancelled() {
        return Err(HttpProblem::new(
            ErrorKind::Unavailable,
            "the server is stopping",
        ));
    }
    server.executor.info().await?;
    Ok(Json(json!({"status": "ready"})))
}
