//! Reads and writes descriptors that another process may have made non-blocking. O_NONBLOCK belongs to
//! the open file (open(2)), and processes share it: a terminal, or a pipe that several write to.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Reads and writes without a buffer, and waits where the descriptor would not.
#[derive(Debug)]
pub struct WaitingIo<F>(pub F);

impl<F: AsFd> Read for WaitingIo<F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(self.0.as_fd(), &mut *bytes) {
                Err(rustix::io::Errno::WOULDBLOCK) => wait(self.0.as_fd(), PollFlags::POLLIN)?,
                read => return Ok(read?),
            }
        }
    }
}

impl<F: AsFd> Write for WaitingIo<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(self.0.as_fd(), bytes) {
                Err(rustix::io::Errno::WOULDBLOCK) => wait(self.0.as_fd(), PollFlags::POLLOUT)?,
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the descriptor is ready, or an error or a hang-up will be told by the next call.
fn wait(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, what)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    #[test]
    fn all_bytes_pass_through_a_pipe_that_would_not_wait() {
        let (reader, writer) = io::pipe().expect("a pipe");
        for end in [reader.as_fd(), writer.as_fd()] {
            fcntl_setfl(end, OFlags::NONBLOCK).expect("set");
        }
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let sent = bytes.clone();
        let writing = thread::spawn(move || WaitingIo(writer).write_all(&sent));
        let mut got = Vec::new();
        WaitingIo(reader).read_to_end(&mut got).expect("read");
        writing.join().expect("no panic").expect("written");
        assert!(got == bytes, "{} bytes", got.len());
    }

    #[test]
    fn a_reader_that_left_is_an_error() {
        let (reader, writer) = io::pipe().expect("a pipe");
        fcntl_setfl(&writer, OFlags::NONBLOCK).expect("set");
        drop(reader);
        let error = WaitingIo(writer).write_all(b"x").expect_err("no reader");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
