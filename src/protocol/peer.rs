//! The other end of a connection, and its slot among all connections.

use std::{fmt, net::SocketAddr};

use super::limits::connection_slots::ConnectionSlot;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine.
    Unix {
        /// Its user.
        uid: u32,
        /// Whether that user may do everything here.
        ours: bool,
    },
    /// Somebody on the network.
    Tcp(SocketAddr),
}

impl Peer {
    /// Whether it needs no token.
    pub fn is_trusted(self) -> bool {
        matches!(self, Self::Unix { ours: true, .. })
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

/// One connection: who, and its place among all of them, which a WebSocket session keeps.
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: Peer,
    /// Given to another one as long as it has not said who it is.
    pub place: ConnectionSlot,
}
