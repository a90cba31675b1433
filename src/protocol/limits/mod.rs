//! What clients may take of the server: connections, sessions, memory, requests a second. Each limit is
//! a thing of its own; nothing here knows a method.

pub(super) mod buffered;
pub(super) mod byte_gate;
pub mod connection_slots;
pub(super) mod counted_io;
pub(super) mod memory_budget;
pub(super) mod offload;
pub(super) mod rate_limit;
pub(super) mod session_slots;

/// Longest head of a request, bytes.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
