//! On whose behalf a method is executed.

use std::sync::Arc;

use super::ServerState;
use crate::executor::SessionTurns as Turns;

/// A client as the methods know it, whichever door it came through.
#[derive(Debug)]
pub struct Caller {
    /// The server that it has asked.
    pub server: Arc<ServerState>,
    /// Names its session; jobs that end with their connection are tied to it.
    pub id: String,
    /// The door, as the ledger writes it: `ws`.
    door: &'static str,
    /// Its share of what keeps processors busy.
    pub turns: Turns,
}

impl Caller {
    /// A client of a new session, which came through `door`.
    pub fn new(server: Arc<ServerState>, door: &'static str) -> Self {
        Self {
            server,
            id: uuid::Uuid::now_v7().simple().to_string(),
            door,
            turns: Turns::default(),
        }
    }

    /// The client in the ledger: `DOOR:ID`.
    pub fn actor(&self) -> String {
        format!("{}:{}", self.door, self.id)
    }
}
