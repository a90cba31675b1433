//! The handle's methods for tokens with scopes.

use super::{
    handle::Store,
    sqlite::tokens,
    token_types::{NewToken, StoredToken, TokenAdded, TokenChange},
    types::StoreError,
    write::{Write, WriteResult},
};
use crate::{
    access::{JobPlace, TokenNumber},
    job::JobRef,
};

impl Store {
    /// Stores a new token.
    pub async fn add_token(&self, new: NewToken) -> Result<TokenAdded, StoreError> {
        self.write(Write::AddToken(Box::new(new)), |result| match result {
            WriteResult::TokenAdded(added) => Some(added),
            _ => None,
        })
        .await
    }

    /// Changes a token that was not revoked; false where there is none with this number.
    pub async fn change_token(
        &self,
        number: TokenNumber,
        change: TokenChange,
    ) -> Result<bool, StoreError> {
        self.write(
            Write::ChangeToken((number, change)),
            |result| match result {
                WriteResult::TokenChanged(changed) => Some(changed),
                _ => None,
            },
        )
        .await
    }

    /// All tokens, revoked ones too, by number.
    pub async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        Ok(tokens::all(&self.inner.readers).await?)
    }

    /// What decides whether a token reaches this job; `None` where there is no such job.
    pub async fn job_place(&self, job: JobRef) -> Result<Option<JobPlace>, StoreError> {
        Ok(tokens::place(&self.inner.readers, job).await?)
    }

    /// The token that opened a session of MCP; the outer `None`: there is no such session.
    pub async fn token_of_mcp_session(
        &self,
        id: &str,
    ) -> Result<Option<Option<TokenNumber>>, StoreError> {
        Ok(tokens::of_mcp_session(&self.inner.readers, id).await?)
    }
}
