//! The audit trail of a running server: each kind of change is an entry that names its client, refusals are counted together,
//! and no secret is in it.

use serde_json::{Value, json};

use crate::harness::{Client, Server, until};

/// All entries, in order.
fn trail(client: &mut Client) -> Vec<Value> {
    let (mut after, mut entries) = (0, Vec::new());
    loop {
        let page = client.ok("audit.read", json!({"after": after, "limit": 1000}));
        let rows = page["entries"].as_array().expect("entries").clone();
        entries.extend(rows.iter().map(|row| row["entry"].clone()));
        match rows.last() {
            Some(last) if last["seq"] != page["last"] => after = last["seq"].as_u64().expect("seq"),
            _ => return entries,
        }
    }
}

/// The newest entry of an action.
#[track_caller]
fn newest(client: &mut Client, action: &str) -> Value {
    let entries = trail(client);
    let found = entries.iter().rev().find(|entry| entry["action"] == action);
    found
        .unwrap_or_else(|| panic!("{action}: {entries:#?}"))
        .clone()
}

#[test]
fn every_kind_of_change_is_an_entry() {
    let server = Server::start();
    let mut client = server.connect();
    let first = newest(&mut client, "server.start");
    assert_eq!(
        (&first["seq"], &first["result"]["epoch"]),
        (&json!(1), &json!(1))
    );
    let info = client.ok("server.info", json!({}));
    assert_eq!(first["target"]["instance"], info["instance"]);

    let job = client.submit(json!({"argv": ["cat"], "interactive": true}));
    client.started(&job);
    client.control(&job, "pause");
    client.control(&job, "resume");
    client.ok(
        "job.input",
        json!({"job": job["id"], "data": "typed-secret\n"}),
    );
    client.ok(
        "job.control",
        json!({"job": job["id"], "action": "signal", "signal": "SIGWINCH"}),
    );
    client.control(&job, "kill");
    client.finished(&job);
    let submit = newest(&mut client, "job.submit");
    assert_eq!(submit["target"]["job"], job["number"]);
    assert_eq!(submit["actor"]["name"], "admin");
    let end = newest(&mut client, "job.end");
    assert_eq!(end["result"]["state"], "cancelled");
    assert_eq!(
        end["result"]["output_sha256"],
        client.get(&job)["output_sha256"]
    );
    assert_eq!(newest(&mut client, "job.input")["result"]["bytes"], 13);
    assert_eq!(
        newest(&mut client, "job.signal")["result"]["signal"],
        "SIGWINCH"
    );

    let many: Vec<Value> = (0..100)
        .map(|_| json!({"argv": ["true"], "delay_s": 1000}))
        .collect();
    let stored = client.ok("job.submit_many", json!({"jobs": many}));
    let batch = newest(&mut client, "job.submit");
    assert_eq!(batch["target"]["jobs"]["count"], 100);
    assert_eq!(
        batch["target"]["jobs"]["first"],
        stored["jobs"][0]["number"]
    );
    let waits = &stored["jobs"][0]["id"];
    client.ok("job.update", json!({"job": waits, "priority": 5}));
    client.ok("job.control", json!({"job": waits, "action": "cancel"}));
    client.ok("job.retry", json!({"job": job["id"]}));
    client.ok("job.delete", json!({"job": waits}));
    client.ok("job.prune", json!({"state": "cancelled", "dry_run": false}));
    client.ok(
        "queue.set",
        json!({"queue": "q", "concurrency": 3, "defaults": {"env": {"A": "env-secret"}}}),
    );
    client.ok("queue.delete", json!({"queue": "q"}));
    client.ok(
        "retention.set",
        json!({"rule": "r", "older_than_s": 9_999_999}),
    );
    client.ok("retention.delete", json!({"rule": "r"}));
    let job = json!({"argv": ["true"], "env": {"A": "env-secret"}});
    client.ok(
        "schedule.set",
        json!({"name": "s", "cron": "0 0 1 1 *", "job": job}),
    );
    client.ok("schedule.run", json!({"name": "s"}));
    client.ok("schedule.delete", json!({"name": "s"}));
    let token = client.ok("token.create", json!({"name": "t", "scopes": ["read"]}));
    client.ok("token.rotate", json!({"name": "t"}));
    client.ok("token.revoke", json!({"name": "t"}));
    client.ok("notice.test", json!({"argv": ["/bin/true"]}));
    let backup = server.scratch("backup");
    client.ok("server.backup", json!({"to": backup}));
    let job = json!({"argv": ["true"], "env": {"A": "env-secret"}, "stdin": "stdin-secret"});
    let secret = client.submit(job);
    client.finished(&secret);

    let entries = trail(&mut client);
    let seqs: Vec<u64> = entries
        .iter()
        .filter_map(|entry| entry["seq"].as_u64())
        .collect();
    assert_eq!(seqs, (1..=entries.len() as u64).collect::<Vec<_>>());
    for action in [
        "server.start",
        "job.submit",
        "job.pause",
        "job.resume",
        "job.input",
        "job.signal",
        "job.kill",
        "job.cancel",
        "job.end",
        "job.update",
        "job.retry",
        "job.delete",
        "job.remove",
        "queue.set",
        "queue.delete",
        "retention.set",
        "retention.delete",
        "schedule.set",
        "schedule.run",
        "schedule.delete",
        "token.create",
        "token.rotate",
        "token.revoke",
        "notice.test",
        "server.backup",
    ] {
        let found = entries.iter().find(|entry| entry["action"] == action);
        let found = found.unwrap_or_else(|| panic!("{action} is missing"));
        let is_ours = action == "server.start" || action == "job.end";
        let name = if is_ours { "server" } else { "admin" };
        assert_eq!(found["actor"]["name"], name, "{found}");
        assert_eq!(found["decision"], "allowed", "{found}");
        if !is_ours {
            let door = found["door"].as_str().expect("a door");
            assert!(["unix", "tcp"].contains(&door), "{found}");
        }
    }
    let text = json!(entries).to_string();
    let token = token["secret"].as_str().expect("a secret");
    for secret in ["typed-secret", "env-secret", "stdin-secret", token] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn a_stop_is_the_last_entry_and_a_start_goes_on() {
    let mut server = Server::start();
    server.stop();
    server.restart();
    let actions: Vec<Value> = trail(&mut server.connect())
        .iter()
        .map(|entry| entry["action"].clone())
        .collect();
    assert_eq!(actions, ["server.start", "server.stop", "server.start"]);
}

#[test]
fn refusals_of_a_client_are_counted_together() {
    let server = Server::with(&["--auth-timeout-s", "600"], &[]);
    let mut admin = server.connect();
    let made = admin.ok(
        "token.create",
        json!({"name": "reader", "scopes": ["read"]}),
    );
    let token = made["secret"].as_str().expect("a secret");
    let mut reader = Client::tcp(server.listen(), Some(token));
    for _ in 0..50 {
        reader.refused(-32002, "job.submit", json!({"argv": ["true"]}));
    }
    let mut guess = Client::tcp(server.listen(), None);
    for _ in 0..20 {
        guess.refused(
            -32001,
            "session.authenticate",
            json!({"token": "0".repeat(64)}),
        );
    }
    let counted = until("the entries", || {
        let entries = trail(&mut admin);
        let of = |action: &str, rule: &str| -> Vec<Value> {
            let entries = entries.iter().filter(|entry| {
                entry["decision"] == "refused"
                    && entry["action"] == action
                    && entry["result"]["rule"] == rule
            });
            entries.cloned().collect()
        };
        let submits = of("job.submit", "token.scope");
        let guesses = of("session.authenticate", "wrong_token");
        let is_there = !submits.is_empty() && !guesses.is_empty();
        is_there.then_some((submits, guesses))
    });
    for (entries, name) in [(&counted.0, "reader"), (&counted.1, "nobody")] {
        // One of the first second; the rest of them comes after a minute.
        assert_eq!(entries.len(), 1, "{entries:?}");
        let entry = &entries[0];
        assert_eq!(
            (&entry["actor"]["name"], &entry["peer"]),
            (&json!(name), &json!("127.0.0.1"))
        );
        assert!(entry["result"]["count"].as_u64() >= Some(1), "{entry}");
        assert!(entry["result"]["last"].as_i64() >= entry["result"]["first"].as_i64());
    }
}

#[test]
fn a_planned_stop_writes_all_refusals() {
    let mut server = Server::start();
    let made = server.connect().ok(
        "token.create",
        json!({"name": "reader", "scopes": ["read"]}),
    );
    let token = made["secret"].as_str().expect("a secret");
    let mut reader = Client::tcp(server.listen(), Some(token));
    for _ in 0..50 {
        reader.refused(-32002, "job.submit", json!({"argv": ["true"]}));
    }
    drop(reader);
    server.stop();
    server.restart();
    let entries = trail(&mut server.connect());
    let counts = entries
        .iter()
        .filter(|entry| entry["decision"] == "refused");
    let counts = counts.filter_map(|entry| entry["result"]["count"].as_u64());
    assert_eq!(counts.sum::<u64>(), 50);
}

#[test]
fn only_an_administrator_reads_the_trail() {
    let server = Server::start();
    let made = server.connect().ok(
        "token.create",
        json!({"name": "most", "scopes": ["read", "read.secrets", "submit", "control", "input", "queues"]}),
    );
    let token = made["secret"].as_str().expect("a secret");
    let mut most = Client::tcp(server.listen(), Some(token));
    let error = most.refused(-32002, "audit.read", json!({}));
    assert_eq!(error["data"]["scope"], "admin");
    let mut admin = server.connect();
    for wrong in [
        json!({"limit": 0}),
        json!({"limit": 1001}),
        json!({"since": "soon"}),
        json!({"x": 1}),
    ] {
        admin.refused(-32602, "audit.read", wrong);
    }
}

#[test]
fn a_rate_that_is_reached_is_a_refusal() {
    let server = Server::start();
    let mut admin = server.connect();
    let made = admin.ok(
        "token.create",
        json!({"name": "slow", "scopes": ["submit"], "rate": "1/h"}),
    );
    let token = made["secret"].as_str().expect("a secret");
    let mut slow = Client::tcp(server.listen(), Some(token));
    slow.ok("job.submit", json!({"argv": ["true"]}));
    slow.refused(-32005, "job.submit", json!({"argv": ["true"]}));
    let entry = until("the entry", || {
        let entries = trail(&mut admin);
        let mut refused = entries.into_iter();
        refused.rfind(|entry| entry["decision"] == "refused")
    });
    assert_eq!(
        (&entry["actor"]["name"], &entry["result"]["rule"]),
        (&json!("slow"), &json!("token.rate"))
    );
}

#[test]
fn names_that_mean_something_else_are_no_names_of_tokens() {
    let server = Server::start();
    let mut admin = server.connect();
    for name in ["server", "SERVER", "several", "others", "nobody", "Admin"] {
        let refused = admin.refused(
            -32602,
            "token.create",
            json!({"name": name, "scopes": ["read"]}),
        );
        assert_eq!(refused["data"]["key"], "name", "{name}");
    }
    admin.ok(
        "token.create",
        json!({"name": "servers", "scopes": ["read"]}),
    );
}

#[test]
fn settings_are_told_with_their_new_values() {
    let server = Server::start();
    let mut admin = server.connect();
    admin.ok(
        "queue.set",
        json!({"queue": "q", "paused": true, "pause_reason": "maintenance"}),
    );
    assert_eq!(
        newest(&mut admin, "queue.set")["result"]["pause_reason"],
        "maintenance"
    );
    admin.ok(
        "schedule.set",
        json!({"name": "s", "cron": "0 0 1 1 *", "overlap": "replace", "catch_up": "all", "job": {"argv": ["true"]}}),
    );
    let said = newest(&mut admin, "schedule.set")["result"].clone();
    assert_eq!(
        (&said["overlap"], &said["catch_up"]),
        (&json!("replace"), &json!("all"))
    );
}
