//! The sessions of MCP over HTTP: those in memory have a slot like any session of the server; their openings
//! are in the database, so a request after a restart finds its session again.

use std::{cell::Cell, collections::HashMap, sync::Arc, time::Instant};

use axum::http::HeaderMap;
use futures_util::{Stream, StreamExt};
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::{
        WorkerTransport,
        common::server_side_http::{ServerSseMessage, SessionId},
        streamable_http_server::session::{
            RestoreOutcome, SessionManager, SessionState, SessionStore, SessionStoreError,
            local::{LocalSessionManager, LocalSessionManagerError, LocalSessionWorker},
        },
    },
};
use tokio::sync::Mutex;

use super::{
    super::{ServerState, SessionSlot, limits::session_slots::Full, peer::Peer},
    client::SESSION_HEADER,
};
use crate::{
    access::{ClientOrigin, Principal, TokenNumber},
    executor::{Error, log_events},
};

tokio::task_local! {
    /// The request that may begin a session.
    static ADMISSION: SessionAdmission;
}

/// The client of a request, and whether the request found no free slot.
pub struct SessionAdmission {
    peer: Peer,
    /// The client's token.
    token: Option<TokenNumber>,
    /// Its name.
    name: Arc<str>,
    full: Cell<Option<Full>>,
}

impl SessionAdmission {
    /// A client with these rights.
    pub fn new(peer: Peer, principal: &Principal) -> Self {
        Self {
            peer,
            token: principal.token,
            name: principal.name.clone(),
            full: Cell::new(None),
        }
    }

    /// Who the client is for the log.
    fn origin(&self) -> ClientOrigin {
        let door = match self.peer {
            Peer::Unix { .. } => "mcp-unix",
            Peer::Tcp(_) => "mcp-tcp",
        };
        ClientOrigin {
            token: self.token,
            ..self.peer.origin(door, &self.name)
        }
    }
}

/// Answers a request that may begin a session; also says whether there was no slot for that.
pub async fn admitted<T>(
    admission: SessionAdmission,
    answer: impl Future<Output = T>,
) -> (T, Option<Full>) {
    let answered = async {
        let answer = answer.await;
        (answer, ADMISSION.with(|admission| admission.full.get()))
    };
    ADMISSION.scope(admission, answered).await
}

/// The token of the client whose request is being answered.
fn admitted_token() -> Option<TokenNumber> {
    let token = ADMISSION.try_with(|admission| admission.token);
    token.ok().flatten()
}

/// Why a session cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Every slot is taken.
    #[error("there are too many sessions")]
    Full,
    /// The SDK reports an error.
    #[error(transparent)]
    Local(#[from] LocalSessionManagerError),
}

/// A session in memory: its slot, and who has opened it.
#[derive(Debug)]
struct HeldSession {
    _slot: SessionSlot,
    client: ClientOrigin,
    began_at: Instant,
}

impl HeldSession {
    fn begin(slot: SessionSlot, client: ClientOrigin) -> Self {
        log_events::session_began(&client);
        Self {
            _slot: slot,
            client,
            began_at: Instant::now(),
        }
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        let elapsed_s = self.began_at.elapsed().as_secs();
        log_events::session_ended(&self.client, "closed", elapsed_s);
    }
}

/// The sessions in memory.
#[derive(Debug)]
pub struct Sessions {
    server: Arc<ServerState>,
    local: LocalSessionManager,
    slots: Mutex<HashMap<SessionId, HeldSession>>,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(server: Arc<ServerState>) -> Self {
        Self {
            server,
            local: LocalSessionManager::default(),
            slots: Mutex::default(),
        }
    }

    /// Whether the session that these headers name was opened with another token.
    pub async fn is_foreign(
        &self,
        headers: &HeaderMap,
        principal: &Principal,
    ) -> Result<bool, Error> {
        let Some(id) = headers.get(SESSION_HEADER).and_then(|id| id.to_str().ok()) else {
            return Ok(false);
        };
        let held = self
            .slots
            .lock()
            .await
            .get(id)
            .map(|held| held.client.token);
        let owner = match held {
            Some(token) => Some(token),
            None => self.server.executor.token_of_mcp_session(id).await?,
        };
        Ok(owner.is_some_and(|token| token != principal.token))
    }

    fn take_slot(&self) -> Result<HeldSession, SessionError> {
        let slots = &self.server.sessions;
        let taken = ADMISSION.try_with(|admission| {
            let slot = match admission.peer.is_trusted() {
                true => Ok(slots.take_unix()),
                false => slots.take_authenticated(),
            };
            let slot = slot.inspect_err(|full| admission.full.set(Some(*full)))?;
            Ok::<_, Full>(HeldSession::begin(slot, admission.origin()))
        });
        // Every request has its admission.
        taken
            .map_err(|_| SessionError::Full)?
            .map_err(|_| SessionError::Full)
    }
}

impl SessionManager for Sessions {
    type Error = SessionError;
    type Transport = WorkerTransport<LocalSessionWorker>;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionError> {
        let slot = self.take_slot()?;
        let (id, transport) = self.local.create_session().await?;
        self.slots.lock().await.insert(id.clone(), slot);
        Ok((id, transport))
    }

    async fn restore_session(
        &self,
        id: SessionId,
    ) -> Result<RestoreOutcome<Self::Transport>, SessionError> {
        let slot = self.take_slot()?;
        let restored = self.local.restore_session(id.clone()).await?;
        if matches!(restored, RestoreOutcome::Restored(_)) {
            self.slots.lock().await.insert(id, slot);
        }
        Ok(restored)
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionError> {
        Ok(self.local.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionError> {
        Ok(self.local.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), SessionError> {
        self.slots.lock().await.remove(id);
        Ok(self.local.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        Ok(without_ids(self.local.create_stream(id, message).await?))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), SessionError> {
        Ok(self.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        Ok(without_ids(self.local.create_standalone_stream(id).await?))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        Ok(without_ids(self.local.resume(id, last_event_id).await?))
    }
}

/// The messages of a stream without event ids. A client that has seen an id tries to resume the stream after
/// a kill of the server, which cannot know it any more, and waits in vain instead of failing at once; an
/// event without a message, which only carries an id, ends another client's session.
fn without_ids<S>(stream: S) -> impl Stream<Item = ServerSseMessage> + Send + Sync + 'static
where
    S: Stream<Item = ServerSseMessage> + Send + Sync + 'static,
{
    stream.filter_map(|mut event| {
        event.event_id = None;
        event.retry = None;
        std::future::ready(event.message.is_some().then_some(event))
    })
}

/// The openings of sessions, in the database.
pub struct StoredSessions(pub Arc<ServerState>);

#[async_trait::async_trait]
impl SessionStore for StoredSessions {
    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let opening = self.0.executor.mcp_session(id).await?;
        Ok(opening
            .map(|text| serde_json::from_str(&text))
            .transpose()?)
    }

    async fn store(&self, id: &str, state: &SessionState) -> Result<(), SessionStoreError> {
        let opening = serde_json::to_string(state)?;
        let token = admitted_token();
        Ok(self.0.executor.save_mcp_session(id, opening, token).await?)
    }

    async fn delete(&self, id: &str) -> Result<(), SessionStoreError> {
        Ok(self.0.executor.delete_mcp_session(id).await?)
    }
}
