//! NewJob on the wire: what is refused as wrong, what as unsupported, and what is stored.

use serde_json::{Value, json};

use crate::harness::{Client, Server};

fn with(key: &str, value: Value) -> Value {
    let mut job = json!({"argv": ["true"]});
    job[key] = value;
    job
}

fn stored_nothing(client: &mut Client) {
    assert_eq!(client.ok("job.list", json!({}))["jobs"], json!([]));
}

#[test]
fn wrong_values_are_refused_and_store_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    let refused = [
        json!({}),
        json!({"argv": ["true"], "shell": "true"}),
        json!({"shell": 1}),
        json!({"shell": "a\u{0}b"}),
        with("argv", json!([])),
        with("argv", json!([""])),
        with("argv", json!("true")),
        with("argv", json!([1])),
        with("argv", json!(["a\u{0}b"])),
        with("cwd", json!("relative")),
        with("cwd", json!(7)),
        with("env", json!({"A": 1})),
        with("env", json!({"": "x"})),
        with("env", json!({"A=B": "x"})),
        with("env", json!(["A=B"])),
        with("umask", json!(18)),
        with("umask", json!("999")),
        with("priority", json!(1.5)),
        with("priority", json!("high")),
        with("timeout_s", json!(0)),
        with("timeout_s", json!(-1)),
        with("timeout_s", json!(1e18)),
        with("timeout_s", json!("5")),
        with("stall_timeout_s", json!(0)),
        with("grace_s", json!(-1)),
        with("grace_s", json!(1e18)),
        with("leftover", json!("maybe")),
        with("output", json!({"max_bytes": 0})),
        with("output", json!({"max_bytes": -1})),
        with("output", json!({"when_full": "explode"})),
        with("output", json!({"when_full": "drop_newest"})),
        with(
            "output",
            json!({"when_full": "drop_oldest", "max_bytes": (16 << 20) - 1}),
        ),
        with("interactive", json!("yes")),
        with("on_lost", json!("explode")),
        with("on_disconnect", json!("explode")),
        with("disconnect_delay_s", json!(-1)),
        with("output", json!({"colour": 1})),
        with("labels", json!(["a"])),
        with("labels", json!({"a": 1})),
        with("idempotency_key", json!(7)),
        with("colour", json!("blue")),
        with("Argv", json!(["true"])),
        with("tail", json!({"colour": 1})),
        with("tail", json!({"from": -1})),
        with("tail", json!({"encoding": "morse"})),
    ];
    for job in refused {
        let error = client.refused(-32602, "job.submit", job);
        assert!(error["data"]["kind"].is_string(), "{error}");
    }
    stored_nothing(&mut client);
}

