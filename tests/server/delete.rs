//! `job.delete`: nothing is left of a final job but its events, and nobody is harmed who looks at it.

use serde_json::{Value, json};

use crate::harness::{Server, assert_bytes, content, emit, until_true};

/// More than goes into rows of the database.
const LARGE: u64 = 3 << 20;

fn large(seed: &str) -> Value {
    json!({"argv": [emit(), "--seed", seed, "--bytes", LARGE.to_string()]})
}

fn spool(server: &Server) -> usize {
    std::fs::read_dir(server.data_dir().join("spool"))
        .expect("the spool")
        .count()
}

#[test]
fn a_deleted_job_is_gone_with_its_output() {
    let server = Server::with(&["--segment-bytes", "65536"], &[]);
    let mut client = server.connect();
    let small = client.submit(json!({"shell": "echo small"}));
    let small = client.finished(&small);
    let big = client.submit(large("5"));
    let big = client.finished(&big);
    let never = client.submit(json!({"argv": ["no-such-program"]}));
    client.finished(&never);
    assert!(spool(&server) > 10);
    for job in [&small, &big, &never] {
        assert_eq!(
            client.ok("job.delete", json!({"job": job["id"]})),
            json!({})
        );
        for (method, params) in [
            ("job.get", json!({"job": job["id"]})),
            ("job.get", json!({"job": job["number"]})),
            ("job.delete", json!({"job": job["id"]})),
            ("job.tail", json!({"job": job["number"]})),
            ("job.read", json!({"job": job["id"], "from": 0})),
            ("job.wait", json!({"jobs": [job["number"]]})),
            ("job.control", json!({"job": job["id"], "action": "cancel"})),
            ("job.retry", json!({"job": job["id"]})),
            ("job.update", json!({"job": job["id"], "priority": 1})),
        ] {
            client.refused(-32003, method, params);
        }
    }
    assert_eq!(client.ok("job.list", json!({}))["jobs"], json!([]));
    assert_eq!(spool(&server), 0, "unlinked before the reply");
    let next = client.submit(json!({"argv": ["true"]}));
    assert_eq!(next["number"], 4, "numbers are never given again");
}

#[test]
fn only_what_is_final_is_deleted() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "closed", "paused": true}));
    let waiting = client.submit(json!({"argv": ["true"], "queue": "closed"}));
    let running = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&running);
    for job in [&waiting, &running] {
        let error = client.refused(-32004, "job.delete", json!({"job": job["id"]}));
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|m| m.contains("cancel")),
            "{error}"
        );
        client.control(job, "kill");
        client.finished(job);
        client.ok("job.delete", json!({"job": job["id"]}));
    }
    client.refused(-32003, "job.delete", json!({"job": 77}));
    client.refused(-32602, "job.delete", json!({}));
    client.refused(-32602, "job.delete", json!({"job": 1, "force": true}));
}

/// The reader stands still in the middle; what it had not got is one gap, and then the end.
#[test]
fn an_open_tail_is_told_what_it_misses_and_the_end() {
    const HUGE: u64 = 64 << 20;
    let server = Server::start();
    let mut client = server.connect();
    let job = json!({"argv": [emit(), "--seed", "6", "--bytes", HUGE.to_string()]});
    let job = client.submit(job);
    let job = client.finished(&job);
    let mut reader = server.connect();
    let subscription = reader.tail(json!({"job": job["id"], "encoding": "binary"}));
    client.ok("job.delete", json!({"job": job["id"]}));
    let mut transcript = crate::harness::Transcript::default();
    reader.follow(subscription, &mut transcript);
    let got = transcript.bytes.len() as u64;
    assert!(got < HUGE, "buffers hold less than that");
    assert_bytes(
        &transcript.bytes,
        &content(6, 0, got, false),
        "what came before",
    );
    assert_eq!(transcript.gaps.len(), 1);
    let expected = json!({"from": got, "to": HUGE, "reason": "deleted"});
    for key in ["from", "to", "reason"] {
        assert_eq!(
            transcript.gaps[0][key], expected[key],
            "{:?}",
            transcript.gaps
        );
    }
    assert_eq!(transcript.end, Some(job));
    reader.still_works();
    assert_eq!(spool(&server), 0);
}

