//! The client for which a method is executed.

use std::sync::Arc;

use super::ServerState;
use crate::executor::SessionTurns as Turns;

/// A client as the methods see it, whichever interface it uses.
#[derive(Debug)]
pub struct Caller {
    /// The state of the server that received the request.
    pub server: Arc<ServerState>,
    /// Names its session: a UUID as 32 hexadecimal digits. Jobs that end with their connection are tied
    /// to it.
    pub id: String,
    /// The interface as the store writes it: `ws`.
    interface: &'static str,
    /// Its turns at work that keeps processors busy.
    pub turns: Turns,
}

impl Caller {
    /// A client of a new session on `interface`.
    pub fn new(server: Arc<ServerState>, interface: &'static str) -> Self {
        Self {
            server,
            id: uuid::Uuid::now_v7().simple().to_string(),
            interface,
            turns: Turns::default(),
        }
    }

    /// The client as the store names it: `INTERFACE:ID`, such as `ws:0198…`.
    pub fn actor(&self) -> String {
        format!("{}:{}", self.interface, self.id)
    }
}
