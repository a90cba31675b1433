//! `job.submit_many`: one commit for all, whole or not at all, whatever happens meanwhile.

use serde_json::{Value, json};

use crate::harness::{Client, Server, until_true};

fn batch(jobs: impl IntoIterator<Item = Value>) -> Value {
    json!({"jobs": jobs.into_iter().collect::<Vec<_>>()})
}

fn stored(client: &mut Client) -> u64 {
    let counts = client.ok("server.info", json!({}))["counts"].clone();
    let counts = counts.as_object().expect("counts").clone();
    counts.values().filter_map(Value::as_u64).sum()
}

#[test]
fn a_batch_is_answered_in_order_and_runs() {
    let server = Server::start();
    let mut client = server.connect();
    let jobs = (0..20).map(|n| json!({"shell": format!("echo {n}"), "name": format!("job-{n}")}));
    let reply = client.ok("job.submit_many", batch(jobs));
    let taken = reply["jobs"].as_array().expect("jobs").clone();
    assert_eq!(taken.len(), 20);
    for (n, job) in taken.iter().enumerate() {
        assert_eq!(job.as_object().expect("an object").len(), 4, "{job}");
        assert_eq!(job["number"], n + 1);
        assert_eq!(
            (&job["state"], &job["created"]),
            (&json!("queued"), &json!(true))
        );
        let whole = client.finished(job);
        assert_eq!(
            (&whole["name"], &whole["state"]),
            (&json!(format!("job-{n}")), &json!("succeeded"))
        );
        assert_eq!(client.whole(job).bytes, format!("{n}\n").as_bytes());
    }
    assert_eq!(client.ok("job.submit_many", batch([])), json!({"jobs": []}));
}

#[test]
fn a_refused_entry_is_named_and_nothing_is_stored() {
    let server = Server::start();
    let mut client = server.connect();
    let fine = || json!({"argv": ["true"]});
    let with = |key: &str, value: Value| {
        let mut job = fine();
        job[key] = value;
        job
    };
    let clash = |n: i64| json!({"argv": ["true"], "priority": n, "idempotency_key": "k"});
    for (code, index, jobs) in [
        (-32602, 1, vec![fine(), json!({})]),
        (-32602, 0, vec![json!("true"), fine()]),
        (-32602, 2, vec![fine(), fine(), with("colour", json!(1))]),
        (-32602, 0, vec![with("tail", json!({}))]),
        (-32602, 0, vec![with("argv", json!([]))]),
        (
            -32602,
            1,
            vec![fine(), with("after", json!([{"job": "#1"}]))],
        ),
        (-32007, 0, vec![with("pty", json!(true))]),
        (-32003, 1, vec![fine(), with("queue", json!("nowhere"))]),
        (-32004, 2, vec![fine(), clash(0), clash(1)]),
        (
            -32005,
            1,
            vec![fine(), json!({"argv": ["x".repeat(950 << 10)]})],
        ),
    ] {
        let error = client.refused(code, "job.submit_many", batch(jobs));
        assert_eq!(error["data"]["index"], index, "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.starts_with(&format!("jobs[{index}]: ")),
            "{message}"
        );
    }
    let later = batch([fine(), with("pty", json!(true))]);
    let error = client.refused(-32007, "job.submit_many", later);
    assert_eq!(error["data"]["key"], "pty");
    for wrong in [
        json!({}),
        json!({"jobs": 1}),
        json!({"jobs": {}}),
        json!({"jobs": [], "x": 1}),
    ] {
        client.refused(-32602, "job.submit_many", wrong);
    }
    assert_eq!(stored(&mut client), 0);
}

