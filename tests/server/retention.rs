//! Retention: what a dry run says is what a run removes; output goes and the job stays; rules; a
//! kill in the middle; the space comes back; and submits go on meanwhile.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Client, Server, Transcript, emit, until_true};

/// More than goes into rows of the database.
const LARGE: u64 = 1 << 20;

fn large(seed: &str) -> Value {
    json!({"argv": [emit(), "--seed", seed, "--bytes", LARGE.to_string()],
        "labels": {"size": "large"}})
}

fn done(client: &mut Client, job: Value) -> Value {
    let job = client.submit(job);
    client.finished(&job)
}

/// Jobs that were cancelled before they started, each with several kilobytes.
fn cancelled(client: &mut Client, count: usize) -> Vec<i64> {
    client.ok("queue.set", json!({"queue": "held", "paused": true}));
    let job = |nth| json!({"argv": ["true", format!("planted-{nth:06}"), "x".repeat(3000)], "queue": "held"});
    let jobs: Vec<Value> = (0..count).map(job).collect();
    let jobs = jobs.chunks(200).flat_map(|jobs| {
        let stored = client.ok("job.submit_many", json!({"jobs": jobs}));
        stored["jobs"].as_array().expect("jobs").clone()
    });
    let numbers: Vec<i64> = jobs.filter_map(|job| job["number"].as_i64()).collect();
    assert_eq!(numbers.len(), count);
    for numbers in numbers.chunks(50) {
        let asked: Vec<i64> = numbers
            .iter()
            .map(|number| client.begin("job.control", json!({"job": number, "action": "cancel"})))
            .collect();
        for id in asked {
            assert_eq!(client.reply(id).expect("cancelled")["state"], "cancelled");
        }
    }
    numbers
}

fn numbers(pruned: &Value) -> Vec<i64> {
    let listed = pruned["listed"].as_array().expect("a list");
    listed
        .iter()
        .filter_map(|job| job["number"].as_i64())
        .collect()
}

fn all(client: &mut Client) -> Vec<i64> {
    let (mut found, mut params) = (Vec::new(), json!({"limit": 1000}));
    loop {
        let page = client.ok("job.list", params.clone());
        let jobs = page["jobs"].as_array().expect("jobs");
        found.extend(jobs.iter().filter_map(|job| job["number"].as_i64()));
        match page.get("next_cursor") {
            Some(cursor) => params["cursor"] = cursor.clone(),
            None => return found,
        }
    }
}

