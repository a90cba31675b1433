//! Our ends of a process's descriptors: what may be read, what is still to be fed to stdin. What
//! becomes of the bytes is not known here.

use std::os::fd::OwnedFd;

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    unistd,
};

use crate::job::Stream;

/// Size of a pipe that has been found full: a fast process then waits less often.
const PIPE_BYTES: i32 = 1 << 20;

/// Size of a pipe as the kernel makes it.
const PIPE_BYTES_DEFAULT: usize = 64 << 10;

/// What a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// That many bytes.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The stream has ended, or never was.
    Ended,
}

#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    grown: bool,
}

impl Source {
    fn read(&mut self, into: &mut [u8]) -> Read {
        let read = loop {
            match unistd::read(&self.fd, into) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        match read {
            Ok(0) => Read::Ended,
            Ok(n) => {
                self.grow(n);
                Read::Bytes(n)
            }
            Err(Errno::EAGAIN) => Read::Nothing,
            Err(_) => Read::Ended,
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

/// What is still to be written to a process's stdin.
#[derive(Debug)]
pub struct Feed {
    fd: OwnedFd,
    bytes: Vec<u8>,
    fed: usize,
}

impl Feed {
    /// Feeds `bytes` into `fd`, which does not block.
    pub fn new(fd: OwnedFd, bytes: Vec<u8>) -> Self {
        Self { fd, bytes, fed: 0 }
    }

    /// Writes what fits; `false` when it is done: all written, or nobody reads any more.
    fn go_on(&mut self) -> bool {
        while self.fed < self.bytes.len() {
            match unistd::write(&self.fd, &self.bytes[self.fed..]) {
                Ok(n) => self.fed += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// The pipes of one process.
#[derive(Debug, Default)]
pub struct Pipes {
    stdout: Option<Source>,
    stderr: Option<Source>,
    stdin: Option<Feed>,
}

impl Pipes {
    /// The reading ends of stdout and stderr, and what stdin is fed with.
    pub fn new(stdout: OwnedFd, stderr: OwnedFd, stdin: Option<Feed>) -> Self {
        let source = |fd| Some(Source { fd, grown: false });
        let mut pipes = Self {
            stdout: source(stdout),
            stderr: source(stderr),
            stdin,
        };
        pipes.feed();
        pipes
    }

    /// The descriptor of a stream that has not ended.
    pub fn source(&self, stream: Stream) -> Option<&OwnedFd> {
        let source = match stream {
            Stream::Stdout => &self.stdout,
            _ => &self.stderr,
        };
        source.as_ref().map(|source| &source.fd)
    }

    /// The descriptor of stdin while there is more to feed.
    pub fn sink(&self) -> Option<&OwnedFd> {
        self.stdin.as_ref().map(|feed| &feed.fd)
    }

    /// Reads once; a stream that has ended is closed.
    pub fn read(&mut self, stream: Stream, into: &mut [u8]) -> Read {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            _ => &mut self.stderr,
        };
        let read = slot
            .as_mut()
            .map_or(Read::Ended, |source| source.read(into));
        if read == Read::Ended {
            *slot = None;
        }
        read
    }

    /// Feeds stdin with what fits, and closes it behind the last byte.
    pub fn feed(&mut self) {
        if self.stdin.as_mut().is_some_and(|feed| !feed.go_on()) {
            self.stdin = None;
        }
    }

    /// Nothing more is fed.
    pub fn stop_feeding(&mut self) {
        self.stdin = None;
    }
}
