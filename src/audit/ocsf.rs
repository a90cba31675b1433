//! Entries as events of the Open Cybersecurity Schema Framework (OCSF 1.3): ends of jobs as Process Activity, everything
//! else as API Activity.
//!
//! What OCSF has no attribute for is in `unmapped`; `raw_data` is the entry itself, and `metadata.uid` its hash.

use serde_json::{Map, Value, json};

/// Version of OCSF.
const OCSF_VERSION: &str = "1.3.0";
/// Process Activity, of the category System Activity; its activity Terminate.
const PROCESS: (u32, u32, u32) = (1007, 1, 2);
/// API Activity, of the category Application Activity.
const API: (u32, u32) = (6003, 6);

/// The event of an entry.
pub fn event(entry: &Value, text: &str, hash: &str) -> Value {
    let action = entry["action"].as_str().unwrap_or_default();
    let is_end = action == "job.end";
    let (class, category, activity) = match is_end {
        true => PROCESS,
        false => (API.0, API.1, activity(action)),
    };
    let is_refused = entry["decision"] == "refused";
    let mut event = json!({
        "class_uid": class,
        "category_uid": category,
        "activity_id": activity,
        "type_uid": class * 100 + activity,
        "time": entry["at"].as_i64().unwrap_or_default() / 1000,
        // Informational, and medium for refusals.
        "severity_id": if is_refused { 3 } else { 1 },
        "status_id": if is_refused || is_failed(entry) { 2 } else { 1 },
        "metadata": {
            "version": OCSF_VERSION,
            "uid": hash,
            "sequence": entry["seq"],
            "product": {"name": "cc-executor", "vendor_name": "cc-executor", "version": env!("CARGO_PKG_VERSION")},
        },
        "actor": actor(&entry["actor"]),
        "raw_data": text,
        "unmapped": {"door": entry["door"], "target": entry["target"], "result": entry["result"]},
    });
    if is_refused {
        event["status_detail"] = entry["result"]["rule"].clone();
        event["count"] = entry["result"]["count"].clone();
    }
    if is_end {
        event["process"] = json!({"name": "job", "uid": job(entry)});
        event["exit_code"] = entry["result"]["exit_code"].clone();
        event["device"] = json!({"type_id": 0});
    } else {
        event["api"] = json!({"operation": action});
        event["src_endpoint"] = endpoint(entry);
    }
    event
}

/// The activity of API Activity: create, read, update, delete or other.
fn activity(action: &str) -> u32 {
    match action.rsplit('.').next().unwrap_or_default() {
        "submit" | "submit_many" | "create" | "retry" | "fire" | "run" | "backup" => 1,
        "read" | "list" | "get" | "query" | "search" | "info" => 2,
        "set" | "update" | "rotate" | "reload" | "pause" | "resume" => 3,
        "delete" | "remove" | "revoke" | "prune" => 4,
        _ => 99,
    }
}

fn is_failed(entry: &Value) -> bool {
    entry["result"]["state"] == "failed"
}

fn job(entry: &Value) -> String {
    entry["target"]["job"].to_string()
}

fn actor(actor: &Value) -> Value {
    let mut user = Map::new();
    user.insert("name".to_owned(), actor["name"].clone());
    if let Some(uid) = actor["uid"].as_i64() {
        user.insert("uid".to_owned(), uid.to_string().into());
    }
    if let Some(token) = actor["token"].as_i64() {
        user.insert("credential_uid".to_owned(), token.to_string().into());
    }
    let mut mapped = json!({"user": user});
    if let Some(pid) = actor["pid"].as_i64() {
        mapped["process"] = json!({"pid": pid});
    }
    mapped
}

/// Where the client is: its address, or the interface where it has none.
fn endpoint(entry: &Value) -> Value {
    match entry["peer"].as_str() {
        Some(peer) => json!({"ip": peer}),
        None => json!({"name": entry["door"]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_process_activity() {
        let entry = json!({
            "v": 1, "seq": 4, "at": 1_700_000_000_000_000_i64, "action": "job.end",
            "actor": {"name": "server"}, "door": "server", "decision": "allowed",
            "target": {"job": 17}, "result": {"state": "failed", "exit_code": 3},
        });
        let event = event(&entry, "text", "ab");
        assert_eq!(
            (&event["class_uid"], &event["type_uid"]),
            (&json!(1007), &json!(100_702))
        );
        assert_eq!(event["time"], 1_700_000_000_000_i64);
        assert_eq!(
            (&event["exit_code"], &event["status_id"]),
            (&json!(3), &json!(2))
        );
        assert_eq!(event["process"]["uid"], "17");
        assert_eq!(
            (&event["raw_data"], &event["metadata"]["uid"]),
            (&json!("text"), &json!("ab"))
        );
    }

    #[test]
    fn everything_else_is_api_activity() {
        let entry = json!({
            "v": 1, "seq": 4, "at": 5, "action": "job.submit",
            "actor": {"name": "ci", "token": 3}, "door": "tcp", "peer": "10.0.0.1",
            "decision": "refused", "target": {}, "result": {"rule": "token.scope", "count": 7},
        });
        let event = event(&entry, "text", "ab");
        assert_eq!(
            (&event["class_uid"], &event["activity_id"]),
            (&json!(6003), &json!(1))
        );
        assert_eq!(event["api"]["operation"], "job.submit");
        assert_eq!(event["src_endpoint"]["ip"], "10.0.0.1");
        assert_eq!(
            (&event["status_id"], &event["count"]),
            (&json!(2), &json!(7))
        );
        assert_eq!(event["status_detail"], "token.scope");
        assert_eq!(event["actor"]["user"]["credential_uid"], "3");
    }
}
