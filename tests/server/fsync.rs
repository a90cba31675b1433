//! A disk that fails when it is asked to make things last: the server ends rather than acknowledge,
//! a shim goes on with its job, and nothing counts as stored that is not. The failures are strace's.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use serde_json::{Value, json};

use crate::harness::{Failing, Server, assert_bytes, content, emit, parent, until, until_true};

/// Every sync of a process fails.
fn failing_syncs(pid: i32) -> Option<Failing> {
    Failing::calls(pid, "fsync,fdatasync", "EIO")
}

/// A job of several segments that ends, with exit code 3, when the gate is there.
fn gated(server: &Server, gate: &Path) -> Value {
    let line = format!(
        "{} --seed 81 --bytes 2500000 --chunk 65536:65536; while [ ! -e {} ]; do sleep 0.02; done; \
         {} --seed 82 --bytes 700000 --chunk 65536:65536; exit 3",
        emit(),
        gate.display(),
        emit()
    );
    server.marked(json!({"shell": line}))
}

/// Waits for the first part of what that job writes.
fn begun(server: &Server, job: &Value) {
    let mut client = server.connect();
    until("its output", || {
        (client.get(job)["output_bytes"] == 2_500_000).then_some(())
    });
}

#[track_caller]
fn ended_as_it_did(server: &Server, job: &Value) {
    let whole = server.connect().whole(job);
    let mut expected = content(81, 0, 2_500_000, false);
    expected.extend(content(82, 0, 700_000, false));
    assert_bytes(&whole.bytes, &expected, "all of it");
    let end = whole.verified();
    assert_eq!(
        (&end["exit_code"], &end["attempts"]),
        (&json!(3), &json!(1))
    );
}

/// The inodes of the segments.
fn segments(server: &Server) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(server.data_dir().join("spool")).expect("the spool");
    let entries = entries.flatten().map(|entry| {
        let inode = entry.metadata().map_or(0, |data| data.ino());
        (entry.file_name().to_string_lossy().into_owned(), inode)
    });
    entries.filter(|(name, _)| name.ends_with(".seg")).collect()
}

/// Each of these segments is another file by now.
#[track_caller]
fn assert_written_anew(server: &Server, before: &BTreeMap<String, u64>) {
    let after = segments(server);
    for (name, inode) in before {
        assert_ne!(
            after.get(name),
            Some(inode),
            "{name} is still the same file"
        );
    }
}

/// The shim that holds the only job.
fn shim(server: &Server) -> i32 {
    let held = server.job_processes();
    let mut shims = server.shims();
    shims.retain(|shim| held.iter().any(|pid| parent(*pid) == Some(*shim)));
    assert_eq!(shims.len(), 1, "one job, one shim");
    shims[0]
}

#[test]
fn a_server_whose_sync_fails_acknowledges_nothing_and_ends() {
    let mut server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let before = client.submit(json!({"argv": ["echo", "before"]}));
    let before = client.finished(&before);
    let running = client.submit(gated(&server, &gate));
    begun(&server, &running);
    let Some(failing) = failing_syncs(server.pid()) else {
        return;
    };
    let submitted = client.try_call("job.submit", json!({"argv": ["true"]}));
    assert!(
        !matches!(submitted, Ok(Ok(_))),
        "acknowledged: {submitted:?}"
    );
    assert_eq!(server.ended().code(), Some(1), "{}", server.said());
    assert!(
        server.said().contains("cannot be trusted any more"),
        "{}",
        server.said()
    );
    drop(failing);
    fs::write(&gate, "").expect("the gate");
    server.restart();
    let mut client = server.connect();
    assert_eq!(client.get(&before), before);
    assert_eq!(client.whole(&before).bytes, b"before\n");
    ended_as_it_did(&server, &running);
}

/// What the log of the database held when its sync failed is written anew before it counts.
#[test]
fn a_start_whose_sync_fails_is_refused() {
    let mut server = Server::start();
    let job = server.connect().submit(json!({"argv": ["echo", "kept"]}));
    let job = server.connect().finished(&job);
    server.kill_9();
    let done = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(server.scratch("trace"))
        .args(["-e", "trace=fsync,fdatasync"])
        .args(["-e", "inject=fsync,fdatasync:error=EIO"])
        .arg(crate::harness::BINARY)
        .args(["serve", "--listen", "none", "--data-dir"])
        .arg(server.data_dir())
        .output();
    let Ok(done) = done else {
        eprintln!("SKIPPED: there is no strace");
        return;
    };
    let said = String::from_utf8_lossy(&done.stderr);
    if said.contains("ptrace") {
        eprintln!("SKIPPED: nobody may trace here");
        return;
    }
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be written to its disk"), "{said}");
    server.restart();
    assert_eq!(server.connect().get(&job), job);
}

#[test]
fn a_shim_whose_sync_fails_goes_on_and_what_it_wrote_is_written_anew() {
    let server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let job = client.submit(gated(&server, &gate));
    begun(&server, &job);
    let before = segments(&server);
    assert!(before.len() >= 3, "{before:?}");
    let Some(failing) = failing_syncs(shim(&server)) else {
        return;
    };
    fs::write(&gate, "").expect("the gate");
    ended_as_it_did(&server, &job);
    drop(failing);
    let said = server.said();
    assert!(said.contains("failed to sync its output"), "{said}");
    assert_written_anew(&server, &before);
    let mark = |name: &str| name.ends_with(".unsynced") || name.ends_with(".draft");
    until_true("the mark to be gone", || {
        let entries = fs::read_dir(server.data_dir().join("spool")).expect("the spool");
        !entries
            .flatten()
            .any(|entry| mark(&entry.file_name().to_string_lossy()))
    });
}

/// Neither can make it last: there is no end until somebody can.
#[test]
fn what_nobody_can_sync_is_never_final() {
    let mut server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let job = client.submit(gated(&server, &gate));
    begun(&server, &job);
    let before = segments(&server);
    let Some(shim) = failing_syncs(shim(&server)) else {
        return;
    };
    let Some(failing) = failing_syncs(server.pid()) else {
        return;
    };
    fs::write(&gate, "").expect("the gate");
    assert_eq!(server.ended().code(), Some(1), "{}", server.said());
    drop(failing);
    until_true("its end", || server.job_processes().is_empty());
    drop(shim);
    server.restart();
    ended_as_it_did(&server, &job);
    assert_written_anew(&server, &before);
}
