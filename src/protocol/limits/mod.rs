//! The bounds on what clients may use: connections, sessions, memory, requests per second. Each file has
//! one bound and knows no method.

pub(super) mod buffered;
pub(super) mod byte_semaphore;
pub mod connection_slots;
pub(super) mod counted_io;
pub(super) mod memory_budget;
pub(super) mod offload;
pub(super) mod rate_limit;
pub(super) mod session_slots;

/// Longest head of an HTTP request, bytes.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