#[test]
fn an_unknown_key_is_answered_with_the_known_ones() {
    let server = Server::start();
    let mut client = server.connect();
    let error = client.refused(-32602, "job.submit", with("colour", json!(1)));
    let message = error["message"].as_str().expect("a message");
    for word in ["colour", "argv", "shell", "timeout_s", "idempotency_key"] {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn what_comes_later_is_unsupported() {
    let server = Server::start();
    let mut client = server.connect();
    for (key, value) in [
        ("pty", json!(true)),
        ("pty", json!({"cols": 80, "rows": 24})),
        ("user", json!("nobody")),
        ("prompt", json!("p")),
    ] {
        let error = client.refused(-32007, "job.submit", with(key, value));
        assert_eq!(error["data"]["kind"], "unsupported");
        assert_eq!(error["data"]["key"], key);
    }
    stored_nothing(&mut client);
}

#[test]
fn the_queue_must_exist() {
    let server = Server::start();
    let mut client = server.connect();
    let error = client
        .call("job.submit", with("queue", json!("no-such-queue")))
        .expect_err("there is no such queue");
    let code = error["code"].as_i64();
    assert!(matches!(code, Some(-32602 | -32003)), "{error}");
    stored_nothing(&mut client);
}

#[test]
fn a_job_shows_its_keys_with_defaults_and_hides_values() {
    let server = Server::start();
    let mut client = server.connect();
    let reply = client.ok(
        "job.submit",
        json!({"argv": ["cat"], "env": {"SECRET": "s3cr3t"}, "stdin": "hidden"}),
    );
    assert_eq!(reply["created"], true);
    let job = client.finished(&reply["job"]);
    assert_eq!(job["argv"], json!(["cat"]));
    for (key, value) in [
        ("umask", json!("077")),
        ("queue", json!("default")),
        ("priority", json!(0)),
        ("grace_s", json!(10.0)),
        ("timeout_s", json!(null)),
        ("leftover", json!("kill")),
        ("labels", json!({})),
        ("env_names", json!(["SECRET"])),
        ("stdin_bytes", json!(6)),
        ("attempts", json!(1)),
        ("dropped_bytes", json!(0)),
        ("survivors", json!([])),
        ("survivors_unknown", json!(null)),
        ("leaked", json!(0)),
    ] {
        let same_number = job[key].is_number() && job[key].as_f64() == value.as_f64();
        assert!(same_number || job[key] == value, "{key}: {job}");
    }
    assert!(job["cwd"].as_str().is_some_and(|cwd| cwd.starts_with('/')));
    let view = job.to_string();
    assert!(
        !view.contains("s3cr3t") && !view.contains("hidden"),
        "{view}"
    );
    let whole = client.ok(
        "job.get",
        json!({"job": job["number"], "include": ["env", "stdin"]}),
    );
    assert_eq!(whole["env"], json!({"SECRET": "s3cr3t"}));
    assert_eq!(whole["stdin"], "hidden");
}

#[test]
fn times_are_utc_with_microseconds() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    let job = client.finished(&job);
    let mut before = String::new();
    for key in ["submitted_at", "started_at", "finished_at"] {
        let at = job[key].as_str().expect(key).to_owned();
        assert_eq!(at.len(), "2026-01-01T00:00:00.000000Z".len(), "{at}");
        assert!(at.ends_with('Z') && at.as_bytes()[19] == b'.', "{at}");
        assert!(at >= before, "{key} before its turn: {job}");
        before = at;
    }
}

#[test]
fn the_job_gets_exactly_what_it_was_given() {
    let server = Server::start();
    let mut client = server.connect();
    let place = server.scratch("place");
    std::fs::create_dir(&place).expect("a directory");
    let place = place.canonicalize().expect("a path");
    let job = client.submit(json!({
        "shell": "pwd; umask; cat; echo; printf '%s' \"$GIVEN\"; ls -l /proc/self/fd | wc -l",
        "cwd": place.to_str(), "umask": "027", "stdin": "läßt grüßen", "env": {"GIVEN": "ü\n"},
    }));
    let transcript = client.whole(&job);
    let text = String::from_utf8(transcript.bytes.clone()).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], place.to_str().expect("UTF-8"));
    assert_eq!(lines[1], "0027");
    assert_eq!(lines[2], "läßt grüßen");
    assert_eq!(lines[3], "ü");
    // 0, 1, 2, the directory that ls reads, and its line "total".
    assert_eq!(lines[4], "5", "{text}");
    transcript.verified();
}

#[test]
fn the_environment_is_clean() {
    let server = Server::with(&[], &[("CC_TEST_FOREIGN", "must not arrive")]);
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["/usr/bin/env"], "env": {"GIVEN": "1"}}));
    let text = String::from_utf8(client.whole(&job).bytes).expect("UTF-8");
    assert!(text.lines().any(|line| line == "GIVEN=1"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("PATH=")), "{text}");
    assert!(!text.contains("CC_TEST_FOREIGN"), "{text}");
    assert!(!text.contains(&server.token()), "{text}");
}

#[test]
fn an_unknown_key_of_a_megabyte_is_not_repeated_whole() {
    let server = Server::start();
    let mut client = server.connect();
    let key = "k".repeat(900 << 10);
    for method in ["session.authenticate", "job.get", "job.submit", "queue.set"] {
        let mut params = json!({"argv": ["true"]});
        params[&key] = json!(1);
        if method != "job.submit" {
            params.as_object_mut().expect("an object").remove("argv");
        }
        let error = client.refused(-32602, method, params);
        assert!(error.to_string().len() < 2000, "{method}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("known keys are"), "{message}");
    }
}

#[test]
fn a_job_whose_defaults_are_spelled_out_is_the_same_under_its_key() {
    let server = Server::start();
    let mut client = server.connect();
    let short = json!({"argv": ["true"], "idempotency_key": "k"});
    let first = client.ok("job.submit", short.clone())["job"].clone();
    let mut long = short;
    for key in [
        "cwd",
        "umask",
        "interactive",
        "labels",
        "queue",
        "priority",
        "grace_s",
        "leftover",
        "on_disconnect",
        "disconnect_delay_s",
        "output",
    ] {
        long[key] = first[key].clone();
    }
    long["env"] = json!({});
    let again = client.ok("job.submit", long.clone());
    assert_eq!(
        (&again["job"]["id"], &again["created"]),
        (&first["id"], &json!(false))
    );
    long["cwd"] = json!("/proc");
    client.refused(-32004, "job.submit", long);
}
