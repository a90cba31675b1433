//! The bytes that come from a client and go to it, counted: who has not shown the token may not make
//! us hold or answer more than a little, and everybody's part in what all make us hold is known.
//!
//! When a stranger stops being one, and when a message is whole, is the session's business.

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

/// A connection whose reads fail with `QuotaExceeded` once a stranger has sent too much.
#[derive(Debug)]
pub struct CountingIo<T> {
    io: T,
    known: Arc<AtomicBool>,
    /// Bytes that a stranger may still send.
    left: u64,
    /// What comes is held, and not thrown away.
    keeps: bool,
    share: Arc<SessionUsage>,
}

impl<T> CountingIo<T> {
    /// A stranger until `known` is set; what arrives is part of `share`.
    pub fn new(
        io: T,
        known: Arc<AtomicBool>,
        stranger_bytes_max: u64,
        share: Arc<SessionUsage>,
    ) -> Self {
        Self {
            io,
            known,
            left: stranger_bytes_max,
            keeps: true,
            share,
        }
    }

    /// Nothing of what comes is kept any more, so it may be as much as there is.
    pub fn let_through(&mut self) {
        (self.left, self.keeps) = (u64::MAX, false);
        self.share.arrived();
    }
}

impl<T> Drop for CountingIo<T> {
    fn drop(&mut self) {
        self.share.arrived();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CountingIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_known = self.known.load(Ordering::SeqCst);
        if self.left == 0 && !is_known {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        let got = buffer.filled().len().saturating_sub(before);
        if !is_known {
            self.left = self.left.saturating_sub(got as u64);
        }
        if got > 0 && self.keeps {
            self.share.arrive(got);
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
            self.share.take(taken);
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

    /// Its last words do not reach a client whose bytes are left unread.
    #[tokio::test]
    async fn what_is_thrown_away_has_no_bound_and_does_not_count() {
        let share = MemoryBudget::new(1000).share();
        let known = Arc::new(AtomicBool::new(false));
        let bytes = vec![0; 1 << 20];
        let mut stranger = CountingIo::new(&bytes[..], known, 100, share.clone());
        let mut all = Vec::new();
        assert!(stranger.read_to_end(&mut all).await.is_err());
        stranger.let_through();
        stranger.read_to_end(&mut all).await.expect("the rest");
        assert_eq!(all.len(), 1 << 20);
        assert!(!share.is_evicted());
    }

    #[tokio::test]
    async fn a_stranger_may_send_a_little_and_a_friend_everything() {
        let known = Arc::new(AtomicBool::new(false));
        let bytes = vec![0; 100_000];
        let share = MemoryBudget::new(1 << 20).share();
        let mut stranger = CountingIo::new(&bytes[..], known.clone(), 50_000, share);
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
