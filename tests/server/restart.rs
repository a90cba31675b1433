//! SIGKILL of the server or of a shim, and what a new server makes of it.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Server, Transcript, assert_bytes, content, emit, until, until_true};

#[test]
fn a_tail_goes_on_at_its_offset_over_kills_of_the_server() {
    let mut server = Server::start();
    let mut client = server.connect();
    // 6 MB in about six seconds: more than one segment.
    let argv = json!([
        emit(),
        "--seed",
        "21",
        "--bytes",
        "6000000",
        "--err-bytes",
        "100000",
        "--chunk",
        "1:8192",
        "--pause-us",
        "4000"
    ]);
    let job = client.submit(server.marked(json!({"argv": argv})));
    let mut transcript = Transcript::default();
    for kill in 1..=3 {
        transcript.resume();
        let from = json!({"job": job["id"], "from": transcript.next_offset});
        let subscription = client.tail(from);
        while transcript.bytes.len() < kill * 1_000_000 {
            client.step(subscription, &mut transcript);
        }
        server.kill_9();
        server.restart();
        client = server.connect();
    }
    transcript.resume();
    let from = json!({"job": job["id"], "from": transcript.next_offset});
    let subscription = client.tail(from);
    client.follow(subscription, &mut transcript);
    assert_bytes(
        &transcript.streams[0],
        &content(21, 0, 6_000_000, false),
        "stdout",
    );
    assert_bytes(
        &transcript.streams[1],
        &content(21, 1, 100_000, false),
        "stderr",
    );
    let end = transcript.verified();
    assert_eq!(end["state"], "succeeded");
    assert_eq!(end["attempts"], 1);
    assert_bytes(
        &client.download(&job, 500_000),
        &transcript.bytes,
        "job.read",
    );
}

#[test]
fn a_job_that_ended_while_no_server_ran_ended_as_it_did() {
    let mut server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let done = server.scratch("done");
    let line = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.02; done; echo after; echo >{}; exit 9",
        gate.display(),
        done.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    client.started(&job);
    server.kill_9();
    fs::write(&gate, "").expect("the gate");
    until_true("the job's end", || {
        done.exists() && server.job_processes().is_empty()
    });
    server.restart();
    let mut client = server.connect();
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"before\nafter\n");
    let end = transcript.verified();
    assert_eq!(end["reason"], "exit_code");
    assert_eq!(end["exit_code"], 9);
    assert_eq!(end["attempts"], 1);
}

#[test]
fn an_acknowledged_submit_survives_a_kill_at_once() {
    let mut server = Server::start();
    let ledger = server.scratch("ledger");
    let mut jobs = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect();
        let line = format!("echo start >> {}", ledger.display());
        jobs.push(client.submit(json!({"shell": line, "idempotency_key": jobs.len().to_string()})));
        server.kill_9();
        server.restart();
    }
    let mut client = server.connect();
    for job in &jobs {
        let end = client.finished(job);
        assert_eq!(end["state"], "succeeded", "{end}");
        assert_eq!(end["attempts"], 1, "void attempts count nowhere: {end}");
    }
    let starts = fs::read_to_string(&ledger).expect("the ledger");
    assert_eq!(starts.lines().count(), jobs.len(), "each ran exactly once");
}

#[test]
fn a_pause_outlives_the_server() {
    let mut server = Server::start();
    let mut client = server.connect();
    let line = "echo ready; while :; do echo tick; sleep 0.02; done";
    let job = client.submit(server.marked(json!({"shell": line})));
    client.started(&job);
    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    let paused = client.get(&job);
    assert_eq!(paused["state"], "paused");
    let from = json!({"job": job["id"], "from": 0, "max_bytes": 524_288});
    let next = client.ok("job.read", from)["next_offset"].clone();
    let silence = json!({"job": job["id"], "from": next, "wait_ms": 500});
    assert_eq!(client.ok("job.read", silence)["chunks"], json!([]));
    client.control(&job, "resume");
    let more = json!({"job": job["id"], "from": next, "wait_ms": 60_000});
    assert_ne!(client.ok("job.read", more)["chunks"], json!([]));
    client.control(&job, "cancel");
    assert_eq!(client.finished(&job)["state"], "cancelled");
}

#[test]
fn a_cancel_outlives_the_server() {
    let mut server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--ignore-term", "--bytes", "1", "--hold", "1000"]);
    let job = client.submit(server.marked(json!({"argv": argv, "grace_s": 1})));
    client.started(&job);
    client.control(&job, "cancel");
    server.kill_9();
    server.restart();
    let end = server.connect().finished(&job);
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["stop"]["cause"], "cancel");
    assert_eq!(server.job_processes(), Vec::<i32>::new());
}

