//! The client of a request as it is told: the name of its token, and what the token may do.

use serde_json::{Value, json};

use crate::access::{Principal, Reach};

/// The name, scopes and bounds; null for a client that has shown no token.
pub fn view(principal: &Principal) -> Value {
    let grant = &principal.grant;
    let names = grant.scopes.names();
    if names.is_empty() && principal.token.is_none() {
        return Value::Null;
    }
    let rates = grant.rates.iter();
    let rates: Vec<_> = rates.map(|(_, rate)| rate.to_string()).collect();
    let mut view = json!({
        "name": &*principal.name,
        "scopes": names,
        "own": grant.reach.own.is_some(),
        "expires_at": grant.expires,
        "rates": rates,
    });
    let Reach { queues, labels, .. } = &grant.reach;
    view["queues"] = json!(queues);
    view["labels"] = json!(labels);
    view
}
