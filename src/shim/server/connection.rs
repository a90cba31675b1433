//! One connection on the shim's socket: whole messages in, whole messages out, never waiting for
//! the other side. Who is allowed to say what is the door's business.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::spool::{
    FromShim, Greeting, ToShim,
    message::{self, MessageBuffer},
};

/// What may wait for a server that does not read, bytes; beyond it the connection is closed.
const OUT_BYTES_MAX: usize = 1 << 20;

/// How much is read at once, bytes.
const IN_BYTES: usize = 16 << 10;

/// A connection.
#[derive(Debug)]
pub struct ControlConnection {
    stream: UnixStream,
    inbox: MessageBuffer,
    outbox: Vec<u8>,
    open: bool,
    peer: i32,
    /// What its last hello came with to prove that it knows the key.
    proof: Option<String>,
}

impl ControlConnection {
    /// Whether the other end is a process of exactly our own user.
    pub fn is_our_user(&self) -> bool {
        getsockopt(&self.stream, PeerCredentials)
            .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
    }

    /// Takes a stream whose other end belongs to our own user or to root; `None` for others.
    pub fn accept(stream: UnixStream) -> io::Result<Option<Self>> {
        let peer = getsockopt(&stream, PeerCredentials)?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return Ok(None);
        }
        stream.set_nonblocking(true)?;
        Ok(Some(Self {
            stream,
            inbox: MessageBuffer::default(),
            outbox: Vec::new(),
            open: true,
            peer: peer.pid(),
            proof: None,
        }))
    }

    /// The process that has connected; 0 where it is not of our PID namespace.
    pub fn peer(&self) -> i32 {
        self.peer
    }

    /// What the last hello came with to prove itself.
    pub fn proof(&self) -> &str {
        self.proof.as_deref().unwrap_or_default()
    }

    /// Reads what has arrived, once.
    pub fn receive(&mut self) {
        let mut bytes = [0; IN_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.open = false,
            Ok(n) => self.inbox.extend(&bytes[..n]),
            Err(e) if is_later(&e) => {}
            Err(_) => self.open = false,
        }
    }

    /// The next whole message that has been read. Messages that this version does not know are
    /// skipped; what is no message at all closes the connection.
    pub fn next_message(&mut self) -> Option<ToShim> {
        loop {
            match self.inbox.next_message() {
                Ok(Some(json)) => {
                    if let Ok(message) = serde_json::from_slice(json) {
                        if matches!(message, ToShim::Hello { .. }) {
                            self.proof = Greeting::proof_of(json);
                        }
                        return Some(message);
                    }
                }
                Ok(None) => return None,
                Err(_) => {
                    self.open = false;
                    return None;
                }
            }
        }
    }

    /// Sends a message, now or as soon as the other side reads.
    pub fn send(&mut self, message: &FromShim) {
        self.outbox.extend_from_slice(&message::encode(message));
        self.flush();
        if self.outbox.len() > OUT_BYTES_MAX {
            self.open = false;
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(n) => drop(self.outbox.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_later(&e) => return,
                Err(_) => {
                    self.open = false;
                    return;
                }
            }
        }
    }

    /// Whether something waits to be sent.
    pub fn has_waiting(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether both sides still talk.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

impl AsFd for ControlConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
