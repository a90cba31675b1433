//! MCP over HTTP: `/mcp`, Streamable HTTP. The guard of all routes has checked Host and Origin; here are the
//! token, the bound of a message, and errors that say what to do. The SDK does the rest.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use http_body_util::BodyExt;
use rmcp::{
    ServerHandler,
    transport::{StreamableHttpServerConfig, StreamableHttpService},
};
use serde::Deserialize;
use tokio::sync::OwnedRwLockReadGuard;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    client::ClientLeft,
    handler::McpHandler,
    sessions::{self, SessionAdmission, Sessions, StoredSessions},
};
use crate::access::Principal;
use crate::protocol::{
    ErrorKind, RefusalReason, ServerState,
    jsonrpc::{envelope, error::Refusal},
    peer::Connection,
    problem::HttpProblem,
};

/// How long calls may still be answered when the server stops; then their streams end.
const FINISH_TIMEOUT: Duration = Duration::from_millis(800);

/// How much of a body that is too long is read and discarded, bytes, before the connection is closed.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// Makes the route `/mcp` of a server. Tests of the interface add tools of their own to it.
#[derive(Debug, Clone, Copy)]
pub struct McpRoutes(pub fn(Arc<ServerState>) -> Router);

impl Default for McpRoutes {
    fn default() -> Self {
        Self(routes)
    }
}

/// The route `/mcp`.
pub fn routes(server: Arc<ServerState>) -> Router {
    let handler_server = server.clone();
    mount(server, move || McpHandler::new(handler_server.clone()))
}

/// The route `/mcp` with another handler: `handler` makes one for each session.
pub fn mount<H: ServerHandler>(
    server: Arc<ServerState>,
    handler: impl Fn() -> H + Send + Sync + 'static,
) -> Router {
    let mut config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(server.settings.message_len_max())
        .with_sse_retry(None)
        .with_cancellation_token(ended(&server));
    config.session_store = Some(Arc::new(StoredSessions(server.clone())));
    let sessions = Arc::new(Sessions::new(server.clone()));
    let service = StreamableHttpService::new(move || Ok(handler()), sessions.clone(), config);
    Router::new()
        .route("/mcp", any(answer::<H>))
        .with_state(Interface {
            server,
            service,
            sessions,
        })
}

/// Cancelled a while after the server begins to stop.
fn ended(server: &ServerState) -> CancellationToken {
    let (ended, stopping) = (CancellationToken::new(), server.stopping.clone());
    let cancelled = ended.clone();
    // The stop does not wait for this task: a stream that has nothing to answer may break off.
    tokio::spawn(async move {
        stopping.cancelled().await;
        #[expect(
            clippy::disallowed_methods,
            reason = "the time that calls have to be answered"
        )]
        tokio::time::sleep(FINISH_TIMEOUT).await;
        cancelled.cancel();
    });
    ended
}

/// The server, the SDK's service and its sessions.
struct Interface<H> {
    server: Arc<ServerState>,
    service: StreamableHttpService<H, Sessions>,
    sessions: Arc<Sessions>,
}

impl<H> Clone for Interface<H> {
    fn clone(&self) -> Self {
        Self {
            server: self.server.clone(),
            service: self.service.clone(),
            sessions: self.sessions.clone(),
        }
    }
}

