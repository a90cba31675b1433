//! Serves the Unix socket, and checks once a second what other processes can remove from under a
//! running server: its socket, its lock file, its directory.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::UnixListener, task::JoinHandle};

use super::claim::DataDirClaim;
use crate::{
    protocol::{ServerState, listener},
    spool::Layout,
};

/// Time between two checks: the longest time without a socket after it was removed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The Unix socket, served.
pub struct ServedSocket<'a> {
    claim: &'a DataDirClaim,
    state: Arc<ServerState>,
    router: Router,
    /// The inode of the socket that is served; `None` if it could not be made again.
    socket: Option<u64>,
    accepting: JoinHandle<()>,
}

impl<'a> ServedSocket<'a> {
    /// Serves this listener, which is bound to the data directory's socket.
    pub fn serve(
        listener: UnixListener,
        claim: &'a DataDirClaim,
        state: &Arc<ServerState>,
        router: Router,
    ) -> Self {
        let accepting = listener::serve_unix(listener, state.clone(), router.clone());
        Self {
            claim,
            state: state.clone(),
            router,
            socket: inode(claim),
            accepting: state.tasks.spawn(accepting),
        }
    }

    /// Makes the socket and the lock file again when they were removed. Returns when the directory
    /// itself was removed or renamed: another one at its path is not ours.
    pub async fn maintain(mut self) {
        let mut ticks = tokio::time::interval(CHECK_EVERY);
        loop {
            ticks.tick().await;
            if !self.claim.is_in_place() {
                return;
            }
            if let Err(error) = self.claim.restore_lock_file() {
                tracing::warn!(%error, "the lock file was removed and cannot be made again");
            }
            if self.socket.is_none() || inode(self.claim) != self.socket {
                self.rebind();
            }
        }
    }

    fn rebind(&mut self) {
        let socket = self.claim.layout.socket();
        match listener::bind_unix(&self.claim.directory, Layout::SOCKET) {
            Ok(listener) => {
                tracing::warn!(socket = %socket.display(), "the socket was removed and is made again");
                // Connections go on; the old listener has no name any more.
                self.accepting.abort();
                *self = Self::serve(listener, self.claim, &self.state, self.router.clone());
            }
            Err(error) => {
                self.socket = None;
                tracing::warn!(%error, "the socket was removed and cannot be made again");
            }
        }
    }
}

fn inode(claim: &DataDirClaim) -> Option<u64> {
    let socket = fs::symlink_metadata(claim.layout.socket());
    socket.ok().map(|socket| socket.ino())
}
