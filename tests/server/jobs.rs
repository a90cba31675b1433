//! `job.get`, `job.list`, and idempotency keys.

use std::{collections::BTreeSet, thread};

use serde_json::{Value, json};

use crate::harness::Server;

fn numbers(page: &Value) -> Vec<i64> {
    let jobs = page["jobs"].as_array().expect("jobs");
    jobs.iter()
        .map(|job| job["number"].as_i64().expect("a number"))
        .collect()
}

#[test]
fn a_job_is_named_by_number_by_digits_and_by_id() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    client.finished(&job);
    let whole = client.get(&job);
    for name in [
        job["id"].clone(),
        job["number"].clone(),
        json!(job["number"].to_string()),
    ] {
        assert_eq!(client.ok("job.get", json!({"job": name})), whole);
    }
    for (code, name) in [
        (-32003, json!(999_999)),
        (-32003, json!("999999")),
        (-32003, json!("00000000-0000-7000-8000-000000000000")),
        (-32602, json!("nonsense")),
        (-32602, json!(1.5)),
        (-32602, json!(null)),
        (-32602, json!([1])),
    ] {
        let error = client.refused(code, "job.get", json!({"job": name}));
        assert!(error["data"]["kind"].is_string());
    }
    client.refused(-32602, "job.get", json!({}));
    client.refused(-32602, "job.get", json!({"job": 1, "colour": 1}));
    client.refused(-32602, "job.get", json!({"job": 1, "include": ["secrets"]}));
}

#[test]
fn a_list_tells_the_output_of_running_jobs_as_it_stands() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "printf hello; exec sleep 1000";
    let job = client.submit(server.marked(json!({"shell": line})));
    let first = json!({"job": job["id"], "from": 0, "wait_ms": 60_000});
    assert_eq!(client.ok("job.read", first)["next_offset"], 5);
    let page = client.ok("job.list", json!({"state": "running"}));
    assert_eq!(page["jobs"][0]["output_bytes"], 5);
}

#[test]
fn lists_are_newest_first_and_filtered() {
    let server = Server::start();
    let mut client = server.connect();
    for n in 0..6 {
        let label = ["even", "odd"][n % 2];
        let code = (n / 3).to_string();
        let job = client.submit(json!({
            "argv": ["sh", "-c", "exit $0", code], "name": format!("job-{n}"),
            "labels": {"kind": label, "all": "yes"},
        }));
        client.finished(&job);
    }
    let mut list = |filter: Value| numbers(&client.ok("job.list", filter));
    let all = list(json!({}));
    assert_eq!(all.len(), 6);
    assert!(all.is_sorted_by(|a, b| a > b), "{all:?}");
    let by = |indices: &[usize]| -> Vec<i64> { indices.iter().map(|i| all[5 - i]).collect() };
    assert_eq!(list(json!({"state": "succeeded"})), by(&[2, 1, 0]));
    assert_eq!(list(json!({"state": ["failed"]})), by(&[5, 4, 3]));
    assert_eq!(list(json!({"state": ["failed", "succeeded"]})), all);
    assert_eq!(list(json!({"state": "running"})), Vec::<i64>::new());
    assert_eq!(list(json!({"labels": {"kind": "odd"}})), by(&[5, 3, 1]));
    assert_eq!(
        list(json!({"labels": {"kind": "odd", "all": "no"}})),
        Vec::<i64>::new()
    );
    assert_eq!(list(json!({"name": "job-2"})), by(&[2]));
    assert_eq!(list(json!({"queue": "default"})), all);
    assert_eq!(list(json!({"queue": "interactive"})), Vec::<i64>::new());
    assert_eq!(list(json!({"limit": 2})), by(&[5, 4]));
    assert_eq!(
        list(json!({"since": "2100-01-01T00:00:00Z"})),
        Vec::<i64>::new()
    );
    assert_eq!(list(json!({"since": "2000-01-01T00:00:00Z"})), all);
}

