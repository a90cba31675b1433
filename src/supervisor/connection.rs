//! A connection to a shim: whole messages in both directions.

use std::{io, os::fd::AsRawFd, time::Duration};

use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt},
    time::{TimeVal, TimeValLike},
};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::Instant,
};

use super::{
    budget::{ConnectionPermit, PermitTime},
    directory::{Directory, Name},
    wake::Waker,
};
use crate::spool::{FromShim, Layout, message};

/// How long a write may take before the shim counts as not answering. Messages are small and a
/// shim reads at once unless it is stopped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connect waits while the queue of the shim's socket is full.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connected shim.
#[derive(Debug)]
pub struct ShimConnection {
    stream: UnixStream,
    buffer: message::MessageBuffer,
    permit: ConnectionPermit,
    waker: Waker,
}

impl ShimConnection {
    /// Connects to a shim's socket. The path goes through a directory descriptor, because a
    /// socket's own path must not be longer than 107 bytes (unix(7)). Waits if the socket's queue
    /// is full.
    pub async fn open(
        directory: &Directory,
        shim: &str,
        permit: ConnectionPermit,
    ) -> io::Result<Self> {
        let name = directory.name(&Layout::shim_socket_name(shim))?;
        let stream = match UnixStream::connect(name.path()).await {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => queue_up(name).await?,
            connected => connected?,
        };
        // A shim is sent environments and inputs of jobs, so no other user may get them.
        let peer = stream.peer_cred()?.uid();
        if peer != nix::unistd::geteuid().as_raw() {
            let what = format!("user {peer} listens on the socket of a shim");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(Self {
            waker: Waker::of(&stream),
            stream,
            buffer: message::MessageBuffer::default(),
            permit,
        })
    }

    /// Lets the shim go on if it is stopped, for example by its own job.
    pub fn wake_if_stopped(&mut self) {
        self.waker.look(&self.stream);
    }

    /// When `wake_if_stopped` is to be called again.
    pub fn next_wake_check(&self) -> Instant {
        self.waker.next_at()
    }

    /// Tells when the connection is to be given up, so that another shim can be connected.
    pub fn permit_time(&self) -> PermitTime {
        self.permit.time()
    }

    /// Sends one message.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let bytes = message::encode(message);
        tokio::time::timeout(WRITE_TIMEOUT, self.stream.write_all(&bytes))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// The next message that this version knows; `UnexpectedEof` when the shim has closed.
    /// Cancel-safe.
    pub async fn receive(&mut self) -> io::Result<FromShim> {
        self.receive_as(|json| match serde_json::from_slice(json) {
            Ok(message) => Some(message),
            Err(error) => {
                tracing::debug!(%error, "a shim sent an unknown message");
                None
            }
        })
        .await
    }

    /// The next message for which `read` returns a value; others are skipped.
    pub async fn receive_as<T>(&mut self, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        loop {
            while let Some(json) = self.buffer.next_message().map_err(io::Error::other)? {
                if let Some(message) = read(json) {
                    return Ok(message);
                }
            }
            let mut bytes = [0; 4096];
            let n = self.stream.read(&mut bytes).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend(&bytes[..n]);
        }
    }
}

/// Connects to a socket whose queue is full. A connect that waits in the kernel gets its place in
/// the order of arrival; one that is tried again and again would find the place taken by others.
async fn queue_up(name: Name) -> io::Result<UnixStream> {
    let waited = tokio::task::spawn_blocking(move || {
        let kind = SockType::Stream;
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        // The send timeout also bounds how long a connect waits (socket(7)).
        let timeout = TimeVal::seconds(QUEUE_TIMEOUT.as_secs() as i64);
        setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(name.path())?)?;
        let stream = std::os::unix::net::UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok::<_, io::Error>(stream)
    });
    UnixStream::from_std(waited.await.map_err(io::Error::other)??)
}