async fn answer<H: ServerHandler>(
    State(Interface {
        server,
        service,
        sessions,
    }): State<Interface<H>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Response {
    let principal = match check(&server, &connection, &request) {
        Ok(principal) => principal,
        Err(problem) => return unauthorized(problem.into_response()),
    };
    match sessions.is_foreign(request.headers(), &principal).await {
        Ok(false) => {}
        Ok(true) => return no_such_session(),
        Err(error) => return HttpProblem::from(error).into_response(),
    }
    // A call without a session counts as one until it is answered.
    let entered = server.sessions.enter().await;
    let left = CancellationToken::new();
    let bytes_max = server.settings.message_len_max();
    let is_json = request.method() == Method::POST;
    let is_end = request.method() == Method::DELETE;
    let (mut request, sent) = match read(request, bytes_max).await {
        Ok(read) => read,
        Err(refused) => return refused,
    };
    name_task(&mut request, &sent);
    request.extensions_mut().insert(ClientLeft(left.clone()));
    request.extensions_mut().insert(principal.clone());
    let admission = SessionAdmission::new(connection.peer, &principal);
    let (response, full) = sessions::admitted(admission, service.handle(request)).await;
    if let Some(full) = full {
        server.refused(connection.peer, RefusalReason::Sessions);
        let detail = format!("there are too many sessions ({}); try again later", full.0);
        return HttpProblem::new(ErrorKind::LimitExceeded, detail)
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .into_response();
    }
    if is_json && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE && !sent.is_empty() {
        return malformed(&sent);
    }
    if is_end && response.status() == StatusCode::ACCEPTED {
        return StatusCode::NO_CONTENT.into_response();
    }
    let (head, body) = response.into_parts();
    let mut body = Watched {
        body,
        left: Some(left),
        token_ended: Box::pin(principal.ended.clone().cancelled_owned()),
        _principal: principal,
        _entered: entered,
    };
    // The head waits for the first part of the body: a client whose call fails before it has seen a head
    // says so at once, and one that waits for a stream to go on does not.
    let first = match is_json {
        true => body.frame().await,
        false => None,
    };
    Response::from_parts(head, Body::new(BegunBody { first, rest: body }))
}

fn check(
    server: &ServerState,
    connection: &Connection,
    request: &Request,
) -> Result<Arc<Principal>, HttpProblem> {
    let Some(principal) = server.shown(connection.peer, request)? else {
        server.refused(connection.peer, RefusalReason::NoToken);
        let detail = "send the token as Authorization: Bearer; it is in the file `token` of the server's \
                      data directory";
        return Err(HttpProblem::new(ErrorKind::Unauthenticated, detail));
    };
    if server.stopping.is_cancelled() {
        return Err(HttpProblem::new(
            ErrorKind::Unavailable,
            "the server is stopping",
        ));
    }
    Ok(principal)
}

/// A session of another token is none for this one.
fn no_such_session() -> Response {
    let detail = "there is no such session; begin one with initialize";
    HttpProblem::new(ErrorKind::NotFound, detail).into_response()
}

/// A 401 names its scheme (RFC 9110, 11.6.1).
fn unauthorized(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// The request with its body in memory, and the body once more. A body that is too long is read to its end
/// all the same, as far as that is bearable: a client that still writes would not read the answer.
async fn read(request: Request, bytes_max: usize) -> Result<(Request, Bytes), Response> {
    let (parts, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            let message = "the body ended early";
            let refusal = Refusal::new(ErrorKind::InvalidRequest, message);
            return Err(error(StatusCode::BAD_REQUEST, &refusal));
        };
        let data = frame.into_data().unwrap_or_default();
        len += data.len();
        if len <= bytes_max {
            bytes.extend_from_slice(&data);
        } else if len > DISCARDED_BYTES_MAX {
            break;
        } else {
            bytes = Vec::new();
        }
    }
    if len > bytes_max {
        return Err(too_long(bytes_max));
    }
    let bytes = Bytes::from(bytes);
    let request = Request::from_parts(parts, Body::from(bytes.clone()));
    Ok((request, bytes))
}

/// Names a request's task in the header that the SDK wants: some clients of the extension leave it out. A
/// name that is there is not touched, so one that contradicts the message is still refused.
fn name_task(request: &mut Request, body: &[u8]) {
    #[derive(Deserialize)]
    struct TaskRequest<'a> {
        method: &'a str,
        params: TaskParams<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TaskParams<'a> {
        task_id: &'a str,
    }
    const NAME: &str = "mcp-name";
    if request.headers().contains_key(NAME) {
        return;
    }
    let Ok(asked) = serde_json::from_slice::<TaskRequest<'_>>(body) else {
        return;
    };
    if asked.method.starts_with("tasks/")
        && let Ok(id) = HeaderValue::from_str(asked.params.task_id)
    {
        request.headers_mut().insert(NAME, id);
    }
}

/// The answer to a message that is too long.
fn too_long(bytes_max: usize) -> Response {
    let message = format!(
        "the message is longer than {bytes_max} bytes; write the data to a file and pass its path"
    );
    let refusal = Refusal::limit("message_bytes_max", message);
    error(StatusCode::PAYLOAD_TOO_LARGE, &refusal)
}

/// The answer to a body that is no message.
fn malformed(body: &[u8]) -> Response {
    let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(body);
    let refusal = match parsed {
        Err(wrong) => Refusal::new(
            ErrorKind::ParseError,
            format!("the body is no JSON: {wrong}"),
        ),
        Ok(_) => Refusal::new(
            ErrorKind::InvalidRequest,
            "the body must be one JSON-RPC 2.0 message of MCP, with Content-Type: application/json",
        ),
    };
    error(StatusCode::BAD_REQUEST, &refusal)
}

/// An error that answers no request in particular.
fn error(status: StatusCode, refusal: &Refusal) -> Response {
    let json = HeaderValue::from_static("application/json");
    let body = envelope::error(None, refusal);
    (status, [(header::CONTENT_TYPE, json)], body).into_response()
}

/// A response's body whose first part was read.
struct BegunBody<B: HttpBody> {
    first: Option<Result<hyper::body::Frame<B::Data>, B::Error>>,
    rest: Watched<B>,
}

impl<B: HttpBody + Unpin> HttpBody for BegunBody<B>
where
    B::Data: Unpin,
    B::Error: Unpin,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<B::Data>, B::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

/// A response's body; dropped before its end if the client leaves, and ended with the client's token.
struct Watched<B> {
    body: B,
    left: Option<CancellationToken>,
    token_ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Its expiry is watched as long as it is held.
    _principal: Arc<Principal>,
    _entered: OwnedRwLockReadGuard<()>,
}

impl<B: HttpBody + Unpin> HttpBody for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<B::Data>, B::Error>>> {
        if self.token_ended.as_mut().poll(context).is_ready() {
            if let Some(left) = self.left.take() {
                left.cancel();
            }
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.left = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        if let Some(left) = self.left.take() {
            left.cancel();
        }
    }
}