#[test]
fn pages_follow_each_other_without_hole_or_repeat() {
    let server = Server::start();
    let mut client = server.connect();
    for _ in 0..7 {
        client.submit(json!({"argv": ["true"]}));
    }
    let mut seen = Vec::new();
    let mut params = json!({"limit": 3});
    loop {
        let page = client.ok("job.list", params.clone());
        seen.extend(numbers(&page));
        // Newer jobs do not shift the pages.
        client.submit(json!({"argv": ["true"]}));
        match page.get("next_cursor").filter(|cursor| !cursor.is_null()) {
            Some(cursor) => params["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(seen, (1..=7).rev().collect::<Vec<i64>>());
}

#[test]
fn wrong_filters_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    for filter in [
        json!({"state": "sleeping"}),
        json!({"state": ["running", "sleeping"]}),
        json!({"limit": 0}),
        json!({"limit": 1001}),
        json!({"limit": "1"}),
        json!({"labels": ["a"]}),
        json!({"since": "yesterday"}),
        json!({"cursor": "nonsense"}),
        json!({"colour": 1}),
    ] {
        client.refused(-32602, "job.list", filter);
    }
}

#[test]
fn a_long_list_stays_below_one_message() {
    let server = Server::start();
    let mut client = server.connect();
    let name = "n".repeat(1000);
    let labels = json!({"long": "v".repeat(4000)});
    for _ in 0..300 {
        client.submit(json!({"argv": ["true"], "name": name, "labels": labels}));
    }
    let mut seen = Vec::new();
    let mut params = json!({"limit": 1000});
    loop {
        // The harness refuses any message over 1 MiB.
        let page = client.ok("job.list", params.clone());
        seen.extend(numbers(&page));
        match page.get("next_cursor").filter(|cursor| !cursor.is_null()) {
            Some(cursor) => params["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(seen, (1..=300).rev().collect::<Vec<i64>>());
}

#[test]
fn the_same_key_and_job_are_one_job() {
    let server = Server::start();
    let mut client = server.connect();
    let job = json!({"argv": ["echo", "once"], "idempotency_key": "k"});
    let first = client.ok("job.submit", job.clone());
    assert_eq!(first["created"], true);
    let second = client.ok("job.submit", job.clone());
    assert_eq!(second["created"], false);
    assert_eq!(first["job"]["id"], second["job"]["id"]);
    client.finished(&first["job"]);
    // Defaults written out, and a tail, make no other job.
    let third = client.ok(
        "job.submit",
        json!({"argv": ["echo", "once"], "idempotency_key": "k", "queue": "default",
               "priority": 0, "grace_s": 10, "labels": {}, "tail": {}}),
    );
    assert_eq!(third["job"]["id"], first["job"]["id"]);
    assert_eq!(third["job"]["state"], "succeeded");
    assert_eq!(numbers(&client.ok("job.list", json!({}))).len(), 1);
}

#[test]
fn the_same_key_for_another_job_is_a_conflict() {
    let server = Server::start();
    let mut client = server.connect();
    client.submit(json!({"argv": ["true"], "idempotency_key": "k"}));
    for other in [
        json!({"argv": ["false"], "idempotency_key": "k"}),
        json!({"argv": ["true"], "idempotency_key": "k", "priority": 1}),
        json!({"argv": ["true"], "idempotency_key": "k", "env": {"A": "1"}}),
        json!({"argv": ["true"], "idempotency_key": "k", "stdin": ""}),
    ] {
        let error = client.refused(-32004, "job.submit", other);
        assert_eq!(error["data"]["kind"], "conflict");
    }
    assert_eq!(numbers(&client.ok("job.list", json!({}))).len(), 1);
}

#[test]
fn fifty_submits_with_one_key_at_once_are_one_job() {
    let server = Server::start();
    let ledger = server.scratch("ledger");
    let line = format!("echo ran >> {}", ledger.display());
    let submit = || {
        let mut client = server.connect();
        let job = json!({"shell": line, "idempotency_key": "the one"});
        let reply = client.ok("job.submit", job);
        client.finished(&reply["job"]);
        (
            reply["created"] == true,
            reply["job"]["id"].as_str().expect("an id").to_owned(),
        )
    };
    let replies: Vec<(bool, String)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..50).map(|_| scope.spawn(submit)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a submit"))
            .collect()
    });
    assert_eq!(replies.iter().filter(|(created, _)| *created).count(), 1);
    let ids: BTreeSet<&String> = replies.iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), 1);
    let ran = std::fs::read_to_string(&ledger).expect("the ledger");
    assert_eq!(ran, "ran\n");
}
