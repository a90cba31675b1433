//! `job.retry`: the same once more, as another job.

use serde_json::json;

use crate::harness::Server;

#[test]
fn a_retry_is_the_same_job_with_another_name() {
    let server = Server::start();
    let mut client = server.connect();
    let first = client.submit(json!({
        "shell": "cat; echo $A; exit 3", "stdin": "in\n", "env": {"A": "b"}, "name": "n",
        "labels": {"k": "v"}, "priority": 4, "timeout_s": 100, "idempotency_key": "key",
        "output": {"max_bytes": 1000},
    }));
    let first = client.finished(&first);
    let again = client.ok("job.retry", json!({"job": first["number"]}));
    assert_eq!(again["retry_of"], first["id"]);
    assert_eq!(again["idempotency_key"], json!(null));
    assert_ne!(again["id"], first["id"]);
    assert_eq!(
        (&again["state"], &again["attempts"]),
        (&json!("queued"), &json!(0))
    );
    assert!(again["submitted_at"].as_str() > first["submitted_at"].as_str());
    let again = client.finished(&again);
    assert_eq!(client.whole(&again).bytes, b"in\nb\n");
    for key in [
        "shell",
        "cwd",
        "umask",
        "env_names",
        "stdin_bytes",
        "name",
        "labels",
        "queue",
        "priority",
        "timeout_s",
        "grace_s",
        "output",
        "exit_code",
    ] {
        assert_eq!(again[key], first[key], "{key}");
    }
    assert_eq!(client.get(&first), first, "the first one is what it was");
    // A retry of a retry names its own original; one whose original is gone still names it.
    client.ok("job.delete", json!({"job": first["id"]}));
    assert_eq!(client.get(&again)["retry_of"], first["id"]);
    let third = client.ok("job.retry", json!({"job": again["id"]}));
    assert_eq!(third["retry_of"], again["id"]);
    assert_eq!(
        client.finished(&third)["output_sha256"],
        again["output_sha256"]
    );
}

#[test]
fn only_a_final_job_is_tried_again_and_only_where_its_queue_is() {
    let server = Server::start();
    let mut client = server.connect();
    client.refused(-32003, "job.retry", json!({"job": 77}));
    client.refused(-32602, "job.retry", json!({}));
    client.refused(-32602, "job.retry", json!({"job": 1, "colour": 1}));
    client.ok("queue.set", json!({"queue": "q", "paused": true}));
    let waiting = client.submit(json!({"argv": ["true"], "queue": "q"}));
    let running = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&running);
    for job in [&waiting, &running] {
        let error = client.refused(-32004, "job.retry", json!({"job": job["id"]}));
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|m| m.contains("cancel")),
            "{error}"
        );
    }
    client.control(&waiting, "cancel");
    client.ok("queue.delete", json!({"queue": "q"}));
    let error = client.refused(-32004, "job.retry", json!({"job": waiting["id"]}));
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("make it again")),
        "{error}"
    );
    client.ok("queue.set", json!({"queue": "q"}));
    let again = client.ok("job.retry", json!({"job": waiting["id"]}));
    assert_eq!(client.finished(&again)["state"], "succeeded");
}
