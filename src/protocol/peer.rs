//! The other end of a connection, and its slot among all connections.

use std::{fmt, net::SocketAddr};

use super::limits::connection_slots::ConnectionSlot;
use crate::access::ClientOrigin;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine.
    Unix {
        /// Its effective user id when it connected.
        uid: u32,
        /// Its process id when it connected; `None` where the kernel does not tell it.
        pid: Option<i32>,
        /// Whether that user needs no token: the server's own user, or root.
        ours: bool,
    },
    /// A client on the network, or on this machine over TCP.
    Tcp(SocketAddr),
}

impl Peer {
    /// Whether it needs no token.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Unix { ours: true, .. })
    }

    /// A client of this name at this end, as the audit trail has it.
    pub fn origin(self, door: &'static str, name: &str) -> ClientOrigin {
        let mut origin = ClientOrigin::within(door, name);
        match self {
            Self::Unix { uid, pid, .. } => (origin.uid, origin.pid) = (Some(uid), pid),
            Self::Tcp(address) => origin.peer = Some(address.ip().to_canonical().to_string()),
        }
        origin
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, .. } => write!(f, "unix uid {uid}"),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// A connection: its peer, and its slot, which a WebSocket session keeps.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub peer: Peer,
    /// Can be displaced until the connection is authenticated.
    pub slot: ConnectionSlot,
}
