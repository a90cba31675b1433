//! The bytes for a process's stdin: the job's own bytes, then its inputs, until an end or until the
//! last reader has closed the pipe. An input is taken whole or not at all, and never twice.
//!
//! It never waits: the event loop polls the pipe and calls [`Feed::flush`].

use std::{collections::VecDeque, os::fd::OwnedFd};

use nix::{errno::Errno, unistd};

use crate::{
    job::{Input, InputAnswer},
    spool::RunSpec,
};

/// How many bytes of capacity an empty buffer keeps for the next input.
const KEPT_BYTES: usize = 64 << 10;

/// Where the bytes go.
#[derive(Debug)]
enum Destination {
    /// There is no process yet.
    NotYet,
    /// Our end of the pipe; it does not block.
    Pipe(OwnedFd),
    /// Nothing is written any more.
    Closed,
}

/// The bytes that wait for one process, and where they go.
#[derive(Debug)]
pub struct Feed {
    destination: Destination,
    waiting: VecDeque<u8>,
    /// How many of the waiting bytes, at the front, are the job's own stdin; [`Input::BYTES_MAX`]
    /// does not count those.
    own: usize,
    /// Whether further inputs are accepted.
    open: bool,
    /// The newest `write_id`s, each with the number of bytes accepted under it.
    accepted: VecDeque<(String, u64)>,
}

impl Feed {
    /// The feed of an attempt; takes the stdin and the inputs out of `spec`.
    pub fn of(spec: &mut RunSpec) -> Self {
        let stdin = spec.stdin.take();
        let destination = match stdin.is_some() || spec.interactive {
            true => Destination::NotYet,
            false => Destination::Closed,
        };
        let waiting = VecDeque::from(stdin.unwrap_or_default().into_bytes());
        let mut feed = Self {
            destination,
            own: waiting.len(),
            waiting,
            open: spec.interactive,
            accepted: VecDeque::new(),
        };
        for input in std::mem::take(&mut spec.inputs) {
            feed.add(input);
        }
        feed
    }

    /// Whether the process needs a pipe as its stdin.
    pub fn wants_pipe(&self) -> bool {
        matches!(self.destination, Destination::NotYet)
    }

    /// Gives it the pipe: `ours` is the writing end and does not block.
    pub fn attach(&mut self, ours: OwnedFd) {
        self.destination = Destination::Pipe(ours);
        self.flush();
    }

    /// Takes an input, or returns why not. A repeated one gets the same answer as the first time.
    pub fn take(&mut self, input: Input) -> InputAnswer {
        if let Some(bytes) = self.accepted_before(&input) {
            return InputAnswer::Accepted { bytes };
        }
        self.flush();
        if !self.open || matches!(self.destination, Destination::Closed) {
            return InputAnswer::Closed;
        }
        let waiting = self.waiting.len() - self.own;
        if waiting + input.data.len() > Input::BYTES_MAX {
            let waiting_bytes = waiting as u64;
            return InputAnswer::Full { waiting_bytes };
        }
        let bytes = input.data.len() as u64;
        let write_id = input.write_id.clone();
        let before = self.waiting.len();
        self.add(input);
        match self.write_out() {
            // The process has some of it: that is no refusal, whatever happens to the rest.
            Err(written) if written <= before => {
                self.accepted
                    .retain(|(id, _)| Some(id) != write_id.as_ref());
                InputAnswer::Closed
            }
            _ => InputAnswer::Accepted { bytes },
        }
    }

    /// Whether this input was taken before.
    pub fn has_taken(&self, input: &Input) -> bool {
        self.accepted_before(input).is_some()
    }

    fn accepted_before(&self, input: &Input) -> Option<u64> {
        let wanted = input.write_id.as_ref()?;
        let mut accepted = self.accepted.iter();
        accepted
            .find(|(id, _)| id == wanted)
            .map(|(_, bytes)| *bytes)
    }

    fn add(&mut self, input: Input) {
        if let Some(id) = input.write_id {
            if self.accepted.len() == Input::REMEMBERED_MAX {
                self.accepted.pop_front();
            }
            self.accepted.push_back((id, input.data.len() as u64));
        }
        self.waiting.extend(input.data);
        self.open &= !input.eof;
    }

    /// Writes what fits, and closes the pipe after the last byte or when its last reader is gone.
    pub fn flush(&mut self) {
        let _ = self.write_out();
    }

    /// The same; the error is the number of bytes written before the last reader was gone.
    fn write_out(&mut self) -> Result<(), usize> {
        let Destination::Pipe(fd) = &self.destination else {
            return Ok(());
        };
        let mut written = 0;
        while !self.waiting.is_empty() {
            match unistd::write(fd, self.waiting.as_slices().0) {
                Ok(n) => {
                    self.waiting.drain(..n);
                    self.own = self.own.saturating_sub(n);
                    written += n;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(_) => {
                    self.close();
                    return Err(written);
                }
            }
        }
        self.waiting.shrink_to(KEPT_BYTES);
        if !self.open {
            self.close();
        }
        Ok(())
    }

    /// The pipe, while the process may read from it, and whether bytes wait to be written.
    pub fn sink(&self) -> Option<(&OwnedFd, bool)> {
        match &self.destination {
            Destination::Pipe(fd) => Some((fd, !self.waiting.is_empty())),
            Destination::NotYet | Destination::Closed => None,
        }
    }

    /// Closes the pipe and discards the waiting bytes; accepted `write_id`s stay known.
    pub fn close(&mut self) {
        self.destination = Destination::Closed;
        self.waiting = VecDeque::new();
        self.own = 0;
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
