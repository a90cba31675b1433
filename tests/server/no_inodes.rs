//! A file system with room for bytes and not for one more file: what is there goes on, what needs a
//! new file waits for it, and nothing is lost.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Client, Disk, FileSystem, Server, assert_bytes, content, emit, until};

const MIB: u64 = 1 << 20;

/// So many files there can be, about.
const INODES: u64 = 128;

/// The file systems on which this is tried.
const KINDS: [FileSystem; 2] = [FileSystem::Tmpfs, FileSystem::Ext4];

/// A server on a disk with few inodes.
fn on_few_inodes(kind: FileSystem) -> Option<(Disk, Server)> {
    let disk = Disk::with_inodes(kind, 64 * MIB, Some(INODES))?;
    let bounds = ["--free-bytes-min", "0", "--warm-shims", "0"];
    let mut server = Server::stopped(&bounds, &[]).within(disk.path("data"));
    server.restart();
    Some((disk, server))
}

/// A job that writes so slowly that the disk can be filled meanwhile; more than one segment.
fn writer(server: &Server, client: &mut Client, seed: u64) -> Value {
    let argv = json!([
        emit(),
        "--seed",
        seed.to_string(),
        "--bytes",
        (12 * MIB).to_string(),
        "--chunk",
        "4096:4096",
        "--pause-us",
        "300"
    ]);
    let job = json!({"argv": argv, "stall_timeout_s": 1});
    let job = client.submit(server.marked(job));
    until("some output", || {
        (client.get(&job)["output_bytes"].as_u64()? > MIB).then_some(())
    });
    job
}

/// Nothing ends this within a time in which its stall timeout would have struck.
#[track_caller]
fn waits(client: &mut Client, job: &Value) {
    let params = json!({"jobs": [job["id"]], "timeout_s": 2.5});
    assert_eq!(client.ok("job.wait", params)["met"], false);
    let now = client.get(job);
    assert_eq!(now["state"], "running");
    let bytes = now["output_bytes"].as_u64().expect("a number");
    assert!((3 * MIB..8 * MIB).contains(&bytes), "{bytes}");
}

#[test]
fn without_one_inode_left_jobs_wait_and_go_on() {
    for kind in KINDS {
        let Some((disk, mut server)) = on_few_inodes(kind) else {
            return;
        };
        let mut client = server.connect();
        let gate = server.scratch("gate");
        let line = format!(
            "while [ ! -e {} ]; do sleep 0.02; done; echo through; exit 4",
            gate.display()
        );
        let quiet = client.submit(server.marked(json!({"shell": line})));
        let doomed = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
        client.started(&quiet);
        client.started(&doomed);
        let long = writer(&server, &mut client, 81);
        let files = disk.fill_inodes();
        waits(&mut client, &long);

        // It has its files, and the end makes room for no others.
        fs::write(&gate, "").expect("the gate, which lies elsewhere");
        let end = client.whole(&quiet);
        assert_eq!(end.bytes, b"through\n");
        assert_eq!(end.verified()["exit_code"], 4);
        disk.fill_inodes_again();
        client.control(&doomed, "cancel");
        assert_eq!(client.finished(&doomed)["state"], "cancelled");
        disk.fill_inodes_again();

        let late = client.submit(server.marked(json!({"argv": ["echo", "late"]})));
        waits(&mut client, &long);
        assert_ne!(client.get(&late)["state"], "failed");
        server.kill_9();
        server.restart();
        let mut client = server.connect();
        waits(&mut client, &long);
        let lines = server.said().lines().count();
        assert!(lines < 200, "it is told {lines} times");

        fs::remove_dir_all(files).expect("removed");
        let whole = client.whole(&long);
        assert_bytes(&whole.bytes, &content(81, 0, 12 * MIB, false), "all of it");
        assert_eq!(whole.verified()["state"], "succeeded");
        let late = client.whole(&late);
        assert_eq!(late.bytes, b"late\n");
        assert_eq!(late.verified()["state"], "succeeded");
    }
}

/// Starts the server; where it is refused, it must have said why.
#[track_caller]
fn starts(server: &mut Server) -> bool {
    server.launch();
    if server.readied().is_ok() {
        return true;
    }
    server.ended();
    let said = server.said_last();
    assert!(said.contains("no free inodes"), "{said}");
    false
}

#[test]
fn a_start_without_one_inode_left_says_so_and_forgets_nothing() {
    for kind in KINDS {
        let Some((disk, mut server)) = on_few_inodes(kind) else {
            return;
        };
        let mut client = server.connect();
        let long = writer(&server, &mut client, 82);
        let (status, _) = server.stop();
        assert!(status.success());
        let files = disk.fill_inodes();
        let mut refused = 0;
        // With each try there is room for one file more.
        while !starts(&mut server) {
            refused += 1;
            fs::remove_file(files.join(refused.to_string())).expect("one of them");
        }
        assert!((1..10).contains(&refused), "refused {refused} times");
        fs::remove_dir_all(files).expect("removed");
        let mut client = server.connect();
        let whole = client.whole(&long);
        assert_bytes(&whole.bytes, &content(82, 0, 12 * MIB, false), "all of it");
        assert_eq!(whole.verified()["state"], "succeeded");
    }
}