#[test]
fn queued_jobs_are_still_queued_and_then_run() {
    let mut server = Server::start();
    let mut client = server.connect();
    let mut jobs: Vec<Value> = Vec::new();
    until("a job that has to wait", || {
        jobs.push(client.submit(server.marked(json!({"shell": "sleep 2; echo done"}))));
        let params = json!({"jobs": [jobs.last()?["id"]], "until": "running", "timeout_s": 0.5});
        (client.ok("job.wait", params)["met"] == false).then_some(())
    });
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    for job in &jobs {
        let transcript = client.whole(job);
        assert_eq!(transcript.bytes, b"done\n");
        assert_eq!(transcript.verified()["state"], "succeeded");
    }
}

#[test]
fn a_job_whose_shim_dies_is_lost_and_its_tree_is_gone() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "31",
        "--bytes",
        "50000",
        "--grandchild",
        "1000",
        "--hold",
        "1000"
    ]);
    let job = client.submit(server.marked(json!({"argv": argv})));
    let mut transcript = Transcript::default();
    let subscription = client.tail(json!({"job": job["id"]}));
    while transcript.bytes.len() < 50_000 {
        client.step(subscription, &mut transcript);
    }
    server.kill_shim();
    client.follow(subscription, &mut transcript);
    assert_bytes(
        &transcript.bytes,
        &content(31, 0, 50_000, false),
        "what was shown",
    );
    let end = transcript.verified();
    assert_eq!(end["state"], "failed");
    assert_eq!(end["reason"], "lost");
    assert_eq!(end["exit_code"], Value::Null);
    assert_eq!(end["signal"], Value::Null);
    assert_eq!(end["survivors"], json!([]));
    until_true("the tree to be gone", || server.job_processes().is_empty());
    // The next job gets a new shim.
    let next = client.submit(json!({"argv": ["true"]}));
    assert_eq!(client.finished(&next)["state"], "succeeded");
}

#[test]
fn a_shim_that_dies_with_its_server_leaves_a_lost_job() {
    let mut server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "32", "--bytes", "5000", "--hold", "1000"]);
    let job = client.submit(server.marked(json!({"argv": argv})));
    let read = json!({"job": job["id"], "from": 4999, "wait_ms": 60_000});
    until_true("the output", || {
        client
            .call("job.read", read.clone())
            .is_ok_and(|r| r["next_offset"] == 5000)
    });
    server.kill_9();
    server.kill_shim();
    server.restart();
    let mut client = server.connect();
    let transcript = client.whole(&job);
    assert_bytes(
        &transcript.bytes,
        &content(32, 0, 5000, false),
        "what was shown",
    );
    let end = transcript.verified();
    assert_eq!(end["reason"], "lost");
    assert_eq!(end["attempts"], 1);
    until_true("the tree to be gone", || server.job_processes().is_empty());
}

#[test]
fn a_final_job_is_the_same_after_a_restart() {
    let mut server = Server::start();
    let mut client = server.connect();
    let small = client.submit(json!({"argv": [emit(), "--seed", "41", "--bytes", "1000"]}));
    let large = client.submit(
        json!({"argv": [emit(), "--seed", "42", "--bytes", "9000000",
                                              "--chunk", "65536"]}),
    );
    let before = [client.finished(&small), client.finished(&large)];
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    for (job, seed) in before.iter().zip([41, 42]) {
        assert_eq!(client.get(job), *job);
        let transcript = client.whole(job);
        let length = job["output_bytes"].as_u64().expect("a length");
        assert_bytes(
            &transcript.bytes,
            &content(seed, 0, length, false),
            "the output",
        );
        assert_eq!(transcript.verified(), job);
    }
}

#[test]
fn idempotency_keys_outlive_the_server() {
    let mut server = Server::start();
    let job = json!({"argv": ["true"], "idempotency_key": "k"});
    let first = server.connect().ok("job.submit", job.clone());
    server.kill_9();
    server.restart();
    let second = server.connect().ok("job.submit", job);
    assert_eq!(second["created"], false);
    assert_eq!(first["job"]["id"], second["job"]["id"]);
}

#[test]
fn every_offset_that_was_shown_is_accepted_when_the_server_is_ready() {
    let mut server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "51",
        "--bytes",
        "300000",
        "--hold",
        "1000"
    ]);
    let job = client.submit(server.marked(json!({"argv": argv})));
    let mut transcript = Transcript::default();
    let subscription = client.tail(json!({"job": job["id"]}));
    while transcript.bytes.len() < 300_000 {
        client.step(subscription, &mut transcript);
    }
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    let reply = client.ok("job.tail", json!({"job": job["id"], "from": 300_000}));
    assert_eq!(reply["from"], 300_000);
    assert_eq!(client.get(&job)["output_bytes"], 300_000);
}
