//! One connection on the shim's control socket: whole messages in, whole messages out, never
//! blocking. `socket` decides which client may send what.

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

/// How many bytes may wait for a server that does not read; above that the connection is closed.
const OUT_BYTES_MAX: usize = 1 << 20;

/// How many bytes are read at once.
const IN_BYTES: usize = 16 << 10;

/// A client of the control socket.
#[derive(Debug)]
pub struct ControlConnection {
    stream: UnixStream,
    inbox: MessageBuffer,
    outbox: Vec<u8>,
    open: bool,
    peer: i32,
    /// The proof in its last hello that it knows the key.
    proof: Option<String>,
}

impl ControlConnection {
    /// Whether the client is a process of exactly our own user.
    pub fn is_our_user(&self) -> bool {
        getsockopt(&self.stream, PeerCredentials)
            .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
    }

    /// Takes a stream whose client belongs to our own user or to root; `None` for other users.
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

    /// The process id of the client; 0 where it is not in our PID namespace.
    pub fn peer(&self) -> i32 {
        self.peer
    }

    /// The proof that came with the last hello; empty where none did.
    pub fn proof(&self) -> &str {
        self.proof.as_deref().unwrap_or_default()
    }

    /// Reads what has arrived, with one call.
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
    /// skipped; bytes that are no message close the connection.
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

    /// Queues a message and sends as much as the socket takes now; the rest follows when the client
    /// reads.
    pub fn send(&mut self, message: &FromShim) {
        self.outbox.extend_from_slice(&message::encode(message));
        self.flush();
        if self.outbox.len() > OUT_BYTES_MAX {
            self.open = false;
        }
    }

    /// Sends the queued bytes, as far as the socket takes them.
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

    /// Whether bytes wait to be sent.
    pub fn has_waiting(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether the connection is still usable.
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
