//! One `poll` for everything that can happen to a shim, and what was ready afterwards.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signalfd::SignalFd,
};

use super::{attempt::Wants, log::sync::Syncer, server::socket::ControlSocket};
use crate::job::Stream;

/// What is ready after a wait.
#[derive(Debug, Default)]
pub struct Woken {
    /// A child has exited.
    pub children: bool,
    /// The sync thread has results.
    pub synced: bool,
    /// A client connects, sends, reads again or has disconnected.
    pub socket: bool,
    /// The starting child has reported a failure, or its exec has closed the pipe.
    pub report: bool,
    /// The stdin pipe accepts more bytes.
    pub stdin: bool,
    /// The last reader of the stdin pipe has closed it.
    pub stdin_unread: bool,
    /// Streams with output or at their end.
    pub streams: Vec<Stream>,
}

/// Everything that the shim waits for.
pub struct Sources<'a> {
    /// Readable at SIGCHLD.
    pub children: &'a SignalFd,
    /// Readable when there are results.
    pub syncer: &'a Syncer,
    /// The socket and its connections.
    pub socket: &'a ControlSocket,
    /// The descriptors of the attempt.
    pub wants: Wants<'a>,
}

impl Sources<'_> {
    /// Waits until something happens, up to `timeout`.
    pub fn wait(&self, timeout: PollTimeout) -> Woken {
        let mut fds = Vec::with_capacity(12);
        let slots = Slots::fill(&mut fds, self);
        match poll(&mut fds, timeout) {
            Ok(_) => slots.read(&fds),
            Err(Errno::EINTR) => Woken::default(),
            // There is no memory, or (EINVAL) the limit of descriptors was lowered below their
            // number. What has happened is unknown, so everything counts as ready: no handler
            // blocks.
            Err(_) => {
                #[expect(clippy::disallowed_methods, reason = "poll itself has failed")]
                std::thread::sleep(Duration::from_millis(10));
                slots.everything()
            }
        }
    }
}

/// The index of each source in the poll array. The descriptors of the socket are the last ones,
/// from `socket` on.
#[derive(Debug, Default)]
struct Slots {
    children: usize,
    synced: usize,
    report: Option<usize>,
    stdout: Option<usize>,
    stderr: Option<usize>,
    stdin: Option<usize>,
    socket: usize,
}

impl Slots {
    fn fill<'a>(fds: &mut Vec<PollFd<'a>>, sources: &'a Sources<'_>) -> Self {
        let wants = &sources.wants;
        let mut add = |fd: BorrowedFd<'a>, events| {
            fds.push(PollFd::new(fd, events));
            fds.len() - 1
        };
        let (read, write) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let slots = Self {
            children: add(sources.children.as_fd(), read),
            synced: add(sources.syncer.wake_fd(), read),
            report: wants.report.map(|fd| add(fd.as_fd(), read)),
            stdout: wants.stdout.map(|fd| add(fd.as_fd(), read)),
            stderr: wants.stderr.map(|fd| add(fd.as_fd(), read)),
            // Without bytes to write, only POLLERR is reported: the last reader has closed the
            // pipe.
            stdin: wants.stdin.map(|(fd, more)| {
                let events = if more { write } else { PollFlags::empty() };
                add(fd.as_fd(), events)
            }),
            socket: 0,
        };
        let socket = fds.len();
        for (fd, has_waiting) in sources.socket.waits() {
            let events = if has_waiting { read | write } else { read };
            fds.push(PollFd::new(fd, events));
        }
        Self { socket, ..slots }
    }

    /// Everything ready, except `stdin_unread`: that would close stdin.
    fn everything(&self) -> Woken {
        let streams = [(self.stdout, Stream::Stdout), (self.stderr, Stream::Stderr)];
        let waited = streams.into_iter().filter(|(at, _)| at.is_some());
        Woken {
            children: true,
            synced: true,
            socket: true,
            report: self.report.is_some(),
            stdin: self.stdin.is_some(),
            stdin_unread: false,
            streams: waited.map(|(_, stream)| stream).collect(),
        }
    }

    fn read(&self, fds: &[PollFd<'_>]) -> Woken {
        let ready = |at: usize| fds[at].any().unwrap_or(true);
        let maybe = |at: Option<usize>| at.is_some_and(ready);
        let mut streams = Vec::new();
        if maybe(self.stdout) {
            streams.push(Stream::Stdout);
        }
        if maybe(self.stderr) {
            streams.push(Stream::Stderr);
        }
        Woken {
            children: ready(self.children),
            synced: ready(self.synced),
            socket: (self.socket..fds.len()).any(ready),
            report: maybe(self.report),
            stdin: maybe(self.stdin),
            stdin_unread: self.stdin.is_some_and(|at| {
                let events = fds[at].revents();
                events.is_some_and(|events| events.contains(PollFlags::POLLERR))
            }),
            streams,
        }
    }
}