#[test]
fn the_number_of_jobs_has_a_bound_that_is_told() {
    let server = Server::with(&["--submit-many-max", "3"], &[]);
    let mut client = server.connect();
    let of = |count: usize| batch((0..count).map(|_| json!({"argv": ["true"]})));
    let error = client.refused(-32005, "job.submit_many", of(4));
    assert_eq!(error["data"]["limit"], "submit_many_max");
    assert_eq!(
        client.ok("server.info", json!({}))["limits"]["submit_many_max"],
        3
    );
    client.ok("job.submit_many", of(3));
    assert_eq!(stored(&mut client), 3);
}

#[test]
fn a_batch_may_be_handed_in_twice_under_its_keys() {
    let server = Server::start();
    let mut client = server.connect();
    let keyed = |n: i64| json!({"argv": ["true"], "idempotency_key": format!("k{n}")});
    let first = client.ok("job.submit_many", batch((0..50).map(keyed)));
    let again = client.ok("job.submit_many", batch((0..60).map(keyed)));
    for n in 0..60 {
        assert_eq!(again["jobs"][n]["created"], n >= 50);
        if n < 50 {
            assert_eq!(again["jobs"][n]["id"], first["jobs"][n]["id"]);
        }
    }
    assert_eq!(stored(&mut client), 60);
}

/// The most that one request may hold, and its reply, fit into one message each.
#[test]
fn ten_thousand_jobs_are_one_request() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "default", "paused": true}));
    let jobs = batch((0..10_000).map(|_| json!({"shell": ":"})));
    let reply = client.ok("job.submit_many", jobs.clone());
    assert_eq!(reply["jobs"].as_array().map(Vec::len), Some(10_000));
    assert_eq!(reply["jobs"][9_999]["number"], 10_000);
    let request = json!({"jsonrpc": "2.0", "id": "x".repeat(2000), "method": "job.submit_many",
                         "params": jobs});
    client.send(request.to_string());
    let refused = client
        .reply_to(&request["id"])
        .expect_err("no room for the reply");
    assert_eq!(refused["code"], -32005);
    assert_eq!(stored(&mut client), 10_000);
}

/// SIGKILL while the commit is being written, at several of its stages.
#[test]
fn a_kill_in_the_middle_leaves_all_or_nothing() {
    const JOBS: u64 = 10_000;
    for stage in 0..6 {
        let mut server = Server::start();
        let mut client = server.connect();
        client.ok("queue.set", json!({"queue": "default", "paused": true}));
        let wal = server.data_dir().join("cc-executor.db-wal");
        let written = || std::fs::metadata(&wal).map_or(0, |meta| meta.len());
        let before = written();
        let jobs = (0..JOBS).map(|n| json!({"shell": format!(": {n}")}));
        client.begin("job.submit_many", batch(jobs));
        until_true("so much of the commit", || {
            written() > before + stage * (256 << 10)
        });
        server.kill_9();
        server.restart();
        let now = stored(&mut server.connect());
        assert!(now == 0 || now == JOBS, "{now} jobs");
    }
}

#[test]
fn the_bound_of_arrays_and_objects_is_named_as_it_is_told() {
    let server = Server::start();
    let mut client = server.connect();
    let limits = client.ok("server.info", json!({}))["limits"].clone();
    for (method, key, count) in [
        ("job.submit_many", "jobs", 66_000),
        ("job.submit", "argv", 5000),
    ] {
        let error = client.refused(-32005, method, json!({key: vec![json!([]); count]}));
        let limit = error["data"]["limit"].as_str().expect("a limit");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(&limits[limit].to_string()), "{error}");
    }
}

fn part(jobs: impl IntoIterator<Item = Value>, part: usize, more: bool) -> Value {
    let jobs: Vec<Value> = jobs.into_iter().collect();
    json!({"jobs": jobs, "part": part, "more": more})
}

fn is_wrong_part(error: &Value) {
    assert_eq!(error["data"]["key"], "part", "{error}");
}

