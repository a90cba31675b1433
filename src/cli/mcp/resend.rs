//! Which requests may be sent again after a lost connection, when the server may have executed them
//! already. Pure.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::params::CallParams;

/// Methods that only read, or whose repetition has no further effect.
const METHODS: [&str; 21] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/directory/read",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "skills/get",
    "skills/list",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tools/list",
];
/// The method that answers a question of a task; the server takes each answer once.
const TASK_UPDATE: &str = "tasks/update";
/// Tools that only read.
const READING_TOOLS: [&str; 6] = [
    "list_jobs",
    "query_history",
    "read_output",
    "search_output",
    "verify_transcript",
    "wait",
];

/// Whether the request may be sent again. The server knows a `run` and a `send_input` by the session and
/// the request's id, and does them once. A method or tool that is not known here is not sent again.
pub fn is_repeatable(method: &str, params: &CallParams<'_>) -> bool {
    if method != "tools/call" {
        return method == TASK_UPDATE || METHODS.contains(&method);
    }
    match params.tool() {
        Some("run") => true,
        Some("send_input") => names_one_job(params),
        Some("control") => names_one_job(params) && !sends_a_signal(params),
        Some(tool) => READING_TOOLS.contains(&tool),
        None => true,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToolArguments {
    action: Value,
    job: Value,
}

fn arguments(params: &CallParams<'_>) -> ToolArguments {
    let raw = params.arguments.map(|raw| raw.get());
    raw.and_then(|raw| serde_json::from_str(raw).ok())
        .unwrap_or_default()
}

/// A signal can be counted by the job, so that a second one is not the same as one.
fn sends_a_signal(params: &CallParams<'_>) -> bool {
    arguments(params).action == "signal"
}

/// Whether `job` is a number or an id. `last` and names can mean another job the second time.
fn names_one_job(params: &CallParams<'_>) -> bool {
    const ID_LENGTH: usize = 36;
    match arguments(params).job {
        Value::Number(_) => true,
        Value::String(job) => {
            let is_number = !job.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit());
            // A task's id is the job's number and id.
            let id_from = job.len().saturating_sub(ID_LENGTH);
            let id = job.get(id_from..).unwrap_or_default();
            is_number || (id.len() == ID_LENGTH && Uuid::try_parse(id).is_ok())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    #[track_caller]
    fn call(tool: &str, arguments: Value, expected: bool) {
        let params = json!({"name": tool, "arguments": arguments});
        let raw = to_raw_value(&params).expect("JSON");
        let params = CallParams::read(Some(&raw));
        assert_eq!(is_repeatable("tools/call", &params), expected, "{raw}");
    }

    #[test]
    fn tools_that_read_and_those_that_the_server_does_once_are_repeated() {
        call("run", json!({"command": "make"}), true);
        call("wait", json!({"jobs": ["last"]}), true);
        call("read_output", json!({"job": "build"}), true);
        call("query_history", json!({"sql": "…"}), true);
        call("a_tool_of_a_later_version", json!({}), false);
    }

    #[test]
    fn a_control_is_repeated_if_it_means_the_same_job_and_is_no_signal() {
        let id = "0199a3f2-7d1c-7e52-9f00-0123456789ab";
        for action in ["pause", "resume", "cancel", "kill"] {
            for job in [json!(7), json!("7"), json!(id), json!(format!("7-{id}"))] {
                call("control", json!({"job": job, "action": action}), true);
            }
            for job in [
                json!("last"),
                json!("build~1"),
                json!(""),
                json!(["7"]),
                json!("é".repeat(30)),
            ] {
                call("control", json!({"job": job, "action": action}), false);
            }
        }
        call("control", json!({"job": 7, "action": "signal"}), false);
        call("send_input", json!({"job": 7, "text": "y"}), true);
        call("send_input", json!({"job": "last", "text": "y"}), false);
    }

    #[test]
    fn other_methods_go_by_their_names() {
        let none = CallParams::default();
        for method in ["initialize", "tools/list", "tasks/get", "tasks/update"] {
            assert!(is_repeatable(method, &none), "{method}");
        }
        assert!(!is_repeatable("a/later/one", &none));
    }
}
