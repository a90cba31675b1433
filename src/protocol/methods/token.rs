//! `token.list`, `token.create`, `token.revoke` and `token.rotate`: the tokens with scopes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    access::{Caveat, Principal, Rate, Scope, Scopes},
    data_dir::OwnDir,
    executor::{NewToken, StoredToken},
    job::{
        Micros, Queue, Seconds,
        read::{LABEL_BYTES_MAX, LABELS_MAX},
    },
    protocol::{
        ErrorKind,
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
        tokens::TokenRequest,
    },
    sys::clock,
};

const CREATE_KEYS: [&str; 8] = [
    "name",
    "scopes",
    "own",
    "queues",
    "labels",
    "rate",
    "expires_at",
    "expires_s",
];

/// A token as it is shown; its text is not known any more.
fn view(token: &StoredToken) -> Value {
    let state = match (token.revoked_at, token.expired) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "valid",
    };
    let (mut own, mut queues, mut rates) = (false, None, Vec::new());
    let mut labels = BTreeMap::new();
    for text in &token.restrictions {
        match Caveat::read(text) {
            Ok(Caveat::Own) => own = true,
            Ok(Caveat::Queues(names)) => queues = Some(names),
            Ok(Caveat::Label(key, value)) => drop(labels.insert(key, value)),
            Ok(Caveat::Rate(rate)) => rates.push(rate.to_string()),
            // Scopes and expiry have columns of their own.
            Ok(Caveat::Scopes(_) | Caveat::Expires(_)) | Err(_) => {}
        }
    }
    json!({
        "token": token.number,
        "name": token.name,
        "state": state,
        "scopes": token.scopes,
        "own": own,
        "queues": queues,
        "labels": labels,
        "rates": rates,
        "expires_at": token.expires_at,
        "created_at": token.created_at,
        "created_by": token.created_by,
        "rotated_at": token.rotated_at,
        "revoked_at": token.revoked_at,
    })
}

/// A token with its text, which is told once.
fn told(token: &StoredToken, text: &str) -> Box<RawValue> {
    let mut view = view(token);
    view["secret"] = json!(text);
    to_raw(&view)
}

fn name<'a>(params: &Params<'a>) -> Result<&'a str, Refusal> {
    let name = params.text("name")?;
    let name = name.ok_or_else(|| params.wrong("name", "missing"))?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=NewToken::NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(name);
    }
    let max = NewToken::NAME_BYTES_MAX;
    let message = format!("must have 1 to {max} letters, digits, or characters of -_.");
    Err(params.wrong("name", &message))
}

fn scopes(params: &Params<'_>) -> Result<Scopes, Refusal> {
    let names = params.texts("scopes")?.filter(|names| !names.is_empty());
    let wrong = || {
        let message = format!("must be a list of at least one of {}", Scope::names());
        params.wrong("scopes", &message)
    };
    Scopes::read(names.ok_or_else(wrong)?).map_err(|_| wrong())
}

/// The moment at which a token expires, as a time or as seconds from now.
fn expiry(params: &Params<'_>) -> Result<Option<Micros>, Refusal> {
    let at = params.text("expires_at")?.map(|text| {
        let at = Micros::from_rfc3339(text);
        at.ok_or_else(|| params.wrong("expires_at", "must be a time as in RFC 3339"))
    });
    let after = params.seconds("expires_s")?;
    let at = match (at.transpose()?, after) {
        (Some(_), Some(_)) => {
            let message = "give at most one of expires_at and expires_s";
            return Err(params.wrong("expires_s", message));
        }
        (at, None) => at,
        (None, Some(after)) => Some(clock::now().after(Seconds(after.as_secs_f64()))),
    };
    match at {
        Some(at) if at <= clock::now() => {
            Err(params.wrong("expires_at", "must be a time in the future"))
        }
        at => Ok(at),
    }
}

