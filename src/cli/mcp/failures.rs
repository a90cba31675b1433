//! What a client is told about a request that the server did not answer. Pure.

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{held::HeldRequest, replies};

/// The answer to a request that may have been executed and cannot be sent again.
pub fn not_repeated(held: &HeldRequest) -> Utf8Bytes {
    let call = call(held);
    answer(
        held,
        &format!(
            "The connection to the cc-executor server was lost before it answered this {call}. The server \
             may have done it, and it cannot be done twice without harm, so it was not sent again. Look \
             at the job first; repeat the call only if it had no effect. The connection is made again by \
             itself.\nnext: list_jobs {{}}"
        ),
    )
}

/// The answer to a request for which no server can be reached.
pub fn unreachable(held: &HeldRequest, why: &str) -> Utf8Bytes {
    let call = call(held);
    let done = match held.was_sent || held.is_sent {
        false => format!("This {call} was not executed."),
        true if held.tool.as_deref() == Some("run") => format!(
            "It is unknown whether this {call} has started its job. A job that was started runs on \
             without the server: look for it with list_jobs before you repeat the call."
        ),
        true => format!("It is unknown whether this {call} was executed."),
    };
    answer(
        held,
        &format!(
            "cc-executor: {why}\n{done} The next call tries to connect again; jobs that run are not \
             affected."
        ),
    )
}

/// A text that models read stands in the result of a tool; other requests get an error.
fn answer(held: &HeldRequest, told: &str) -> Utf8Bytes {
    match held.tool {
        Some(_) => replies::failed_tool(&held.id, held.has_result_type, told),
        None => replies::error(Some(&held.id), replies::UNAVAILABLE, told),
    }
}

fn call(held: &HeldRequest) -> String {
    match &held.tool {
        Some(tool) => format!("`{tool}` call"),
        None => format!("`{}` request", held.method),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::cli::mcp::{ids::MessageId, params::CallParams};

    fn held(method: &str, params: Value) -> HeldRequest {
        let raw = to_raw_value(&params).expect("JSON");
        let params = CallParams::read(Some(&raw));
        HeldRequest::new(MessageId::Number(3), method.to_owned(), &params, "…".into())
    }

    fn value(text: &Utf8Bytes) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn a_tool_gets_a_result_and_another_request_an_error() {
        let tool = value(&not_repeated(&held(
            "tools/call",
            json!({"name": "control"}),
        )));
        assert_eq!(tool["result"]["isError"], true);
        assert!(tool["result"].get("resultType").is_none());
        let text = tool["result"]["content"][0]["text"]
            .as_str()
            .expect("a text");
        assert!(
            text.contains("`control` call") && text.contains("not sent again"),
            "{text}"
        );
        let other = value(&not_repeated(&held("a/later/one", json!({}))));
        assert_eq!(
            (&other["id"], &other["error"]["code"]),
            (&json!(3), &json!(-32006))
        );
    }

    #[test]
    fn a_client_that_names_its_revision_gets_a_result_type() {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let held = held("tools/call", json!({"name": "control", "_meta": meta}));
        assert_eq!(
            value(&not_repeated(&held))["result"]["resultType"],
            "complete"
        );
    }

    #[test]
    fn what_is_said_goes_by_what_may_have_happened() {
        let mut run = held("tools/call", json!({"name": "run"}));
        let told = |held: &HeldRequest| unreachable(held, "no server").to_string();
        assert!(told(&run).contains("was not executed"));
        run.was_sent = true;
        assert!(told(&run).contains("list_jobs before you repeat"));
        let mut wait = held("tools/call", json!({"name": "wait"}));
        wait.is_sent = true;
        assert!(told(&wait).contains("unknown whether this `wait` call was executed"));
    }
}
