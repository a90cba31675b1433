//! The client for which a method is executed.

use std::sync::{Arc, Mutex};

use super::{ErrorKind, ServerState, jsonrpc::error::Refusal, peer::Peer};
use crate::{
    access::{ClientOrigin, Principal, Scope},
    executor::{Actor, Executor, SessionTurns as Turns},
    job::JobRef,
    sys::lock,
};

/// The limit of a refusal that the rate of a token gives.
const TOKEN_RATE: &str = "token_rate";

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
    /// The other end of its connection.
    peer: Option<Peer>,
}

impl Caller {
    /// The name of the interface MCP in the store.
    pub const MCP: &str = "mcp";

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
            peer: None,
        }
    }

    /// The same client, at the other end of this connection.
    pub fn at(mut self, peer: Peer) -> Self {
        self.peer = Some(peer);
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
            peer: self.peer,
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
        let uid = match self.peer {
            Some(Peer::Unix { uid, .. }) => Some(uid),
            Some(Peer::Tcp(_)) | None => None,
        };
        Actor::new(self.session_name(), self.principal(), uid)
    }

    /// The executor for this client's requests: the audit trail names the client.
    pub fn executor(&self) -> Executor {
        self.server.executor.by(Arc::new(self.origin()))
    }

    /// Who the client is for the audit trail.
    pub fn origin(&self) -> ClientOrigin {
        let principal = self.principal();
        let is_mcp = self.interface == Self::MCP;
        let door = match (is_mcp, self.peer) {
            (false, Some(Peer::Unix { .. })) => "unix",
            (false, _) => "tcp",
            (true, Some(Peer::Unix { .. })) => "mcp-unix",
            (true, _) => "mcp-tcp",
        };
        ClientOrigin {
            token: principal.token,
            session: Some(self.session_name()),
            ..match self.peer {
                Some(peer) => peer.origin(door, &principal.name),
                None => ClientOrigin::within(door, &principal.name),
            }
        }
    }

    /// Counts a refusal for the audit trail, if it is one of rights, of a token's rate or of the policy.
    pub fn count_refusal(&self, action: &str, refusal: &Refusal) {
        let rule = match refusal.kind {
            ErrorKind::Forbidden => refusal.rule().unwrap_or("forbidden"),
            ErrorKind::LimitExceeded if refusal.limit_name() == Some(TOKEN_RATE) => "token.rate",
            _ => return,
        };
        let executor = &self.server.executor;
        executor.count_refusal(self.origin(), action, rule);
    }

    fn session_name(&self) -> String {
        format!("{}:{}", self.interface, self.id)
    }
}
