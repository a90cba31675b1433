//! Notices when the reader of our output has left, even while there is nothing to write: otherwise
//! `tail` of a silent job would stay for ever.

use std::{
    io::{self, IsTerminal},
    os::fd::{AsFd, OwnedFd},
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::oneshot;

/// Watches the other ends of stdout and stderr.
#[derive(Debug)]
pub struct OutputReaders {
    left: oneshot::Receiver<&'static str>,
}

impl OutputReaders {
    /// Watches the reader of stdout.
    pub fn of_stdout() -> io::Result<Self> {
        Self::of(&[("stdout", stdout()?)])
    }

    /// Watches the readers of stdout and stderr.
    pub fn of_both() -> io::Result<Self> {
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let stderr = stderr.map(|fd| (!io::stderr().is_terminal()).then_some(fd));
        Self::of(&[("stdout", stdout()?), ("stderr", stderr?)])
    }

    fn of(outputs: &[(&'static str, Option<OwnedFd>)]) -> io::Result<Self> {
        let mut watched = Vec::new();
        for (name, fd) in outputs {
            if let Some(fd) = fd {
                watched.push((*name, fd.try_clone()?));
            }
        }
        let (sender, left) = oneshot::channel();
        if !watched.is_empty() {
            // A thread, because epoll refuses regular files, and the runtime would make descriptors
            // non-blocking that other processes share. It ends with the process.
            thread::Builder::new()
                .name("readers".into())
                .spawn(move || {
                    if let Some(name) = first_left(&watched) {
                        // An error means that the receiver was dropped: the process is about to
                        // exit.
                        let _ = sender.send(name);
                    }
                })?;
        }
        Ok(Self { left })
    }

    /// Waits until a reader has left; `stdout` or `stderr`. Cancel-safe.
    pub async fn left(&mut self) -> &'static str {
        match (&mut self.left).await {
            Ok(name) => name,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Our stdout; `None` if it is a terminal: one that hangs up sends SIGHUP.
fn stdout() -> io::Result<Option<OwnedFd>> {
    let fd = io::stdout().as_fd().try_clone_to_owned()?;
    Ok((!io::stdout().is_terminal()).then_some(fd))
}

/// Waits for POLLERR (a pipe without a reader) or POLLHUP (a socket whose peer is closed), which
/// poll(2) reports without a request.
fn first_left(watched: &[(&'static str, OwnedFd)]) -> Option<&'static str> {
    let mut fds: Vec<_> = watched
        .iter()
        .map(|(_, fd)| PollFd::new(fd.as_fd(), PollFlags::empty()))
        .collect();
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    let is_gone = |fd: &PollFd<'_>| {
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
        fd.revents().is_some_and(|events| events.intersects(gone))
    };
    let at = fds.iter().position(is_gone)?;
    watched.get(at).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::net::UnixStream};

    use super::*;

    #[tokio::test]
    async fn a_reader_that_leaves_is_told_and_one_that_stays_is_not() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let (peer, socket) = UnixStream::pair().expect("sockets");
        let outputs = [
            ("pipe", Some(OwnedFd::from(pipe))),
            ("socket", Some(socket.into())),
            (
                "file",
                Some(File::open("/dev/null").expect("a file").into()),
            ),
            ("terminal", None),
        ];
        let mut readers = OutputReaders::of(&outputs).expect("watched");
        drop(peer);
        assert_eq!(readers.left().await, "socket");
        let mut readers = OutputReaders::of(&outputs[..1]).expect("watched");
        assert!(readers.left.try_recv().is_err(), "somebody reads");
        drop(reader);
        assert_eq!(readers.left().await, "pipe");
    }
}
