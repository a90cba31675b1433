//! `session.authenticate`: checks the token. `ws::admit` then marks the session.

use serde_json::{Map, Value};

use crate::protocol::{
    ErrorKind,
    auth::Token,
    jsonrpc::{error::Refusal, params::Params},
};

/// Whether these parameters have the right token.
pub fn check(token: &Token, params: &Map<String, Value>) -> Result<(), Refusal> {
    let params = Params::new(params, &["token"])?;
    let guess = params
        .text("token")?
        .ok_or_else(|| params.wrong("token", "missing"))?;
    if token.is(guess) {
        return Ok(());
    }
    let message = "the token is wrong; `cc-executor token` prints the right one";
    Err(Refusal::new(ErrorKind::Unauthenticated, message))
}
