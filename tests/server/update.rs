//! `job.update`: what may still change about a job that has not started.

use serde_json::json;

use crate::harness::Server;

#[test]
fn a_job_that_waits_changes_queue_and_goes() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "closed", "paused": true}));
    client.ok("queue.set", json!({"queue": "also closed", "paused": true}));
    let job = client.submit(json!({"argv": ["true"], "queue": "closed", "name": "n"}));
    let change = json!({"job": job["number"], "priority": -7, "labels": {"a": "b"}, "name": null,
                        "queue": "also closed"});
    let changed = client.ok("job.update", change);
    let mut expected = job.clone();
    expected["priority"] = json!(-7);
    expected["labels"] = json!({"a": "b"});
    expected["name"] = json!(null);
    expected["queue"] = json!("also closed");
    assert_eq!(changed, expected);
    assert_eq!(client.get(&job), expected);
    // Into a queue with a free slot: nobody needs to say more.
    let moved = client.ok("job.update", json!({"job": job["id"], "queue": "default"}));
    assert_eq!(moved["queue"], "default");
    assert_eq!(client.finished(&job)["state"], "succeeded");
    client.refused(
        -32004,
        "job.update",
        json!({"job": job["id"], "priority": 1}),
    );
}

#[test]
fn a_change_does_not_make_it_another_submission() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "closed", "paused": true}));
    let keyed = json!({"argv": ["true"], "queue": "closed", "idempotency_key": "k"});
    let job = client.submit(keyed.clone());
    client.ok(
        "job.update",
        json!({"job": job["id"], "priority": 5, "queue": "default"}),
    );
    let again = client.ok("job.submit", keyed);
    assert_eq!(
        (&again["created"], &again["job"]["id"]),
        (&json!(false), &job["id"])
    );
    assert_eq!(again["job"]["priority"], 5);
}

#[test]
fn wrong_and_late_changes_are_refused_and_change_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "closed", "paused": true}));
    let job = client.submit(json!({"argv": ["true", "x".repeat(500 << 10)], "queue": "closed"}));
    let with = |key: &str, value: serde_json::Value| {
        let mut change = json!({"job": job["id"]});
        change[key] = value;
        change
    };
    let labels: serde_json::Map<_, _> = (0..64)
        .map(|n| (format!("{n}"), json!("x".repeat(4096 << 1 >> 1))))
        .collect();
    let many = client.submit(json!({"argv": ["true", "x".repeat(700 << 10)], "queue": "closed"}));
    for (code, change) in [
        (-32602, json!({"priority": 1})),
        (-32602, with("priority", json!("high"))),
        (-32602, with("name", json!(""))),
        (-32602, with("labels", json!([1]))),
        (-32602, with("colour", json!(1))),
        (-32602, with("argv", json!(["false"]))),
        (-32602, with("run_at", json!("tomorrow"))),
        (-32003, with("queue", json!("nowhere"))),
        (-32003, json!({"job": 77, "priority": 1})),
        (-32003, json!({"job": 77, "labels": {}})),
        (-32005, json!({"job": many["id"], "labels": labels})),
    ] {
        client.refused(code, "job.update", change);
    }
    assert_eq!(client.get(&job), job);
    let running = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&running);
    let late = json!({"job": running["id"], "name": "late"});
    let error = client.refused(-32004, "job.update", late);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("running")),
        "{error}"
    );
}
