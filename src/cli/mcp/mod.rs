//! MCP over stdio, relayed to a server's WebSocket: what `cc-executor mcp` does.
//!
//! `relay` decides what is sent where, and holds the requests until they are answered; it and the files
//! that it uses do no I/O. `bridge` moves the messages, `reach` connects and reconnects, `socket` is one
//! connection.

pub(super) mod bridge;
pub(super) mod caller;
mod failures;
mod held;
mod ids;
mod limits;
mod lines;
mod message;
mod overlong;
mod params;
mod progress;
pub(super) mod reach;
mod relay;
mod replies;
mod resend;
mod server_requests;
mod socket;
mod stdout;
