//! What comes in from a client, counted as long as it is a stranger: who has not shown the token
//! may not make us hold or answer more than a little.
//!
//! When a stranger stops being one is the session's business.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose reads fail with `QuotaExceeded` once a stranger has sent too much.
#[derive(Debug)]
pub struct Intake<T> {
    io: T,
    known: Arc<AtomicBool>,
    /// Bytes that a stranger may still send.
    left: u64,
}

impl<T> Intake<T> {
    /// Counts until `known` is set.
    pub fn new(io: T, known: Arc<AtomicBool>, stranger_bytes_max: u64) -> Self {
        Self {
            io,
            known,
            left: stranger_bytes_max,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Intake<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.known.load(Ordering::SeqCst) {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        let got = buffer.filled().len().saturating_sub(before) as u64;
        self.left = self.left.saturating_sub(got);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Intake<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_stranger_may_send_a_little_and_a_friend_everything() {
        let known = Arc::new(AtomicBool::new(false));
        let bytes = vec![0; 100_000];
        let mut stranger = Intake::new(&bytes[..], known.clone(), 50_000);
        let mut buffer = [0; 1000];
        let mut read = 0;
        let refused = loop {
            match stranger.read(&mut buffer).await {
                Ok(got) => read += got,
                Err(error) => break error,
            }
        };
        assert_eq!(
            (read, refused.kind()),
            (50_000, io::ErrorKind::QuotaExceeded)
        );
        known.store(true, Ordering::SeqCst);
        let mut rest = Vec::new();
        stranger.read_to_end(&mut rest).await.expect("a friend");
        assert_eq!(rest.len(), 50_000);
    }
}
