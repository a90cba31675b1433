//! The shim's side of its control socket: `socket` accepts and authenticates clients, `connection`
//! is one of them.

pub(super) mod connection;
pub(super) mod socket;
