//! `verify_transcript`: checks claims about a job against what is stored of it.

use serde_json::{Map, Value, json};

use super::{
    super::{
        jobs,
        reply::{self, NextCall, Reply},
    },
    arguments,
    call::{ToolCall, job_schema, object},
};
use crate::protocol::{jsonrpc::error::Refusal, methods};

const KEYS: [&str; 2] = ["job", "claims"];
/// Gaps of the output that an answer names, the first ones.
const GAPS_SHOWN_MAX: usize = 5;

/// The arguments.
pub fn schema() -> Value {
    object(
        &["job"],
        json!({
            "job": job_schema(),
            "claims": {
                "type": "array",
                "items": {"type": "object"},
                "description": "each {\"contains\": text}, {\"regex\": …} or {\"sha256\": hex}",
            },
        }),
    )
}

/// Executes the tool.
pub async fn execute(call: ToolCall<'_>) -> Result<Reply, Refusal> {
    arguments::known(&call, &KEYS)?;
    let executor = &call.caller.server.executor;
    let job = jobs::required(call.caller, &call.arguments, "job").await?;
    let job = executor.get(job, Default::default()).await?;
    let mut asked: Map<String, Value> = call.arguments.clone();
    asked.insert("job".to_owned(), job.number.into());
    let claims = asked.get("claims").cloned().unwrap_or_default();
    let verdict = methods::verify::execute(call.caller, asked).await?;
    let verdict: Value = serde_json::from_str(verdict.get()).unwrap_or_default();
    let (body, all) = findings(&verdict, &claims);
    let intact = verdict["intact"].as_bool().unwrap_or(false);
    let is_whole = verdict["gaps"].as_array().is_none_or(Vec::is_empty);
    let status = match (intact, all, is_whole) {
        (true, true, _) => "verified: the log is as it was stored, and every claim holds",
        (true, false, true) => "NOT verified: a claim does not hold",
        (true, false, false) => "NOT verified: a claim does not hold in what is left of the log",
        (false, ..) => "NOT verified: what is stored is not what was written",
    };
    let status = format!("{}; {status}", reply::status_line(&job));
    let next = NextCall::new("read_output", json!({"job": job.number, "tail_lines": 60}));
    let text = reply::compose(&status, &body, &next, reply::CHARS_DEFAULT);
    Ok(Reply::text(text))
}

/// One line per claim, the digest, and whether all claims hold.
fn findings(verdict: &Value, claims: &Value) -> (String, bool) {
    let mut all = true;
    let mut body = String::new();
    let none = Vec::new();
    let found = verdict["claims"].as_array().unwrap_or(&none);
    for (finding, claim) in found.iter().zip(claims.as_array().unwrap_or(&none)) {
        let holds = finding["found"].as_bool().unwrap_or(false);
        all &= holds;
        let at = match finding["offset"].as_u64() {
            Some(offset) => format!(" at byte {offset}"),
            None => String::new(),
        };
        let word = if holds { "holds" } else { "does NOT hold" };
        body.push_str(&format!("{word}{at}: {claim}\n"));
    }
    let gaps = verdict["gaps"].as_array().unwrap_or(&none).iter();
    for gap in gaps.take(GAPS_SHOWN_MAX) {
        body.push_str(&format!(
            "bytes {}-{} are not stored any more, and nothing can be checked against them\n",
            gap["from"], gap["to"]
        ));
    }
    if let Some(digest) = verdict["output_sha256"].as_str() {
        body.push_str(&format!("sha256 of the output: {digest}\n"));
    }
    if let Some(problems) = verdict["problems"]
        .as_array()
        .filter(|list| !list.is_empty())
    {
        body.push_str(&format!("problems: {}\n", json!(problems)));
    }
    (body, all)
}
