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
