//! `transcript.verify`: checks whether a job is stored as it was recorded, and whether assertions about its
//! output are true. The wire calls them `claims`. It runs beside the session's other requests.

use std::sync::Arc;

use serde_json::{Map, Value, value::RawValue};

use crate::{
    executor::{Assertion, Pattern, PatternError, TEXT_BYTES_MAX},
    job::JobRef,
    protocol::{
        caller::Caller,
        jsonrpc::{envelope::to_raw, error::Refusal, params::Params},
    },
};

/// Most assertions of one verification.
pub const CLAIMS_MAX: usize = 64;

/// Most memory of all compiled patterns of one verification, bytes.
pub const COMPILED_BYTES_MAX: usize = 4 << 20;

/// Digits of a SHA-256 in hex.
const SHA256_DIGITS: usize = 64;

const KINDS: [&str; 3] = ["contains", "regex", "sha256"];

fn options(params: &Map<String, Value>) -> Result<(JobRef, Vec<Assertion>), Refusal> {
    let params = Params::new(params, &["job", "claims"])?;
    let job = params.job()?;
    let Some(claims) = params.get("claims") else {
        return Ok((job, Vec::new()));
    };
    let not_a_list = || params.wrong("claims", "must be a list of {contains}, {regex}, {sha256}");
    let list = claims.as_array().ok_or_else(not_a_list)?;
    if list.len() > CLAIMS_MAX {
        let message = format!("claims: at most {CLAIMS_MAX} in one verification");
        return Err(Refusal::limit("claims_max", message));
    }
    let claims = list.iter().enumerate().map(|(index, one)| {
        let object = one.as_object().ok_or_else(not_a_list)?;
        claim(object).map_err(|refusal| refusal.at("claims", index))
    });
    // One after the other, so that patterns are not compiled beyond the bound.
    let (mut all, mut bytes) = (Vec::new(), 0);
    for claim in claims {
        let claim = claim?;
        bytes += compiled_bytes(&claim);
        if bytes > COMPILED_BYTES_MAX {
            let message = format!(
                "the patterns of all claims become larger than {COMPILED_BYTES_MAX} bytes together: \
                 use smaller repetitions, or several verifications"
            );
            return Err(Refusal::limit("claims_compiled_bytes_max", message));
        }
        all.push(claim);
    }
    Ok((job, all))
}

fn compiled_bytes(claim: &Assertion) -> usize {
    match claim {
        Assertion::Matches(pattern) => pattern.compiled_bytes(),
        _ => 0,
    }
}

fn claim(object: &Map<String, Value>) -> Result<Assertion, Refusal> {
    let params = Params::nested(object, "", &KINDS)?;
    let named: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| params.get(kind).is_some())
        .collect();
    let [kind] = named[..] else {
        let message = "a claim has exactly one of contains, regex, sha256";
        return Err(Refusal::params("claims", message));
    };
    let text = params.text(kind)?.unwrap_or_default();
    match kind {
        "contains" => contains(&params, text),
        "regex" => Pattern::new(text)
            .map(Assertion::Matches)
            .map_err(|error| match error {
                PatternError::TooLong => Refusal::limit("pattern_bytes_max", error.to_string()),
                error => params.wrong("regex", &error.to_string()),
            }),
        _ => digest(&params, text),
    }
}

fn contains(params: &Params<'_>, text: &str) -> Result<Assertion, Refusal> {
    match text.len() {
        0 => Err(params.wrong("contains", "must not be empty")),
        1..=TEXT_BYTES_MAX => Ok(Assertion::Contains(text.as_bytes().to_vec())),
        _ => {
            let message =
                format!("contains: at most {TEXT_BYTES_MAX} bytes; claim a part of the text");
            Err(Refusal::limit("claim_bytes_max", message))
        }
    }
}

fn digest(params: &Params<'_>, text: &str) -> Result<Assertion, Refusal> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.len() == SHA256_DIGITS && is_hex {
        return Ok(Assertion::Sha256(text.to_ascii_lowercase()));
    }
    Err(params.wrong("sha256", "must be 64 hexadecimal digits"))
}

/// Verifies a job. Wrong parameters are refused at once; while the request waits for its turn, they stay
/// text, because compiled patterns take more memory.
pub async fn execute(
    caller: &Caller,
    params: Map<String, Value>,
) -> Result<Box<RawValue>, Refusal> {
    let executor = &caller.server.executor;
    let params = Arc::new(params);
    // To compile 64 patterns takes longer than other tasks should wait for this thread.
    let read = |params: Arc<Map<String, Value>>| executor.in_turn(move || options(&params));
    drop(read(params.clone()).await??);
    let turn = executor.turn_to_verify(&caller.turns).await?;
    let (job, claims) = read(params).await??;
    let verdict = executor.verify(&turn, job, claims).await?;
    Ok(to_raw(&verdict))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::ErrorKind;

    fn read(claims: Value) -> Result<Vec<Assertion>, Refusal> {
        let params = json!({"job": 1, "claims": claims});
        options(params.as_object().expect("an object")).map(|(_, claims)| claims)
    }

    #[test]
    fn claims_are_read() {
        assert_eq!(read(json!(null)), Ok(Vec::new()));
        let hex = "AB".repeat(32);
        let claims = read(json!([{"contains": "ä"}, {"regex": "x+"}, {"sha256": hex}]));
        let expected = vec![
            Assertion::Contains("ä".as_bytes().to_vec()),
            Assertion::Matches(Pattern::new("x+").expect("valid")),
            Assertion::Sha256("ab".repeat(32)),
        ];
        assert_eq!(claims, Ok(expected));
    }

    #[test]
    fn wrong_claims_are_refused_in_their_own_ways() {
        for (wrong, kind) in [
            (json!({}), ErrorKind::InvalidParams),
            (json!([1]), ErrorKind::InvalidParams),
            (json!([{}]), ErrorKind::InvalidParams),
            (
                json!([{"contains": "a", "regex": "a"}]),
                ErrorKind::InvalidParams,
            ),
            (json!([{"contains": ""}]), ErrorKind::InvalidParams),
            (json!([{"contains": 1}]), ErrorKind::InvalidParams),
            (json!([{"says": "a"}]), ErrorKind::InvalidParams),
            (json!([{"regex": "("}]), ErrorKind::InvalidParams),
            (json!([{"sha256": "ab"}]), ErrorKind::InvalidParams),
            (
                json!([{"sha256": "g".repeat(64)}]),
                ErrorKind::InvalidParams,
            ),
            (
                json!([{"contains": "a".repeat(65_537)}]),
                ErrorKind::LimitExceeded,
            ),
            (
                json!([{"regex": "a".repeat(4097)}]),
                ErrorKind::LimitExceeded,
            ),
            (
                json!(vec![json!({"contains": "a"}); 65]),
                ErrorKind::LimitExceeded,
            ),
        ] {
            let refused = read(wrong.clone()).map_err(|refusal| refusal.kind);
            assert_eq!(refused.err(), Some(kind), "{wrong}");
        }
    }
}
