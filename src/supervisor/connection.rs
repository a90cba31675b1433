//! A connection to a shim: whole messages in both directions.

use std::{io, os::fd::AsRawFd, path::Path, time::Duration};

use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::spool::{FromShim, Layout, message};

/// How long a write may take before the shim counts as not answering. Messages are small and a
/// shim reads at once unless it is stopped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected shim.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    buffer: message::MessageBuffer,
}

impl Connection {
    /// Connects to a shim's socket. The path goes through a directory descriptor, because a
    /// socket's own path must not be longer than 107 bytes (unix(7)).
    pub async fn open(layout: &Layout, shim: &str) -> io::Result<Self> {
        let dir = std::fs::File::open(layout.shims())?;
        let path = Path::new("/proc/self/fd")
            .join(dir.as_raw_fd().to_string())
            .join(Layout::shim_socket_name(shim));
        Ok(Self {
            stream: UnixStream::connect(path).await?,
            buffer: message::MessageBuffer::default(),
        })
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
                tracing::debug!(%error, "a shim said something unknown");
                None
            }
        })
        .await
    }

    /// The next message's JSON that `read` can make something of.
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
