//! The interface to clients, HTTP and WebSocket over a Unix socket and TCP: the only code that knows a wire
//! format. All of it calls the same executor.

pub mod auth;
mod caller;
mod encode;
mod http;
mod job_counts;
mod jsonrpc;
mod kind;
pub mod limits;
pub mod listener;
pub mod mcp;
mod methods;
mod narrowing;
pub mod origin;
mod peer;
mod problem;
mod refusals;
mod server_state;
mod sub_protocol;
pub mod tokens;
mod ws;

pub use kind::ErrorKind;
pub use limits::session_slots::{SessionSlot, SessionSlots};
pub use limits::{memory_budget::MemoryBudget, offload::ParserThread, rate_limit::FairQueue};
pub use methods::submit_many::LARGE_AT_ONCE as LARGE_BATCHES_AT_ONCE;
pub use refusals::{RefusalLog, RefusalReason};
pub use server_state::{ServerAddresses, ServerState};
