//! `job.untail`: ends a subscription. Nothing of it follows the reply.

use serde_json::{Map, Value, json};

use super::Outcome;
use crate::protocol::{
    ErrorKind,
    jsonrpc::{
        error::Refusal,
        params::{OFFSET_MAX, Params},
    },
    ws::session::Session,
};

pub async fn execute(session: &Session, params: Map<String, Value>) -> Result<Outcome, Refusal> {
    let params = Params::new(&params, &["subscription"])?;
    let subscription = params.number("subscription", 0, OFFSET_MAX)?;
    let subscription = subscription.ok_or_else(|| params.wrong("subscription", "missing"))?;
    if session.tails.end(subscription).await {
        return Ok(Outcome::of(&json!({})));
    }
    let message = format!("this session never had a subscription {subscription}");
    Err(Refusal::new(ErrorKind::NotFound, message))
}
