//! The handle's methods for what MCP clients must find again after a restart.

use super::{
    Store, StoreError,
    sqlite::mcp,
    write::{Write, WriteResult},
};
use crate::{access::TokenNumber, job::JobNumber};

impl Store {
    /// Stores the opening of an MCP session, JSON, and the token that opened it.
    pub async fn save_mcp_session(
        &self,
        id: String,
        opening: String,
        token: Option<TokenNumber>,
    ) -> Result<(), StoreError> {
        let write = Write::SaveMcpSession { id, opening, token };
        self.done(write).await
    }

    /// Forgets an MCP session.
    pub async fn delete_mcp_session(&self, id: String) -> Result<(), StoreError> {
        self.done(Write::DeleteMcpSession(id)).await
    }

    /// The opening of an MCP session, JSON; `None` if there is no such session.
    pub async fn mcp_session(&self, id: &str) -> Result<Option<String>, StoreError> {
        Ok(mcp::session(&self.inner.readers, id).await?)
    }

    /// Stores that the submitter of a job has been told about it over MCP.
    pub async fn set_mcp_answered(&self, job: JobNumber) -> Result<(), StoreError> {
        self.done(Write::McpAnswered(job)).await
    }

    /// Whether the submitter of a job has been told about it over MCP, while it ran.
    pub async fn is_mcp_answered(&self, job: JobNumber) -> Result<bool, StoreError> {
        Ok(mcp::is_answered(&self.inner.readers, job).await?)
    }

    /// The job with this idempotency key.
    pub async fn job_with_key(&self, key: &str) -> Result<Option<JobNumber>, StoreError> {
        Ok(mcp::job_with_key(&self.inner.readers, key).await?)
    }

    pub(super) async fn done(&self, write: Write) -> Result<(), StoreError> {
        self.write(write, |result| {
            matches!(result, WriteResult::Done).then_some(())
        })
        .await
    }
}