/// Deleted as soon as it is final, whatever the server still does about its end, and the shim is
/// free for the next one.
#[test]
fn a_job_can_go_the_moment_it_ends() {
    let server = Server::start();
    let (mut client, mut other) = (server.connect(), server.connect());
    for round in 0..60 {
        let job = client.submit(json!({"shell": format!("echo {round}")}));
        let tail = other.tail(json!({"job": job["id"]}));
        client.finished(&job);
        client.ok("job.delete", json!({"job": job["id"]}));
        let mut transcript = crate::harness::Transcript::default();
        other.follow(tail, &mut transcript);
        assert_eq!(transcript.end.expect("an end")["state"], "succeeded");
    }
    until_true("an empty spool", || spool(&server) == 0);
    assert!(
        !server.said().contains("could not be unlinked"),
        "{}",
        server.said()
    );
    other.still_works();
}

#[test]
fn a_waiting_read_of_a_deleted_job_ends() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&job);
    let read = client.begin(
        "job.read",
        json!({"job": job["id"], "from": 0, "wait_ms": 60_000}),
    );
    client.control(&job, "kill");
    client.finished(&job);
    client.ok("job.delete", json!({"job": job["id"]}));
    // It has seen the end, or else that there is nothing any more.
    match client.reply(read) {
        Ok(read) => assert_eq!(read["end"]["state"], "cancelled"),
        Err(error) => assert_eq!(error["code"], -32003),
    }
}

/// The end and the deletion may be told in one: what was waited for has come all the same.
#[test]
fn a_wait_for_the_end_of_a_job_that_goes_with_it_is_met() {
    let server = Server::start();
    let (mut waiter, mut client) = (server.connect(), server.connect());
    for _ in 0..20 {
        let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
        client.started(&job);
        let wait = waiter.begin("job.wait", json!({"jobs": [job["id"]]}));
        // Requests of a session take effect in order: with this answer the wait has begun.
        waiter.get(&job);
        client.control(&job, "kill");
        until_true("the deletion", || {
            client.call("job.delete", json!({"job": job["id"]})).is_ok()
        });
        let waited = waiter.reply(wait).expect("an answer");
        assert_eq!(
            (&waited["met"], &waited["job"]["state"]),
            (&json!(true), &json!("cancelled"))
        );
    }
}

/// Deletes a final job while a wait is for it and a running one, and then ends that one; the job, and the wait's answer.
fn waited_for(server: &Server, deletes: &str) -> (Value, Result<Value, Value>) {
    let (mut client, mut other) = (server.connect(), server.connect());
    let ended = client.submit(json!({"shell": "exit 3", "name": deletes}));
    let ended = client.finished(&ended);
    let runs = client.submit(json!({"argv": ["sleep", "600"]}));
    client.started(&runs);
    let jobs = json!([ended["number"], runs["number"]]);
    let wait = client.begin("job.wait", json!({"jobs": jobs, "mode": "all"}));
    client.ok("server.info", json!({}));
    let params = match deletes {
        "job.delete" => json!({"job": ended["number"]}),
        _ => json!({"name": deletes, "dry_run": false}),
    };
    other.ok(deletes, params);
    other.control(&runs, "kill");
    (ended, client.reply(wait))
}

#[test]
fn a_wait_shows_a_job_that_was_deleted_meanwhile_as_it_was() {
    let server = Server::start();
    for deletes in ["job.delete", "job.prune"] {
        until_true(
            "a wait that began before the deletion",
            || match waited_for(&server, deletes) {
                (ended, Ok(waited)) => {
                    assert_eq!(waited["met"], true, "{waited}");
                    assert_eq!(waited["jobs"][0], ended, "{deletes}: {waited}");
                    true
                }
                (_, Err(error)) => {
                    assert_eq!(error["code"], -32003, "{error}");
                    false
                }
            },
        );
    }
}
