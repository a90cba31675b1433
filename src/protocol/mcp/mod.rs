//! MCP, the Model Context Protocol: how agents start commands and collect their results.
//!
//! `handler` answers the protocol's requests through the official SDK. `tools` has the tools, `excerpt` what
//! they show of an output, and `tasks`, `resources` and `prompts` the rest of what a client can ask for.
//! `http` serves it on `/mcp`, the module `ws` of the protocol on a WebSocket whose client negotiates the
//! sub-protocol `mcp`. Over stdio, a process of the command line relays to the latter.

pub mod client;
mod errors;
pub mod excerpt;
pub mod handler;
pub mod http;
mod jobs;
pub mod place;
mod prompts;
mod reply;
mod resources;
mod sessions;
mod shared;
mod tasks;
pub mod texts;
mod tools;

pub use handler::McpHandler;
pub use http::{McpRoutes, mount};
pub use shared::McpShared;
