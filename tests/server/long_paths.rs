//! A data directory may lie at any length of path: sockets, shims, spool and database work there.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::harness::{Server, Transcript, assert_bytes, content, emit};

/// A directory so deep that its path has at least so many bytes.
fn deep(bytes: usize) -> PathBuf {
    let mut path = PathBuf::new();
    while path.as_os_str().len() < bytes {
        path.push("a-directory-of-which-there-are-many".repeat(3));
    }
    path
}

fn a_server_works_at(bytes: usize) {
    let mut server = Server::stopped(&[], &[]).within(deep(bytes));
    server.restart();
    assert!(server.data_dir().as_os_str().len() > bytes);
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "61",
        "--bytes",
        "6000000",
        "--chunk",
        "1:8192",
        "--pause-us",
        "1000"
    ]);
    let job = client.submit(server.marked(json!({"argv": argv})));
    let subscription = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    while transcript.bytes.len() < 1_000_000 {
        client.step(subscription, &mut transcript);
    }
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    transcript.resume();
    let from = json!({"job": job["id"], "from": transcript.next_offset});
    let subscription = client.tail(from);
    client.follow(subscription, &mut transcript);
    assert_bytes(&transcript.bytes, &content(61, 0, 6_000_000, false), "tail");
    assert_eq!(transcript.verified()["state"], "succeeded");
    let shim = server.shims();
    assert!(!shim.is_empty(), "the data directory stands in its command");

    let token = server.cli("token").run();
    assert_eq!(token.out().trim(), server.token());
    let run = server.cli("run").args(["--", "echo", "hello"]).run();
    assert_eq!((run.code(), run.out().as_str()), (0, "hello\n"));
    let (status, _) = server.stop();
    assert!(status.success());
    server.restart();
    let jobs = server.cli("ls").args(["--json"]).run().json();
    assert_eq!(jobs.as_array().map(Vec::len), Some(2), "{jobs}");
}

#[test]
fn a_path_longer_than_sqlite_takes() {
    a_server_works_at(600);
}

#[test]
fn a_path_of_half_the_systems_bound() {
    a_server_works_at(2048);
}

#[test]
fn run_starts_a_server_at_a_long_path() {
    let place = Server::stopped(&[], &[]).within(deep(900));
    let done = place.cli("run").args(["--", "echo", "hello"]).run();
    assert_eq!(done.code(), 0, "{}", done.err());
    assert_eq!(done.out(), "hello\n");
    assert!(place.data_dir().join("server.log").exists());
}

#[test]
fn a_backup_goes_from_a_long_path_to_a_short_one_and_back() {
    let mut original = Server::stopped(&[], &[]).within(deep(900));
    original.restart();
    let mut client = original.connect();
    let job = client.submit(json!({"shell": "echo hello"}));
    client.finished(&job);
    let mut short = Server::stopped(&[], &[]);
    client.ok("server.backup", json!({"to": short.data_dir()}));
    short.restart();
    let mut client = short.connect();
    assert_eq!(client.whole(&job).bytes, b"hello\n");
    let mut long = Server::stopped(&[], &[]).within(deep(900));
    let to = long.data_dir();
    fs::create_dir_all(to.parent().expect("a parent")).expect("made");
    client.ok("server.backup", json!({ "to": to }));
    long.restart();
    assert_eq!(long.connect().whole(&job).bytes, b"hello\n");
}