fn restrictions(params: &Params<'_>) -> Result<Vec<Caveat>, Refusal> {
    let mut all = Vec::new();
    if params.flag("own")? == Some(true) {
        all.push(Caveat::Own);
    }
    if let Some(queues) = params.texts("queues")? {
        let queues: BTreeSet<String> = queues.into_iter().map(str::to_owned).collect();
        if queues.is_empty() {
            return Err(params.wrong("queues", "must name a queue; leave it out for all"));
        }
        if queues.iter().any(|queue| Queue::check_name(queue).is_err()) {
            return Err(params.wrong("queues", "must be a list of names of queues"));
        }
        all.push(Caveat::Queues(queues));
    }
    if let Some(labels) = params.get("labels") {
        let wrong = || params.wrong("labels", "must be an object whose values are strings");
        let labels = labels.as_object().ok_or_else(wrong)?;
        let too_long = |text: &str| text.len() > LABEL_BYTES_MAX;
        for (key, value) in labels {
            let value = value.as_str().ok_or_else(wrong)?;
            if labels.len() > LABELS_MAX || too_long(key) || too_long(value) {
                let message = format!(
                    "at most {LABELS_MAX} labels, with keys and values of up to {LABEL_BYTES_MAX} bytes"
                );
                return Err(params.wrong("labels", &message));
            }
            all.push(Caveat::Label(key.clone(), value.to_owned()));
        }
    }
    if let Some(rate) = params.text("rate")? {
        let rate = Rate::parse(rate).ok_or_else(|| {
            let message = "must be new jobs per s, m, h or d, such as \"60/m\"";
            params.wrong("rate", message)
        })?;
        all.push(Caveat::Rate(rate));
    }
    match all
        .iter()
        .find(|caveat| Caveat::read(&caveat.text()).is_err())
    {
        Some(long) => {
            let message = format!("{} bytes are too long for one of them", long.text().len());
            Err(params.wrong("labels", &message))
        }
        None => Ok(all),
    }
}

pub async fn list(caller: &Caller, params: Map<String, Value>) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["all"])?;
    let with_revoked = params.flag("all")?.unwrap_or(false);
    let tokens = caller.server.tokens.all();
    let shown = tokens
        .iter()
        .filter(|token| with_revoked || token.revoked_at.is_none());
    // A thousand valid ones at most; of the revoked ones the newest.
    let mut shown: Vec<Value> = shown.map(view).collect();
    let more = shown.len().saturating_sub(SHOWN_MAX);
    shown.drain(..more);
    Ok(to_raw(&json!({"tokens": shown, "more": more})))
}

/// Names that no token may have, in any case: the server's own name, that of clients without a token, those of several clients
/// that are refused, and the word for a client's own jobs.
const RESERVED_NAMES: [&str; 4] = ["server", Principal::NOBODY, "several", "others"];

/// Most tokens of one list: their views fit into a message.
const SHOWN_MAX: usize = 1000;

pub async fn create(caller: &Caller, params: Map<String, Value>) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &CREATE_KEYS)?;
    let name = name(&params)?;
    let is_taken = |taken: &str| taken.eq_ignore_ascii_case(name);
    if is_taken(&caller.server.owner.name) {
        return Err(params.wrong("name", "is the administrator's; take another one"));
    }
    if RESERVED_NAMES.into_iter().any(is_taken) {
        let message = "means something else in logs and in the audit trail; take another one";
        return Err(params.wrong("name", message));
    }
    let request = TokenRequest {
        name: name.to_owned(),
        scopes: scopes(&params)?,
        restrictions: restrictions(&params)?,
        expires_at: expiry(&params)?,
        created_by: format!("{} {}", caller.principal().name, &*caller.actor()),
    };
    let server = &caller.server;
    let (token, text) = server.tokens.create(&caller.executor(), request).await?;
    tracing::info!(
        token = token.name,
        scopes = token.scopes.join(","),
        "a token was made"
    );
    Ok(told(&token, &text))
}

pub async fn revoke(caller: &Caller, params: Map<String, Value>) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["name"])?;
    let server = &caller.server;
    let token = server
        .tokens
        .revoke(&caller.executor(), name(&params)?)
        .await?;
    tracing::info!(token = token.name, "a token was revoked");
    Ok(to_raw(&view(&token)))
}

