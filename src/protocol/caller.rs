//! The client for which a method is executed.

use std::sync::{Arc, Mutex};

use super::{ServerState, jsonrpc::error::Refusal, peer::Peer};
use crate::{
    access::{Principal, Scope},
    executor::{Actor, SessionTurns as Turns},
    job::JobRef,
    sys::lock,
};

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
    /// Its rights.
    principal: Mutex<Arc<Principal>>,
    /// The user at the other end of a Unix socket.
    uid: Option<u32>,
}

impl Caller {
    /// A client of a new session on `interface`.
    pub fn new(
        server: Arc<ServerState>,
        interface: &'static str,
        principal: Arc<Principal>,
    ) -> Self {
        Self {
            server,
            id: uuid::Uuid::now_v7().simple().to_string(),
            interface,
            turns: Turns::default(),
            principal: Mutex::new(principal),
            uid: None,
        }
    }

    /// The same client, at the other end of this connection.
    pub fn at(mut self, peer: Peer) -> Self {
        self.uid = match peer {
            Peer::Unix { uid, .. } => Some(uid),
            Peer::Tcp(_) => None,
        };
        self
    }

    /// The same client with the rights that one of its requests has. [`Self::at`] says where it is.
    pub fn with(&self, principal: Arc<Principal>) -> Self {
        Self {
            server: self.server.clone(),
            id: self.id.clone(),
            interface: self.interface,
            turns: self.turns.clone(),
            principal: Mutex::new(principal),
            uid: self.uid,
        }
    }

    /// Its rights.
    pub fn principal(&self) -> Arc<Principal> {
        lock(&self.principal).clone()
    }

    /// It has shown another token.
    pub fn set_principal(&self, principal: Arc<Principal>) {
        *lock(&self.principal) = principal;
    }

    /// Refuses a client whose token does not have these scopes.
    pub fn require(&self, scopes: &[Scope]) -> Result<(), Refusal> {
        Ok(self.principal().require(scopes)?)
    }

    /// Refuses a job that the client's token does not reach.
    pub async fn check_reach(&self, job: JobRef) -> Result<(), Refusal> {
        Ok(self
            .server
            .executor
            .check_reach(&self.principal(), job)
            .await?)
    }

    /// The client as the store names it, `INTERFACE:ID` such as `ws:0198…`, with its rights.
    pub fn actor(&self) -> Actor {
        let name = format!("{}:{}", self.interface, self.id);
        Actor::new(name, self.principal(), self.uid)
    }
}