fn spool(server: &Server) -> Vec<String> {
    let files = fs::read_dir(server.data_dir().join("spool")).expect("the spool");
    files
        .map(|file| {
            file.expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

fn database_bytes(server: &Server) -> u64 {
    let path = server.data_dir().join("cc-executor.db");
    fs::metadata(path).expect("the database").len()
}

/// Whether a file of the data directory has this text.
fn holds(server: &Server, text: &str) -> bool {
    let files = fs::read_dir(server.data_dir()).expect("the directory");
    files.flatten().any(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with("cc-executor.db")
            && fs::read(file.path()).is_ok_and(|bytes| {
                let mut parts = bytes.windows(text.len());
                parts.any(|part| part == text.as_bytes())
            })
    })
}

#[test]
fn a_dry_run_says_what_a_run_removes_and_outputs_become_a_gap() {
    let server = Server::with(&["--segment-bytes", "65536"], &[]);
    let mut client = server.connect();
    let small = done(
        &mut client,
        json!({"shell": "echo needle; echo more >&2", "name": "small"}),
    );
    let big = done(&mut client, large("5"));
    let failed = done(&mut client, json!({"shell": "echo needle; exit 3"}));
    let running = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&running);
    assert!(spool(&server).len() > 10);

    for wrong in [
        json!({"dry_run": true}),
        json!({"older_than_s": 0}),
        json!({"older_than_s": "30d", "dry_run": false}),
        json!({"state": "running", "dry_run": false}),
        json!({"keep_newest": 1, "dry_run": false, "force": true}),
    ] {
        client.refused(-32602, "job.prune", wrong);
    }

    // Outputs: the same jobs in both, and the jobs stay.
    let filter = json!({"state": "succeeded", "older_than_s": 0, "outputs": true});
    let asked = |dry_run: bool| {
        let mut params = filter.clone();
        params["dry_run"] = json!(dry_run);
        params
    };
    let dry = client.ok("job.prune", asked(true));
    assert_eq!(client.get(&small), small, "nothing has happened");
    let run = client.ok("job.prune", asked(false));
    for key in ["jobs", "bytes", "listed", "outputs"] {
        assert_eq!(dry[key], run[key], "{key}");
    }
    assert_eq!(run["jobs"], 2);
    assert_eq!(run["bytes"], LARGE + 12);
    let left = spool(&server);
    assert!(left.iter().all(|file| file.starts_with("4.")), "{left:?}");
    for job in [&small, &big] {
        let end = job["output_bytes"].as_u64().expect("bytes");
        let mut expected = job.clone();
        expected["output_sha256"] = Value::Null;
        assert_eq!(client.get(job), expected);
        let gap = json!({"from": 0, "to": end, "reason": "retention"});
        let read = client.ok("job.read", json!({"job": job["id"], "from": 0}));
        assert_eq!(read["chunks"], json!([{"gap": gap}]));
        assert_eq!(
            (&read["next_offset"], &read["end"]),
            (&json!(end), &expected)
        );
        let read = client.ok("job.read", json!({"job": job["id"], "from": 5}));
        let rest = json!({"from": 5, "to": end, "reason": "retention"});
        assert_eq!(read["chunks"], json!([{"gap": rest}]));
        let transcript = client.whole(job);
        assert_eq!((transcript.bytes.len(), transcript.gaps.len()), (0, 1));
        let verified = client.ok("transcript.verify", json!({"job": job["id"]}));
        assert_eq!(verified["intact"], true, "{verified}");
        assert_eq!(verified["output_sha256"], Value::Null);
        assert_eq!(verified["gaps"], json!([gap]));
        let tail = client.ok("job.tail", json!({"job": job["id"], "last_lines": 3}));
        let from = tail["from"].as_u64().expect("an offset");
        let mut transcript = Transcript::from(from);
        client.follow(
            tail["subscription"].as_u64().expect("a number"),
            &mut transcript,
        );
    }
    let found = client.ok("history.search", json!({"text": "needle"}));
    assert_eq!(found["hits"].as_array().map(Vec::len), Some(1), "{found}");
    assert!(
        found["missing_bytes"].as_u64() >= Some(LARGE + 12),
        "{found}"
    );
    let again = client.ok("job.prune", asked(false));
    assert_eq!((&again["jobs"], &again["bytes"]), (&json!(0), &json!(0)));
    let retried = client.ok("job.retry", json!({"job": small["id"]}));
    assert_eq!(client.finished(&retried)["output_bytes"], 12);

    // Jobs: the newest stays.
    let filter = json!({"keep_newest": 1, "dry_run": true});
    let dry = client.ok("job.prune", filter);
    let run = client.ok("job.prune", json!({"keep_newest": 1, "dry_run": false}));
    assert_eq!(dry["listed"], run["listed"]);
    let expected = [&failed, &big, &small].map(|job| job["number"].as_i64().expect("a number"));
    assert_eq!(numbers(&run), expected);
    assert_eq!(
        all(&mut client),
        [5, 4],
        "one final job and the running one are left"
    );
    client.control(&running, "kill");
}

#[test]
fn rules_apply_by_themselves_and_nothing_is_kept_that_they_refuse() {
    let server = Server::with(
        &["--retention-after-ends", "1", "--segment-bytes", "65536"],
        &[],
    );
    let mut client = server.connect();
    for wrong in [
        json!({"rule": "r"}),
        json!({"rule": "r", "keep_newest": -1}),
        json!({"rule": "r", "keep_newest": 1, "state": "queued"}),
        json!({"rule": "r", "keep_newest": 1, "scope": "all"}),
        json!({"keep_newest": 1}),
    ] {
        client.refused(-32602, "retention.set", wrong);
    }
    assert_eq!(client.ok("retention.list", json!({})), json!({"rules": []}));
    let first = done(
        &mut client,
        json!({"shell": "echo one", "labels": {"team": "a"}}),
    );
    done(&mut client, json!({"shell": "exit 1"}));

    // By count, for one label: the second job of the label pushes the first one out.
    let rule = json!({"rule": "count", "scope": "jobs", "labels": {"team": "a"}, "keep_newest": 1});
    assert_eq!(client.ok("retention.set", rule.clone()), rule);
    let second = done(
        &mut client,
        json!({"shell": "echo two", "labels": {"team": "a"}}),
    );
    until_true("the older one to go", || {
        client.call("job.get", json!({"job": first["id"]})).is_err()
    });
    assert_eq!(client.get(&second), second);

    // By bytes, outputs alone: of two large outputs the newer stays.
    let (older, newer) = (done(&mut client, large("1")), done(&mut client, large("2")));
    let rule = json!({"rule": "bytes", "scope": "outputs", "keep_bytes": LARGE + 4096});
    client.ok("retention.set", rule.clone());
    until_true("the older output to go", || {
        client.get(&older)["output_sha256"].is_null()
    });
    assert_eq!(client.get(&newer), newer);
    let listed = client.ok("retention.list", json!({}));
    assert_eq!(listed["rules"][0], rule);
    assert_eq!(listed["rules"].as_array().map(Vec::len), Some(2));

    // By age and state.
    client.ok(
        "retention.set",
        json!({"rule": "age", "state": "failed", "older_than_s": 0}),
    );
    until_true("failed jobs to go", || {
        let failed = client.ok("job.list", json!({"state": "failed"}));
        failed["jobs"] == json!([])
    });
    for rule in ["age", "bytes", "count"] {
        client.ok("retention.delete", json!({"rule": rule}));
        client.refused(-32003, "retention.delete", json!({"rule": rule}));
    }
    let usage = client.ok("server.disk_usage", json!({}));
    assert_eq!(usage["jobs"][0]["number"], newer["number"]);
    assert_eq!(
        usage["spool_bytes"].as_u64().map(|bytes| bytes >= LARGE),
        Some(true)
    );
    assert_eq!(usage["labels"][0]["value"], "large");
    client.refused(-32602, "server.disk_usage", json!({"limit": 0}));
    assert!(client.ok("server.info", json!({}))["disk"]["bytes"].as_u64() >= Some(LARGE));
}

/// Submits go on while jobs are removed, a kill in the middle leaves no half of one, and what was
/// removed is in no file afterwards.
#[test]
fn a_prune_holds_nobody_up_survives_a_kill_and_leaves_nothing() {
    let mut server = Server::with(&["--segment-bytes", "65536"], &[]);
    let mut client = server.connect();
    let large: Vec<Value> = ["1", "2", "3"].map(large).into();
    let large: Vec<Value> = large
        .into_iter()
        .map(|job| done(&mut client, job))
        .collect();
    let jobs = cancelled(&mut client, 1200);
    let whole = jobs.len() + large.len();
    let before = database_bytes(&server);
    assert!(holds(&server, "planted-"));

    // The oldest first: the large ones are among the first that go.
    let prune = json!({"older_than_s": 0, "dry_run": false});
    let mut other = server.connect();
    other.begin("job.prune", prune.clone());
    let mut submitted = 0;
    until_true("the prune to be in the middle", || {
        let job = json!({"argv": ["true"], "queue": "held", "labels": {"beside": "prune"}});
        client.submit(job);
        submitted += 1;
        let counts = client.ok("server.info", json!({}))["counts"].clone();
        counts["cancelled"].as_u64() < Some(jobs.len() as u64 - 100)
    });
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    let left = all(&mut client);
    assert!(left.len() < whole + submitted, "some are gone");
    for job in &large {
        match client.call("job.get", json!({"job": job["id"]})) {
            Ok(found) => {
                assert_eq!(found, *job);
                client.whole(job);
            }
            Err(error) => assert_eq!(error["code"], -32003),
        }
    }
    let is_there = |file: &String| {
        let number = file
            .split('.')
            .next()
            .and_then(|number| number.parse::<i64>().ok());
        number.is_some_and(|number| left.contains(&number))
    };
    until_true("files of removed jobs to go", || {
        spool(&server).iter().all(is_there)
    });

    let pruned = client.ok("job.prune", prune);
    assert_eq!(pruned["jobs"], left.len() - submitted);
    assert_eq!(spool(&server), [""; 0]);
    let waiting = client.ok(
        "job.list",
        json!({"labels": {"beside": "prune"}, "limit": 1000}),
    );
    assert_eq!(waiting["jobs"].as_array().map(Vec::len), Some(submitted));
    until_true("the space to be returned", || {
        database_bytes(&server) < before / 2
    });
    until_true("nothing to be left", || !holds(&server, "planted-"));
    for job in waiting["jobs"].as_array().expect("jobs") {
        client.control(job, "cancel");
    }
}