/// Five messages of almost a megabyte each; jobs name others across them.
#[test]
fn a_batch_in_parts_is_one_commit() {
    let server = Server::start();
    let mut client = server.connect();
    let padding = "x".repeat(850 << 10);
    let job = |n: usize| match n {
        0 => json!({"shell": "sleep 1000 #0"}),
        _ => {
            json!({"shell": format!(": {padding}"), "after": [{"job": "#0"}, {"job": format!("#{}", n - 1)}]})
        }
    };
    client.ok("job.submit_many", part([job(0)], 0, true));
    for n in 1..5 {
        let held = client.ok("job.submit_many", part([job(n)], n, true));
        assert_eq!(held, json!({"held": n + 1}));
    }
    assert_eq!(stored(&mut client), 0);
    let jobs = client.ok("job.submit_many", part([job(5)], 5, false))["jobs"].clone();
    assert_eq!(jobs.as_array().map(Vec::len), Some(6));
    let last = client.ok("job.get", json!({"job": jobs[5]["id"]}));
    assert_eq!(last["after"][0]["job"], jobs[0]["id"]);
    assert_eq!(last["after"][1]["job"], jobs[4]["id"]);
    // They are taken once.
    is_wrong_part(&client.refused(-32004, "job.submit_many", part([job(0)], 6, false)));
    assert_eq!(stored(&mut client), 6);
}

/// A lost session, a refusal, another first part and a skipped number: nothing of the parts is stored.
#[test]
fn parts_are_forgotten_unless_the_last_one_follows() {
    let mut server = Server::start();
    let mut client = server.connect();
    let fine = || [json!({"shell": ":"})];
    client.ok("job.submit_many", part(fine(), 0, true));
    let mut other = server.connect();
    is_wrong_part(&other.refused(-32004, "job.submit_many", part(fine(), 1, false)));

    let wrong = [
        json!({"shell": ":"}),
        json!({"shell": ":", "queue": "nowhere"}),
    ];
    let error = client.refused(-32003, "job.submit_many", part(wrong, 1, false));
    assert_eq!(error["data"]["index"], 2, "counted over all parts");
    is_wrong_part(&client.refused(-32004, "job.submit_many", part(fine(), 2, false)));

    client.ok("job.submit_many", part(fine(), 0, true));
    is_wrong_part(&client.refused(-32004, "job.submit_many", part(fine(), 3, true)));
    is_wrong_part(&client.refused(-32004, "job.submit_many", part(fine(), 1, true)));
    for (key, value) in [
        ("part", json!(-1)),
        ("part", json!("0")),
        ("more", json!(1)),
    ] {
        let mut params = part(fine(), 0, true);
        params[key] = value;
        let error = client.refused(-32602, "job.submit_many", params);
        assert_eq!(error["data"]["key"], key);
    }

    client.ok("job.submit_many", part(fine(), 0, true));
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    is_wrong_part(&client.refused(-32004, "job.submit_many", part(fine(), 1, false)));
    assert_eq!(stored(&mut client), 0);
    client.ok("job.submit_many", part(fine(), 0, false));
    assert_eq!(stored(&mut client), 1);
}

#[test]
fn defaults_fill_in_what_jobs_leave_out() {
    let server = Server::start();
    let mut client = server.connect();
    let defaults =
        json!({"cwd": "/", "env": {"A": "1", "B": "1"}, "labels": {"of": "all"}, "priority": 7});
    let jobs = [
        json!({"shell": "pwd; echo $A$B"}),
        json!({"shell": "pwd; echo $A$B", "cwd": "/tmp", "env": {"B": "2"}, "priority": null}),
    ];
    let params = json!({"defaults": defaults, "jobs": jobs});
    let stored = client.ok("job.submit_many", params)["jobs"].clone();
    for (n, output, priority) in [(0, "/\n11\n", 7), (1, "/tmp\n12\n", 0)] {
        let job = client.finished(&stored[n]);
        assert_eq!(client.whole(&stored[n]).bytes, output.as_bytes());
        assert_eq!(
            (&job["priority"], &job["labels"]),
            (&json!(priority), &json!({"of": "all"}))
        );
    }
    for (key, wrong) in [
        ("defaults", json!([])),
        ("defaults.idempotency_key", json!({"idempotency_key": "k"})),
        ("defaults.tail", json!({"tail": {}})),
        ("colour", json!({"colour": "red"})),
    ] {
        let params = json!({"defaults": wrong, "jobs": [{"shell": ":"}]});
        let error = client.refused(-32602, "job.submit_many", params);
        assert_eq!(error["data"]["key"], key, "{error}");
    }
}

