//! Our ends of a process's stdout and stderr. What becomes of the bytes is not known here.

use std::os::fd::OwnedFd;

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    unistd,
};

use rustix::io::ioctl_fionread;

use crate::job::Stream;

/// Size of a pipe that has been found full: a fast process then waits less often.
const PIPE_BYTES: i32 = 1 << 20;

/// Size of a pipe as the kernel makes it.
const PIPE_BYTES_DEFAULT: usize = 64 << 10;

/// What a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipeRead {
    /// That many bytes.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The stream has ended, or never was.
    Ended,
}

#[derive(Debug)]
struct PipeEnd {
    fd: OwnedFd,
    grown: bool,
    /// How many bytes belong to the attempt, once that is known.
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

    /// Only where it was full: pipe pages are counted per user, and most jobs say little.
    fn grow(&mut self, read: usize) {
        if read >= PIPE_BYTES_DEFAULT && !self.grown {
            self.grown = true;
            // EPERM beyond the user's bound: then it stays as it is.
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

    /// What is in the pipes now is the last that is read, whoever goes on writing.
    pub fn mark_end(&mut self) {
        for source in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            let inside = ioctl_fionread(&source.fd).unwrap_or(u64::MAX);
            source.left = Some(usize::try_from(inside).unwrap_or(usize::MAX));
        }
    }

    /// Whether what was in a pipe at its end has not all been read.
    pub fn holds(&self, stream: Stream) -> bool {
        let source = match stream {
            Stream::Stdout => &self.stdout,
            _ => &self.stderr,
        };
        source.as_ref().is_some_and(|source| source.left != Some(0))
    }

    /// There is nothing more in a pipe, whatever was told.
    pub fn mark_drained(&mut self, stream: Stream) {
        let source = match stream {
            Stream::Stdout => &mut self.stdout,
            _ => &mut self.stderr,
        };
        if let Some(source) = source {
            source.left = Some(0);
        }
    }

    /// Reading goes on behind the end that was marked.
    pub fn forget_end(&mut self) {
        for source in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            source.left = None;
        }
    }
}
