//! The shim's ends of the pipes of stdout and stderr. `attempt::flow` stores the bytes.

use std::os::fd::OwnedFd;

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    unistd,
};

use rustix::io::ioctl_fionread;

use crate::job::Stream;

/// Size to which a pipe is enlarged once it was full, bytes: a fast process then waits less often.
const PIPE_BYTES: i32 = 1 << 20;

/// Size of a pipe as the kernel creates it, bytes.
const PIPE_BYTES_DEFAULT: usize = 64 << 10;

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeRead {
    /// This many bytes.
    Bytes(usize),
    /// No bytes at the moment, or the marked end is reached.
    Nothing,
    /// The stream has ended, or was never open.
    Ended,
}

#[derive(Debug)]
struct PipeEnd {
    fd: OwnedFd,
    grown: bool,
    /// How many bytes still belong to the attempt, once its end is marked.
    left: Option<usize>,
}

impl PipeEnd {
    fn read(&mut self, into: &mut [u8]) -> PipeRead {
        let length = self.left.map_or(into.len(), |left| left.min(into.len()));
        if length == 0 {
            return PipeRead::Nothing;
        }
        let into = &mut into[..length];
        let read = loop {
            match unistd::read(&self.fd, into) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        match read {
            Ok(0) => PipeRead::Ended,
            Ok(n) => {
                self.grow(n);
                self.left = self.left.map(|left| left.saturating_sub(n));
                PipeRead::Bytes(n)
            }
            Err(Errno::EAGAIN) => PipeRead::Nothing,
            Err(_) => PipeRead::Ended,
        }
    }

    /// Enlarges the pipe, only if it was full: the kernel counts pipe pages per user, and most jobs
    /// write little.
    fn grow(&mut self, read: usize) {
        if read >= PIPE_BYTES_DEFAULT && !self.grown {
            self.grown = true;
            // EPERM above the user's limit: then the size stays.
            let _ = fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        }
    }
}

/// The pipes of one process.
#[derive(Debug, Default)]
pub struct Pipes {
    stdout: Option<PipeEnd>,
    stderr: Option<PipeEnd>,
}

impl Pipes {
    /// The reading ends of stdout and stderr.
    pub fn new(stdout: OwnedFd, stderr: OwnedFd) -> Self {
        let source = |fd| {
            Some(PipeEnd {
                fd,
                grown: false,
                left: None,
            })
        };
        Self {
            stdout: source(stdout),
            stderr: source(stderr),
        }
    }

    /// The descriptor of a stream that has not ended.
    pub fn source(&self, stream: Stream) -> Option<&OwnedFd> {
        let source = match stream {
            Stream::Stdout => &self.stdout,
            _ => &self.stderr,
        };
        source.as_ref().map(|source| &source.fd)
    }

    /// Reads once; a stream that has ended is closed.
    pub fn read(&mut self, stream: Stream, into: &mut [u8]) -> PipeRead {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            _ => &mut self.stderr,
        };
        let read = slot
            .as_mut()
            .map_or(PipeRead::Ended, |source| source.read(into));
        if read == PipeRead::Ended {
            *slot = None;
        }
        read
    }

    /// Marks what is in the pipes now as the last bytes of the attempt, even if processes still
    /// write.
    pub fn mark_end(&mut self) {
        for source in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            let inside = ioctl_fionread(&source.fd).unwrap_or(u64::MAX);
            source.left = Some(usize::try_from(inside).unwrap_or(usize::MAX));
        }
    }

    /// Whether bytes before the marked end have not been read.
    pub fn has_unread(&self, stream: Stream) -> bool {
        let source = match stream {
            Stream::Stdout => &self.stdout,
            _ => &self.stderr,
        };
        source.as_ref().is_some_and(|source| source.left != Some(0))
    }

    /// No more bytes come before the marked end, whatever FIONREAD returned.
    pub fn mark_drained(&mut self, stream: Stream) {
        let source = match stream {
            Stream::Stdout => &mut self.stdout,
            _ => &mut self.stderr,
        };
        if let Some(source) = source {
            source.left = Some(0);
        }
    }

    /// Removes the mark: reading continues after it.
    pub fn forget_end(&mut self) {
        for source in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            source.left = None;
        }
    }
}
