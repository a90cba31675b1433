//! The log's events for programs are as docs/logs.md says, whichever interface they come from.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::{
    harness::{Client, Server, until_true},
    mcp::Agent,
};

const TARGET: &str = "cc_executor::events";

/// The fields of events in docs/logs.md, with their types.
fn fields() -> BTreeMap<String, String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logs.md"));
    let page = page.expect("the page");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (field, kind) = (cells.next()?, cells.next()?);
        let field = field.strip_prefix('`')?.strip_suffix('`')?;
        ["text", "number"]
            .contains(&kind)
            .then(|| (field.to_owned(), kind.to_owned()))
    });
    let fields: BTreeMap<_, _> = rows.collect();
    assert!(fields.len() > 15, "{fields:?}");
    fields
}

/// The events in a log, each checked against the page.
#[track_caller]
fn events(log: &str) -> Vec<Value> {
    let fields = fields();
    // The last line may not be whole yet.
    let lines = log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n') && line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let events: Vec<Value> = lines.filter(|line| line["target"] == TARGET).collect();
    for event in &events {
        assert_eq!(event["level"], "INFO", "{event}");
        for (field, value) in event.as_object().expect("an object") {
            let fits = match fields.get(field).map(String::as_str) {
                Some("text") => value.is_string(),
                Some("number") => value.is_i64(),
                _ => ["timestamp", "level", "message", "target"].contains(&field.as_str()),
            };
            assert!(fits, "{field} of {event}");
        }
        for field in ["event", "actor", "door", "timestamp"] {
            assert!(event[field].is_string(), "{field} of {event}");
        }
    }
    events
}

/// The event of this name that is about this job.
#[track_caller]
fn of(events: &[Value], name: &str, job: &Value) -> Value {
    let mut found = events
        .iter()
        .filter(|event| event["event"] == name && event["job"] == job["number"]);
    let found = found.next().cloned();
    found.unwrap_or_else(|| panic!("no {name} of {} in {events:#?}", job["number"]))
}

#[test]
fn what_was_asked_for_refused_started_and_ended_is_an_event() {
    let server = Server::start();
    let mut client = server.connect();
    let fine = client.submit(json!({"shell": "exit 3"}));
    client.finished(&fine);
    let long = client.submit(json!({"argv": ["sleep", "1000"], "interactive": true}));
    client.started(&long);
    client.ok(
        "job.input",
        json!({"job": long["id"], "data": "hidden-words"}),
    );
    client.ok(
        "job.control",
        json!({"job": long["id"], "action": "signal", "signal": "SIGCONT"}),
    );
    client.control(&long, "cancel");
    client.finished(&long);
    let jobs = json!([{"argv": ["true"]}, {"argv": ["true"]}]);
    let batch = client.ok("job.submit_many", json!({"jobs": jobs}));
    let first = batch["jobs"][0].clone();
    client.ok("queue.set", json!({"queue": "ci"}));
    let made = client.ok(
        "token.create",
        json!({"name": "reader", "scopes": ["read"]}),
    );
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    let mut reader = Client::tcp(server.listen(), Some(&secret));
    reader.refused(-32002, "job.submit", json!({"argv": ["true"]}));
    drop(reader);
    let mut agent = Agent::new(&server);
    let (text, is_error) = agent.tool(&server, "run", json!({"command": "true"}));
    assert!(!is_error, "{text}");

    let seen = || events(&server.said());
    until_true("the last events to be written", || {
        let seen = seen();
        let any = |name: &str, field: &str, value: Value| {
            let mut those = seen.iter().filter(|event| event["event"] == name);
            those.any(|event| event[field] == value)
        };
        any("session.end", "actor", json!("reader"))
            && any("job.submit", "decision", json!("refused"))
            && any("job.submit", "door", json!("mcp-tcp"))
    });
    let seen = seen();
    let submitted = of(&seen, "job.submit", &fine);
    assert_eq!(
        (
            &submitted["actor"],
            &submitted["door"],
            &submitted["decision"]
        ),
        (&json!("admin"), &json!("tcp"), &json!("allowed"))
    );
    assert!(
        submitted["session"]
            .as_str()
            .is_some_and(|name| name.starts_with("ws:"))
    );
    assert_eq!(of(&seen, "job.start", &fine)["attempt"], 1);
    let ended = of(&seen, "job.end", &fine);
    assert_eq!(
        (&ended["state"], &ended["reason"], &ended["exit_code"]),
        (&json!("failed"), &json!("exit_code"), &json!(3))
    );
    for name in ["job.input", "job.signal", "job.cancel"] {
        of(&seen, name, &long);
    }
    assert_eq!(of(&seen, "job.end", &long)["signal"], "SIGTERM");
    assert_eq!(of(&seen, "job.submit", &first)["jobs"], 2);
    let refused = seen.iter().find(|event| event["decision"] == "refused");
    let refused = refused.expect("a refusal");
    assert_eq!(
        (
            &refused["event"],
            &refused["actor"],
            &refused["rule"],
            &refused["count"]
        ),
        (
            &json!("job.submit"),
            &json!("reader"),
            &json!("token.scope"),
            &json!(1)
        )
    );
    assert!(refused["peer"].is_string(), "{refused}");
    for name in ["session.begin", "queue.set", "token.create"] {
        assert!(seen.iter().any(|event| event["event"] == name), "{name}");
    }
    let log = server.said();
    assert!(!log.contains("hidden-words") && !log.contains(&secret));
}
