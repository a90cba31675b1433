//! `session.authenticate`: checks the token. `ws::admit` then marks the session.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{
    access::Principal,
    protocol::{
        ErrorKind,
        jsonrpc::{error::Refusal, params::Params},
        tokens::{Tokens, WrongToken},
    },
};

/// The client whose token these parameters have.
pub fn check(tokens: &Tokens, params: &Map<String, Value>) -> Result<Arc<Principal>, Refusal> {
    let params = Params::new(params, &["token"])?;
    let guess = params
        .text("token")?
        .ok_or_else(|| params.wrong("token", "missing"))?;
    tokens.recognize(guess).map_err(|wrong| {
        let message = match wrong {
            WrongToken::Unknown => {
                "the token is wrong; `cc-executor token` prints the administrator's".to_owned()
            }
            wrong => wrong.to_string(),
        };
        Refusal::new(ErrorKind::Unauthenticated, message)
    })
}
