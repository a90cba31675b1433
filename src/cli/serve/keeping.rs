//! Looks after what others can take away from a running server: its socket, its lock file, the name
//! of its directory.
//!
//! What a connection says is `protocol`'s business.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use tokio::{net::UnixListener, task::JoinHandle};

use super::place::DataDirClaim;
use crate::{
    protocol::{ServerState, listener},
    spool::Layout,
};

/// Between two looks: so long nobody can connect after the socket was removed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The Unix socket, served.
pub struct ServedSocket<'a> {
    place: &'a DataDirClaim,
    door: Arc<ServerState>,
    /// The inode of the socket that is served.
    socket: Option<u64>,
    accepting: JoinHandle<()>,
}

impl<'a> ServedSocket<'a> {
    /// Serves this listener, which is bound to the place's socket.
    pub fn serve(listener: UnixListener, place: &'a DataDirClaim, door: &Arc<ServerState>) -> Self {
        let accepting = listener::serve_unix(listener, door.clone());
        Self {
            place,
            door: door.clone(),
            socket: inode(place),
            accepting: door.tasks.spawn(accepting),
        }
    }

    /// Makes again what was removed. Returns when the directory itself is gone from its place: what
    /// stands there now is another one, and not ours.
    pub async fn look_after(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            if !self.place.is_there() {
                return;
            }
            if let Err(error) = self.place.keep_lock() {
                tracing::warn!(%error, "the lock file was removed and cannot be made again");
            }
            if self.socket.is_none() || inode(self.place) != self.socket {
                self.bind_again();
            }
        }
    }

    fn bind_again(&mut self) {
        let socket = self.place.layout.socket();
        match listener::bind_unix(&self.place.directory, Layout::SOCKET) {
            Ok(listener) => {
                tracing::warn!(socket = %socket.display(), "the socket was removed and is made again");
                // Its connections go on; nobody can reach it any more.
                self.accepting.abort();
                *self = Self::serve(listener, self.place, &self.door);
            }
            Err(error) => {
                self.socket = None;
                tracing::warn!(%error, "the socket was removed and cannot be made again");
            }
        }
    }
}

fn inode(place: &DataDirClaim) -> Option<u64> {
    let socket = fs::symlink_metadata(place.layout.socket());
    socket.ok().map(|socket| socket.ino())
}
