//! A file-level copy of a data directory is another one: its server never touches what the original
//! has started. What is moved is the same one.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::harness::{Server, is_alive, until_true};

fn copy(words: &[&str], from: &Path, to: &Path) {
    let done = Command::new(words[0])
        .args(&words[1..])
        .args([from, to])
        .status();
    assert!(done.expect("it runs").success());
}

fn instance(server: &Server) -> Value {
    server.connect().ok("server.info", json!({}))["instance"].clone()
}

#[test]
fn a_copy_that_is_served_beside_the_original_leaves_its_jobs_alone() {
    for stopped in [false, true] {
        let mut original = Server::start();
        let mut client = original.connect();
        let job = client.submit(original.marked(json!({"argv": ["sleep", "1000"]})));
        client.started(&job);
        let processes = original.job_processes();
        let first = instance(&original);
        if stopped {
            original.kill_9();
        }
        let mut copied = Server::stopped(&[], &[]);
        copy(&["cp", "-a"], &original.data_dir(), &copied.data_dir());
        copied.restart();
        assert_ne!(instance(&copied), first);
        let seen = copied.connect().finished(&job);
        assert_eq!(
            (&seen["state"], &seen["reason"]),
            (&json!("failed"), &json!("lost"))
        );
        assert_eq!(seen["survivors"], json!([]));
        assert!(processes.iter().all(|pid| is_alive(*pid)));
        if stopped {
            original.restart();
        }
        let mut client = original.connect();
        assert_eq!(client.get(&job)["state"], "running");
        assert_eq!(instance(&original), first);
        client.control(&job, "kill");
        assert_eq!(client.finished(&job)["state"], "cancelled");
    }
}

#[test]
fn a_moved_directory_keeps_its_instance_and_its_jobs() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&job);
    let first = instance(&server);
    server.kill_9();
    let moved = server.scratch("moved");
    std::fs::rename(server.data_dir(), &moved).expect("moved");
    let mut there = Server::stopped(&[], &[]).within(&moved);
    there.restart();
    assert_eq!(instance(&there), first);
    let mut client = there.connect();
    assert_eq!(client.get(&job)["state"], "running");
    client.control(&job, "kill");
    assert_eq!(client.finished(&job)["state"], "cancelled");
    there.stop();
    until_true("shims to leave", || server.shims().is_empty());
    std::fs::rename(&moved, server.data_dir()).expect("moved back");
    server.restart();
    assert_eq!(instance(&server), first);
}
