//! The sockets: binds them, accepts connections, and runs one task per connection, which ends with the
//! server. Requests go to `http`.

use std::{io, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use axum::Router;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::{
    RefusalReason, ServerState, http,
    limits::{HEAD_BYTES_MAX, connection_slots::ConnectionSlots},
    mcp::McpRoutes,
    peer::{Connection, Peer},
};
use crate::data_dir::OwnDir;

/// Pause after a failed accept (no descriptors, for example), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The answer to a connection beyond the bound.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\
    Content-Length: 0\r\nConnection: close\r\n\r\n";

/// Binds the Unix socket `name` in `dir`, mode 0600, and replaces an old one. The caller holds the data
/// directory's lock, so an old one has no server. Any length of path works.
pub fn bind_unix(dir: &OwnDir, name: &str) -> io::Result<UnixListener> {
    dir.remove(name)?;
    let path = dir.short_path(name);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The routes of both listeners.
pub fn routes(server: &Arc<ServerState>, mcp: McpRoutes) -> Router {
    http::router(server.clone(), (mcp.0)(server.clone()))
}

/// Serves the Unix socket until the server stops.
pub async fn serve_unix(listener: UnixListener, server: Arc<ServerState>, router: Router) {
    let slots = ConnectionSlots::new(server.settings.unix_connections_max);
    let own_uid = nix::unistd::geteuid().as_raw();
    while let Some(accepted) = accept_next(&server, listener.accept()).await {
        let Some((stream, _)) = accepted else {
            continue;
        };
        let Ok(credentials) = stream.peer_cred() else {
            continue;
        };
        let uid = credentials.uid();
        let peer = Peer::Unix {
            uid,
            pid: credentials.pid(),
            ours: uid == own_uid || uid == 0,
        };
        match slots.take() {
            Some(slot) => start(&server, &router, stream, Connection { peer, slot }),
            None => refuse(&server, UnixStream::into_std(stream), peer),
        }
    }
}

/// Serves the TCP listener until the server stops.
pub async fn serve_tcp(listener: TcpListener, server: Arc<ServerState>, router: Router) {
    let slots = ConnectionSlots::new(server.settings.tcp_connections_max);
    while let Some(accepted) = accept_next(&server, listener.accept()).await {
        let Some((stream, address)) = accepted else {
            continue;
        };
        let peer = Peer::Tcp(address);
        // A live tail is many small messages: none of them should wait for the next.
        let _ = stream.set_nodelay(true);
        match slots.take() {
            Some(slot) => start(&server, &router, stream, Connection { peer, slot }),
            None => refuse(&server, TcpStream::into_std(stream), peer),
        }
    }
}

/// The next connection; `Some(None)` after a failure that may pass, `None` if the server stops.
async fn accept_next<T>(
    server: &ServerState,
    accept: impl Future<Output = io::Result<T>>,
) -> Option<Option<T>> {
    match server.stopping.run_until_cancelled(accept).await? {
        Ok(accepted) => Some(Some(accepted)),
        Err(error) => {
            tracing::warn!(%error, "could not accept a connection");
            #[expect(clippy::disallowed_methods, reason = "a pause before another try")]
            tokio::time::sleep(ACCEPT_PAUSE).await;
            Some(None)
        }
    }
}

/// One write into an empty socket buffer, which cannot block; then the connection is closed.
fn refuse<S: io::Write>(server: &ServerState, stream: io::Result<S>, peer: Peer) {
    server.refused(peer, RefusalReason::Connections);
    if let Ok(mut stream) = stream {
        let _ = stream.write(FULL);
    }
}

fn start<S>(server: &Arc<ServerState>, router: &Router, stream: S, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = serve(server.clone(), router.clone(), stream, Arc::new(connection));
    server.tasks.spawn(served);
}

async fn serve<S>(server: Arc<ServerState>, router: Router, stream: S, connection: Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = connection.peer;
    let service = {
        let (server, connection) = (server.clone(), connection.clone());
        service_fn(move |request| {
            http::answer(server.clone(), router.clone(), connection.clone(), request)
        })
    };
    let mut served = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(server.settings.handshake_timeout())
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = server.stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
        () = connection.slot.displaced() => {
            server.refused(peer, RefusalReason::GaveWay);
            return;
        }
    };
    if let Err(error) = result {
        if error.is_parse() {
            server.refused(peer, RefusalReason::Malformed);
        }
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_can_lie_at_the_end_of_any_path_and_replaces_a_stale_one() {
        let root = tempfile::tempdir().expect("tempdir");
        let deep = root.path().join("x".repeat(100)).join("y".repeat(100));
        let dir = OwnDir::make(&deep).expect("ours");
        drop(bind_unix(&dir, "server.sock").expect("bound"));
        let socket = deep.join("server.sock");
        assert!(socket.exists(), "a stale socket is left behind");
        let _listener = bind_unix(&dir, "server.sock").expect("bound again");
        let mode = std::fs::metadata(&socket)
            .expect("a socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
