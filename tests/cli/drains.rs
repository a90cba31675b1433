//! Planned stops: what becomes of the jobs, with and without a drain.

use std::{fs, os::unix::process::ExitStatusExt, path::PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Client, Server, Terminal, until, until_true};

/// A job that runs until the gate is there, and one behind it in a queue of one slot.
fn two_jobs(server: &Server, client: &mut Client) -> (PathBuf, [Value; 2]) {
    let gate = server.scratch("gate");
    client.ok("queue.set", json!({"queue": "narrow", "concurrency": 1}));
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo done",
        gate.display()
    );
    let mut submit =
        |line: &str| client.submit(server.marked(json!({"shell": line, "queue": "narrow"})));
    let jobs = [submit(&line), submit("echo behind")];
    client.started(&jobs[0]);
    (gate, jobs)
}

#[test]
fn a_stop_leaves_running_jobs_to_their_shims() {
    let mut server = Server::start();
    let mut client = server.connect();
    let (gate, jobs) = two_jobs(&server, &mut client);
    let (status, _) = server.stop();
    assert!(status.success(), "{status}");
    assert!(!server.job_processes().is_empty(), "the first one goes on");
    fs::write(&gate, "").expect("the gate");
    server.restart();
    let mut client = server.connect();
    for (job, output) in jobs.iter().zip(["done\n", "behind\n"]) {
        let transcript = client.whole(job);
        assert_eq!(transcript.bytes, output.as_bytes());
        assert_eq!(transcript.verified()["attempts"], 1);
    }
}

#[test]
fn a_draining_server_waits_for_its_jobs_and_takes_no_more() {
    let mut server = Server::with(&["--drain"], &[]);
    let mut client = server.connect();
    let (gate, jobs) = two_jobs(&server, &mut client);
    let running = server
        .cli("tail")
        .args([jobs[0]["number"].to_string()])
        .spawn();
    server.terminate();
    // It is on its way: until it is heard, a submit may still be taken.
    let refused = until("that no more is taken", || {
        client.call("job.submit", json!({"argv": ["true"]})).err()
    });
    assert_eq!(refused["code"], -32006, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|why| why.contains("stop")),
        "{refused}"
    );
    let (host, token) = (server.listen(), server.token());
    let ready = server.http(&format!(
        "GET /ready HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    ));
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert_eq!(client.get(&jobs[0])["state"], "running");
    assert_eq!(client.get(&jobs[1])["state"], "queued");
    fs::write(&gate, "").expect("the gate");
    let status = server.ended();
    assert!(status.success(), "{status}");
    let tail = running.finish();
    assert_eq!(
        (tail.code(), tail.out().as_str()),
        (0, "done\n"),
        "{}",
        tail.err()
    );
    server.restart();
    let mut client = server.connect();
    for job in &jobs {
        let end = client.get(job);
        assert_eq!(end["state"], "succeeded", "before the stop: {end}");
    }
}

#[test]
fn a_second_signal_ends_a_drain_and_no_job() {
    let mut server = Server::with(&["--drain"], &[]);
    let mut client = server.connect();
    let (gate, jobs) = two_jobs(&server, &mut client);
    server.terminate();
    until("that it drains", || {
        client.call("job.submit", json!({"argv": ["true"]})).err()
    });
    server.terminate();
    let status = server.ended();
    assert_eq!(
        status.code(),
        Some(128 + Signal::SIGTERM as i32),
        "{:?}",
        status.signal()
    );
    assert!(!server.job_processes().is_empty());
    fs::write(&gate, "").expect("the gate");
    server.restart();
    let mut client = server.connect();
    for job in &jobs {
        assert_eq!(client.finished(job)["state"], "succeeded");
    }
}

#[test]
fn stop_can_wait_for_the_jobs_or_end_them() {
    for (option, state) in [("--drain", "succeeded"), ("--kill-jobs", "cancelled")] {
        let mut server = Server::start();
        let mut client = server.connect();
        let (gate, jobs) = two_jobs(&server, &mut client);
        let stopping = server.cli("stop").args([option]).spawn();
        if option == "--drain" {
            until_true("it waits", || server.get("/health").json()["sessions"] == 2);
            assert_eq!(client.get(&jobs[0])["state"], "running");
            fs::write(&gate, "").expect("the gate");
        }
        let done = stopping.finish();
        assert_eq!(done.code(), 0, "{}", done.err());
        assert!(server.ended().success());
        assert_eq!(server.job_processes(), Vec::<i32>::new());
        server.restart();
        let mut client = server.connect();
        assert_eq!(client.get(&jobs[0])["state"], state, "{option}");
    }
}

/// Only a final job can be deleted, so there is nothing left to wait for.
#[test]
fn a_stop_that_waits_does_not_mind_jobs_that_are_deleted_meanwhile() {
    let place = Server::stopped(&[], &[]);
    let gate = |name: &str| place.scratch(name);
    let submit = |name: &str| {
        let line = format!(
            "while [ ! -e {} ]; do sleep 0.02; done",
            gate(name).display()
        );
        let done = place
            .cli("submit")
            .args(["--name", name, "--shell", &line])
            .run();
        assert_eq!(done.code(), 0, "{}", done.err());
    };
    // The newest is waited for first.
    submit("deleted");
    submit("waited-for");
    let words = ["--drain"];
    let mut stop = Terminal::call(&place.data_dir(), "stop", words, &[]);
    stop.sees("waiting for 2 jobs");
    fs::write(gate("deleted"), "").expect("a gate");
    let waited = place.cli("wait").args(["deleted"]).run();
    assert_eq!(waited.code(), 0, "{}", waited.err());
    let removed = place.cli("rm").args(["deleted"]).run();
    assert_eq!(removed.code(), 0, "{}", removed.err());
    fs::write(gate("waited-for"), "").expect("a gate");
    let (code, shown) = stop.ends();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("stopped the server"), "{shown}");
}
