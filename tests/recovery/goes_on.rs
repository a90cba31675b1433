//! What was asked of a job before its server was killed goes on behind the adoption: waits, timeouts,
//! pauses, stdin, and two hundred jobs at once that do not notice.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::harness::{Client, Server, assert_bytes, content, emit, until_true};

/// More jobs than any machine of the tests has cores.
const CROWD: usize = 200;

/// Kills the server; the next one is ready, and this is a session on it.
fn kill_and_restart(server: &mut Server) -> Client {
    server.kill_9();
    server.restart();
    server.connect()
}

/// A job that writes whatever it is sent.
fn cat(server: &Server, client: &mut Client, more: Value) -> Value {
    let mut job = json!({"shell": "echo ready; exec cat", "interactive": true});
    for (key, value) in more.as_object().expect("an object") {
        job[key] = value.clone();
    }
    let job = client.submit(server.marked(job));
    let ready = json!({"jobs": [job["id"]], "until": {"bytes": 6}, "timeout_s": 60});
    assert_eq!(client.ok("job.wait", ready)["met"], true);
    job
}

fn input(client: &mut Client, job: &Value, data: &str, eof: bool) {
    client.ok(
        "job.input",
        json!({"job": job["id"], "data": data, "eof": eof}),
    );
}

#[test]
fn every_kind_of_wait_is_met_by_an_adopted_job() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = cat(&server, &mut client, json!({}));
    let mut client = kill_and_restart(&mut server);
    let mut waiting = server.connect();
    let waits = [
        json!({"regex": "ready\\nfirst"}),
        json!({"regex": "first"}),
        json!({"bytes": 11}),
        json!("final"),
    ];
    let params = |until: &Value| json!({"jobs": [job["id"]], "until": until, "timeout_s": 60});
    let asked: Vec<_> = waits
        .iter()
        .map(|until| waiting.begin("job.wait", params(until)))
        .collect();
    // In order: it is answered when those before it have been begun.
    waiting.still_works();
    input(&mut client, &job, "first", false);
    for id in &asked[..3] {
        assert_eq!(waiting.reply(*id).expect("a reply")["met"], true);
    }
    let quiet = params(&json!({"idle_s": 0.2}));
    assert_eq!(client.ok("job.wait", quiet)["met"], true);
    assert_eq!(
        client.ok("job.wait", params(&json!("running")))["met"],
        true
    );
    input(&mut client, &job, "", true);
    assert_eq!(waiting.reply(asked[3]).expect("a reply")["met"], true);
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"ready\nfirst");
    assert_eq!(transcript.verified()["attempts"], 1);
}

#[test]
fn timeouts_hold_whether_a_server_is_there_or_not() {
    for (key, reason) in [("timeout_s", "timeout"), ("stall_timeout_s", "stalled")] {
        for with_server in [true, false] {
            let mut server = Server::start();
            let mut client = server.connect();
            let job = cat(&server, &mut client, json!({key: 1.5}));
            server.kill_9();
            if !with_server {
                until_true("the job to be gone", || server.job_processes().is_empty());
            }
            server.restart();
            let end = server.connect().finished(&job);
            assert_eq!(end["reason"], reason, "{with_server} {end}");
            assert_eq!(end["stop"]["by"], "shim");
        }
    }
}

#[test]
fn a_timeout_stands_still_in_a_pause_over_kills_and_runs_behind_it() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = cat(&server, &mut client, json!({"timeout_s": 1}));
    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    for _ in 0..2 {
        client = kill_and_restart(&mut server);
        let longer = json!({"jobs": [job["id"]], "timeout_s": 1.2});
        let waited = client.ok("job.wait", longer);
        assert_eq!(waited["met"], false, "{waited}");
        assert_eq!(client.get(&job)["state"], "paused");
    }
    client.control(&job, "resume");
    assert_eq!(client.finished(&job)["reason"], "timeout");
}

#[test]
fn a_pause_and_a_resume_after_an_adoption_are_obeyed() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = cat(&server, &mut client, json!({}));
    let mut client = kill_and_restart(&mut server);
    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    // The shim takes it, the stopped process does not read it.
    input(&mut client, &job, "later", true);
    let mut client = kill_and_restart(&mut server);
    assert_eq!(client.get(&job)["output_bytes"], 6);
    client.control(&job, "resume");
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"ready\nlater");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn two_hundred_running_jobs_do_not_notice() {
    let mut server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "crowd", "concurrency": CROWD}));
    let ledger = server.scratch("ledger");
    let jobs: Vec<_> = (0..CROWD)
        .map(|seed| server.marked(one_of_many(seed, &ledger)))
        .collect();
    let reply = client.ok("job.submit_many", json!({"jobs": jobs}));
    let jobs = reply["jobs"].as_array().expect("jobs").clone();
    let all: Vec<_> = jobs.iter().map(|job| job["id"].clone()).collect();
    let running = json!({"jobs": all, "mode": "all", "until": "running", "timeout_s": 60});
    assert_eq!(client.ok("job.wait", running)["met"], true);
    let before = processes(&server);
    assert_eq!(before.len(), CROWD);
    for _ in 0..2 {
        client = kill_and_restart(&mut server);
        assert_eq!(processes(&server), before, "the same processes");
    }
    for job in &jobs {
        input(&mut client, job, "", true);
    }
    for (seed, job) in jobs.iter().enumerate() {
        let end = client.finished(job);
        assert_eq!(
            (&end["state"], &end["attempts"]),
            (&json!("succeeded"), &json!(1)),
            "{end}"
        );
        let transcript = client.whole(job);
        let expected = content(seed as u64, 0, 2000, false);
        assert_bytes(&transcript.bytes, &expected, "its output");
        transcript.verified();
    }
    let lines = fs::read_to_string(&ledger).expect("the ledger");
    assert_eq!(
        lines.lines().count(),
        2 * CROWD,
        "each has started and ended once"
    );
}

/// Writes for two seconds and then waits for the end of its stdin.
fn one_of_many(seed: usize, ledger: &std::path::Path) -> Value {
    let (seed, ledger) = (seed.to_string(), ledger.display().to_string());
    json!({
        "argv": [emit(), "--seed", seed, "--bytes", "2000", "--chunk", "50", "--pause-us", "50000",
                 "--ledger", ledger, "--until-eof"],
        "interactive": true, "queue": "crowd",
    })
}

fn processes(server: &Server) -> BTreeSet<i32> {
    server.job_processes().into_iter().collect()
}