pub async fn rotate(caller: &Caller, params: Map<String, Value>) -> Result<Box<RawValue>, Refusal> {
    let params = Params::new(&params, &["name", "expires_at", "expires_s"])?;
    let server = &caller.server;
    let name = name(&params)?;
    if name == server.owner.name.as_ref() {
        return rotate_admin(caller, &params).await;
    }
    let expires_at = expiry(&params)?;
    let executor = caller.executor();
    let rotated = server.tokens.rotate(&executor, name, expires_at);
    let (token, text) = rotated.await?;
    tracing::info!(token = token.name, "a token was replaced");
    Ok(told(&token, &text))
}

async fn rotate_admin(caller: &Caller, params: &Params<'_>) -> Result<Box<RawValue>, Refusal> {
    if params.get("expires_at").is_some() || params.get("expires_s").is_some() {
        return Err(params.wrong("expires_at", "the administrator's token has no expiry"));
    }
    let failed = |error: String| Refusal::new(ErrorKind::Unavailable, error);
    let server = &caller.server;
    let path = &server.addresses.data_dir;
    let dir = OwnDir::open(path).map_err(|error| failed(error.to_string()))?;
    let dir = dir.ok_or_else(|| failed(format!("{} is gone", path.display())))?;
    let rotated = server.tokens.rotate_admin(&dir).await;
    let (token, sessions) = rotated.map_err(|error| failed(error.to_string()))?;
    let target = json!({"token": server.owner.name});
    let executor = caller.executor();
    let noted = executor.note("token.rotate", target, json!({}));
    noted.await?;
    drop(sessions);
    tracing::info!("the administrator's token was replaced");
    Ok(to_raw(&json!({"name": "admin", "secret": token.secret()})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<(Vec<Caveat>, Option<Micros>, Scopes), Refusal> {
        let params = Params::new(value.as_object().expect("an object"), &CREATE_KEYS)?;
        name(&params)?;
        Ok((restrictions(&params)?, expiry(&params)?, scopes(&params)?))
    }

    #[test]
    fn a_request_is_read() {
        let (all, expires, scopes) = read(json!({
            "name": "ci", "scopes": ["submit", "read"], "own": true, "queues": ["ci"],
            "labels": {"a": "b"}, "rate": "60/m", "expires_s": 60,
        }))
        .expect("valid");
        assert_eq!(all.len(), 4);
        assert!(expires.is_some());
        assert_eq!(scopes.names(), ["read", "submit"]);
        let few = read(json!({"name": "x", "scopes": ["admin"], "own": false})).expect("valid");
        assert_eq!((few.0, few.1, few.2), (Vec::new(), None, Scopes::ALL));
    }

    #[test]
    fn wrong_requests_are_refused() {
        let long = "x".repeat(65);
        for wrong in [
            json!({"scopes": ["read"]}),
            json!({"name": "", "scopes": ["read"]}),
            json!({"name": "a b", "scopes": ["read"]}),
            json!({"name": long, "scopes": ["read"]}),
            json!({"name": "a"}),
            json!({"name": "a", "scopes": []}),
            json!({"name": "a", "scopes": "read"}),
            json!({"name": "a", "scopes": ["write"]}),
            json!({"name": "a", "scopes": ["read"], "queues": []}),
            json!({"name": "a", "scopes": ["read"], "queues": [""]}),
            json!({"name": "a", "scopes": ["read"], "labels": {"a": 1}}),
            json!({"name": "a", "scopes": ["read"], "labels": {"a": "x".repeat(5000)}}),
            json!({"name": "a", "scopes": ["read"], "rate": "fast"}),
            json!({"name": "a", "scopes": ["read"], "expires_s": 0}),
            json!({"name": "a", "scopes": ["read"], "expires_s": -1}),
            json!({"name": "a", "scopes": ["read"], "expires_at": "1990-01-01T00:00:00Z"}),
            json!({"name": "a", "scopes": ["read"], "expires_at": "2100-01-01T00:00:00Z", "expires_s": 5}),
            json!({"name": "a", "scopes": ["read"], "colour": 1}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
