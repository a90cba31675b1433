//! Counts the bytes that come from a client and go to it: a client that has not shown the token may send
//! only a little, and what arrives counts in the session's usage.

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

use super::memory_budget::SessionUsage;

/// A connection whose reads fail with `QuotaExceeded` after an unauthenticated client has sent too much.
#[derive(Debug)]
pub struct CountingIo<T> {
    io: T,
    authenticated: Arc<AtomicBool>,
    /// Bytes that the client may still send before it has authenticated.
    unauthenticated_left: u64,
    /// Whether what arrives is held, and so counted.
    counts_held: bool,
    usage: Arc<SessionUsage>,
}

impl<T> CountingIo<T> {
    /// Unauthenticated until `authenticated` is set; what arrives counts in `usage`.
    pub fn new(
        io: T,
        authenticated: Arc<AtomicBool>,
        unauthenticated_bytes_max: u64,
        usage: Arc<SessionUsage>,
    ) -> Self {
        Self {
            io,
            authenticated,
            unauthenticated_left: unauthenticated_bytes_max,
            counts_held: true,
            usage,
        }
    }

    /// From here on the caller discards what arrives, so nothing is counted and there is no bound.
    pub fn stop_counting(&mut self) {
        (self.unauthenticated_left, self.counts_held) = (u64::MAX, false);
        self.usage.message_complete();
    }
}

impl<T> Drop for CountingIo<T> {
    fn drop(&mut self) {
        self.usage.message_complete();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CountingIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_authenticated = self.authenticated.load(Ordering::SeqCst);
        if self.unauthenticated_left == 0 && !is_authenticated {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        let got = buffer.filled().len().saturating_sub(before);
        if !is_authenticated {
            self.unauthenticated_left = self.unauthenticated_left.saturating_sub(got as u64);
        }
        if got > 0 && self.counts_held {
            self.usage.received(got);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CountingIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        if let Poll::Ready(Ok(taken)) = polled {
            self.usage.written(taken);
        }
        polled
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
    use crate::protocol::limits::memory_budget::MemoryBudget;

    /// The close message does not reach a client if its bytes are left unread.
    #[tokio::test]
    async fn what_is_thrown_away_has_no_bound_and_does_not_count() {
        let usage = MemoryBudget::new(1000).session_usage();
        let authenticated = Arc::new(AtomicBool::new(false));
        let bytes = vec![0; 1 << 20];
        let mut client = CountingIo::new(&bytes[..], authenticated, 100, usage.clone());
        let mut all = Vec::new();
        assert!(client.read_to_end(&mut all).await.is_err());
        client.stop_counting();
        client.read_to_end(&mut all).await.expect("the rest");
        assert_eq!(all.len(), 1 << 20);
        assert!(!usage.is_evicted());
    }

    #[tokio::test]
    async fn a_client_without_the_token_may_send_a_little_and_one_with_it_everything() {
        let authenticated = Arc::new(AtomicBool::new(false));
        let bytes = vec![0; 100_000];
        let usage = MemoryBudget::new(1 << 20).session_usage();
        let mut client = CountingIo::new(&bytes[..], authenticated.clone(), 50_000, usage);
        let mut buffer = [0; 1000];
        let mut read = 0;
        let refused = loop {
            match client.read(&mut buffer).await {
                Ok(got) => read += got,
                Err(error) => break error,
            }
        };
        assert_eq!(
            (read, refused.kind()),
            (50_000, io::ErrorKind::QuotaExceeded)
        );
        authenticated.store(true, Ordering::SeqCst);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("authenticated");
        assert_eq!(rest.len(), 50_000);
    }
}
