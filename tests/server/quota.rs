//! A quota that is used up: SQLite tells it like a broken disk, and it is a full one.

use serde_json::json;

use crate::harness::{Failing, Server, until};

const UNAVAILABLE: i64 = -32006;

#[test]
fn a_server_whose_quota_is_used_up_refuses_and_goes_on() {
    let mut server = Server::start();
    let mut client = server.connect();
    let before = client.submit(json!({"argv": ["echo", "before"]}));
    let before = client.finished(&before);
    let running = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&running);
    let Some(failing) = Failing::calls(server.pid(), "pwrite64", "EDQUOT") else {
        return;
    };
    for _ in 0..3 {
        client.refused(UNAVAILABLE, "job.submit", json!({"argv": ["true"]}));
    }
    assert_eq!(client.get(&before), before);
    assert_eq!(client.get(&running)["state"], "running");
    // The wish cannot be stored, and reaches the shim all the same.
    client.control(&running, "kill");
    drop(failing);
    assert_eq!(client.finished(&running)["state"], "cancelled");
    let after = until("there is room again", || {
        let reply = client.call("job.submit", json!({"argv": ["echo", "after"]}));
        Some(reply.ok()?["job"].clone())
    });
    assert_eq!(client.whole(&after).bytes, b"after\n");
    assert!(server.has_ended().is_none(), "it is still the same server");
    let left = server.data_dir().join("cc-executor.probe");
    assert!(!left.exists(), "a probe is left");
}

/// Where there is room, a failed write is the disk's fault, and the end.
#[test]
fn a_server_whose_write_fails_ends() {
    let mut server = Server::start();
    let mut client = server.connect();
    let before = client.submit(json!({"argv": ["echo", "before"]}));
    let before = client.finished(&before);
    let Some(failing) = Failing::calls(server.pid(), "pwrite64", "EIO") else {
        return;
    };
    let submitted = client.try_call("job.submit", json!({"argv": ["true"]}));
    assert!(!matches!(submitted, Ok(Ok(_))), "acknowledged");
    assert_eq!(server.ended().code(), Some(1), "{}", server.said());
    drop(failing);
    server.restart();
    assert_eq!(server.connect().get(&before), before);
}
