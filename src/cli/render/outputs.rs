//! Writes a job's output to our stdout and stderr, in order, in a thread of its own. The thread may
//! block for as long as the reader of a pipe does not read; the caller can still handle signals.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    thread,
};

use tokio::sync::{mpsc, oneshot};

use super::reader::OutputReaders;
use crate::{cli::connect::wire::OutputFrame, job::Stream, sys::waiting_io::WaitingIo};

/// How many frames wait for the thread; each has at most 1 MiB, most have 64 KiB.
const WAITING_MAX: usize = 16;

/// The queue of output for the writing thread.
#[derive(Debug)]
pub struct Outputs {
    sender: mpsc::Sender<OutputFrame>,
    ended: oneshot::Receiver<Result<(), Broken>>,
    readers: OutputReaders,
}

/// Why output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be written: {source}")]
pub struct Broken {
    what: &'static str,
    source: io::Error,
}

impl Broken {
    /// Whether the reader has left: a closed pipe, or a terminal that hung up (EIO).
    pub fn reader_left(&self) -> bool {
        self.source.kind() == ErrorKind::BrokenPipe || self.source.raw_os_error() == Some(libc::EIO)
    }

    /// `stdout` or `stderr`.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl Outputs {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let err = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let (result_sender, ended) = oneshot::channel();
        thread::Builder::new()
            .name("outputs".into())
            .spawn(move || {
                // An error means that the receiver was dropped: the process is about to exit.
                let _ = result_sender.send(write_all(receiver, &out, &err));
            })?;
        Ok(Self {
            sender,
            ended,
            readers: OutputReaders::of_both()?,
        })
    }

    /// Waits until the queue can take another frame. Cancel-safe. Never returns if the thread has
    /// ended: [`Self::broken`] does.
    pub fn permit(&self) -> impl Future<Output = mpsc::OwnedPermit<OutputFrame>> + use<> {
        let sender = self.sender.clone();
        async move {
            match sender.reserve_owned().await {
                Ok(permit) => permit,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Waits until a write fails, or the reader of stdout or stderr has left. Cancel-safe.
    pub async fn broken(&mut self) -> Broken {
        tokio::select! {
            biased;
            broken = ended(&mut self.ended) => broken,
            what = self.readers.left() => Broken {
                what,
                source: ErrorKind::BrokenPipe.into(),
            },
        }
    }

    /// Waits until everything is written.
    pub async fn finish(self) -> Result<(), Broken> {
        drop(self.sender);
        self.ended.await.unwrap_or(Ok(()))
    }
}

async fn ended(thread: &mut oneshot::Receiver<Result<(), Broken>>) -> Broken {
    match thread.await {
        Ok(Err(broken)) => broken,
        Ok(Ok(())) | Err(_) => std::future::pending().await,
    }
}

fn write_all(
    mut frames: mpsc::Receiver<OutputFrame>,
    out: &File,
    err: &File,
) -> Result<(), Broken> {
    while let Some(frame) = frames.blocking_recv() {
        let (file, what) = match frame.stream {
            Stream::Stderr => (err, "stderr"),
            Stream::Stdout | Stream::Pty => (out, "stdout"),
        };
        let written = WaitingIo(file).write_all(&frame.data);
        written.map_err(|source| Broken { what, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::OwnedFd};

    use super::*;

    fn frame(stream: Stream, data: &'static [u8]) -> OutputFrame {
        OutputFrame {
            subscription: 1,
            stream,
            at: chrono::DateTime::default(),
            offset: 0,
            data: data.into(),
        }
    }

    #[test]
    fn streams_are_kept_apart_and_in_order() {
        let (mut from_out, out) = io::pipe().expect("a pipe");
        let (mut from_err, err) = io::pipe().expect("a pipe");
        let (sender, receiver) = mpsc::channel(4);
        for piece in [
            frame(Stream::Stdout, b"a\0"),
            frame(Stream::Stderr, b"\xff"),
            frame(Stream::Stdout, b"b"),
        ] {
            sender.blocking_send(piece).expect("room");
        }
        drop(sender);
        let (out, err) = (
            File::from(OwnedFd::from(out)),
            File::from(OwnedFd::from(err)),
        );
        write_all(receiver, &out, &err).expect("written");
        drop((out, err));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        from_out.read_to_end(&mut first).expect("read");
        from_err.read_to_end(&mut second).expect("read");
        assert_eq!(
            (first.as_slice(), second.as_slice()),
            (&b"a\0b"[..], &b"\xff"[..])
        );
    }

    #[test]
    fn a_closed_pipe_is_told() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let (sender, receiver) = mpsc::channel(1);
        sender
            .blocking_send(frame(Stream::Stdout, b"x"))
            .expect("room");
        let out = File::from(OwnedFd::from(writer));
        let broken = write_all(receiver, &out, &out).expect_err("nobody reads");
        assert!(broken.reader_left());
        assert_eq!(broken.what(), "stdout");
    }
}
