//! Tokens with scopes as they are stored. Which of them are valid, `protocol::tokens` knows.

use super::{Error, Executor};
use crate::{
    access::TokenNumber,
    store::{NewToken, StoredToken, TokenAdded, TokenChange},
};

impl Executor {
    /// Stores a new token.
    pub async fn add_token(&self, new: NewToken) -> Result<TokenNumber, Error> {
        let name = new.name.clone();
        match self.ledger().add_token(new).await? {
            TokenAdded::Done(number) => Ok(number),
            TokenAdded::NameTaken => Err(Error::Conflict(format!(
                "there is a token {name:?}; take another name, or revoke or rotate that one"
            ))),
            TokenAdded::TooMany => {
                let max = NewToken::COUNT_MAX;
                Err(Error::Limit {
                    limit: "tokens_max".into(),
                    message: format!(
                        "there are {max} tokens, and no more will do; revoke one first"
                    ),
                })
            }
        }
    }

    /// Changes a token that was not revoked.
    pub async fn change_token(&self, token: TokenNumber, change: TokenChange) -> Result<(), Error> {
        match self.ledger().change_token(token, change).await? {
            true => Ok(()),
            false => Err(Error::Conflict(
                "the token was revoked meanwhile".to_owned(),
            )),
        }
    }

    /// All tokens, revoked ones too, by number.
    pub async fn tokens(&self) -> Result<Vec<StoredToken>, Error> {
        Ok(self.inner.store.tokens().await?)
    }
}