/// A small request may describe much: by its own defaults, or by those of a queue.
#[test]
fn the_bytes_of_a_commit_have_a_bound_that_is_told() {
    let server = Server::with(&["--submit-many-bytes-max", "1048576"], &[]);
    let mut client = server.connect();
    let limits = client.ok("server.info", json!({}))["limits"].clone();
    assert_eq!(limits["submit_many_bytes_max"], 1 << 20);
    let env = json!({"LONG": "x".repeat(10_000)});
    let jobs = vec![json!({"shell": ":"}); 200];
    client.ok(
        "queue.set",
        json!({"queue": "long", "paused": true, "defaults": {"env": env}}),
    );
    for params in [
        json!({"jobs": jobs, "defaults": {"env": env}}),
        json!({"jobs": jobs, "defaults": {"queue": "long"}}),
    ] {
        let error = client.refused(-32005, "job.submit_many", params);
        assert_eq!(error["data"]["limit"], "submit_many_bytes_max", "{error}");
        assert_eq!(
            error["data"]["index"], 104,
            "the first one that does not fit"
        );
    }
    assert_eq!(stored(&mut client), 0);
    let params = json!({"jobs": jobs[..100], "defaults": {"env": env, "queue": "long"}});
    client.ok("job.submit_many", params);
    assert_eq!(stored(&mut client), 100);
}

#[test]
fn parts_that_wait_have_a_bound_that_is_told() {
    let server = Server::with(
        &["--held-bytes-max", "4194304", "--submit-many-max", "5"],
        &[],
    );
    let mut client = server.connect();
    let limits = client.ok("server.info", json!({}))["limits"].clone();
    assert_eq!(limits["submit_many_parts_bytes_max"], 2 << 20);
    let long = || [json!({"shell": format!(": {}", "x".repeat(800 << 10))})];
    for n in 0..2 {
        client.ok("job.submit_many", part(long(), n, true));
    }
    let error = client.refused(-32005, "job.submit_many", part(long(), 2, true));
    assert_eq!(error["data"]["limit"], "submit_many_parts_bytes_max");
    let short = |jobs| vec![json!({"shell": ":"}); jobs];
    client.ok("job.submit_many", part(short(3), 0, true));
    let error = client.refused(-32005, "job.submit_many", part(short(3), 1, true));
    assert_eq!(error["data"]["limit"], "submit_many_max");
    client.ok("job.submit_many", part(short(3), 0, true));
    let error = client.refused(-32005, "job.submit_many", part(short(3), 1, false));
    assert_eq!(error["data"]["limit"], "submit_many_max");
    assert_eq!(stored(&mut client), 0);
}

/// Two commits of the most bytes, one after the other.
#[test]
fn the_largest_commits_keep_the_log_within_its_bound() {
    let server = Server::with(&["--wal-bytes-max", "16777216"], &[]);
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "default", "paused": true}));
    let wal = server.data_dir().join("cc-executor.db-wal");
    let env = json!({"LONG": "x".repeat(7_000)});
    let jobs = vec![json!({"shell": ":"}); 1_100];
    for nth in 1..=4 {
        client.ok(
            "job.submit_many",
            json!({"jobs": jobs, "defaults": {"env": env}}),
        );
        let log = std::fs::metadata(&wal).map_or(0, |meta| meta.len());
        assert!(log <= 16 << 20, "{log} bytes after commit {nth}");
    }
}
