//! The shim's own server: the socket that it listens on, and a connection of the executor to it.

pub(super) mod connection;
pub(super) mod socket;
