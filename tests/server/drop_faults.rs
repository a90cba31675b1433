//! `drop_oldest` where a hole cannot be written down: the job waits within its bound, goes on when
//! it can, ends when it is asked to, and its facts agree.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    harness::{Client, Failing, Server, parent, until_true},
    shortage::{adds_up, until_still},
};

const MIB: u64 = 1 << 20;

/// The least that `drop_oldest` may keep; its segments are an eighth of it.
const BOUND: u64 = 16 * MIB;
const SEGMENT: u64 = BOUND / 8;

/// A job that writes for ever once it is let through, and its shim.
fn runaway(server: &Server, client: &mut Client) -> (Value, i32) {
    let gate = server.scratch("gate");
    let job = json!({
        "shell": "while [ ! -e $GATE ]; do sleep 0.05; done; exec yes 0123456",
        "env": {"GATE": gate.to_str()},
        "output": {"max_bytes": BOUND, "when_full": "drop_oldest"},
        "grace_s": 2,
    });
    let job = client.submit(server.marked(job));
    let pid = client.started(&job)["pid"].as_i64();
    let pid = pid.map_or_else(|| server.job_processes()[0], |pid| pid as i32);
    (job, parent(pid).expect("its shim"))
}

fn let_through(server: &Server) {
    fs::write(server.scratch("gate"), "").expect("the gate");
}

fn dropped(client: &mut Client, job: &Value) -> u64 {
    client.get(job)["dropped_bytes"].as_u64().unwrap_or(0)
}

fn spool_bytes(server: &Server) -> u64 {
    let entries = fs::read_dir(server.data_dir().join("spool")).expect("the spool");
    let size = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.metadata().ok();
    entries.filter_map(size).map(|data| data.len()).sum()
}

fn notes(data_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(data_dir.join("spool")).expect("the spool");
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".seg"))
        .collect()
}

#[track_caller]
fn ends(server: &Server, client: &mut Client, job: &Value, failing: Option<Failing>) {
    client.control(job, "cancel");
    assert_eq!(client.finished(job)["state"], "cancelled");
    // An idle shim leaves after a while, and takes its socket along if it can.
    drop(failing);
    adds_up(client, job);
    until_true("its notes to be gone", || {
        notes(&server.data_dir()).is_empty()
    });
}

/// What fails once it has begun to drop.
fn a_hole_that_cannot_be_written_down(calls: &str, error: &str) {
    let server = Server::start();
    let mut client = server.connect();
    let (job, shim) = runaway(&server, &mut client);
    let_through(&server);
    until_true("something is gone", || dropped(&mut client, &job) > 0);
    let Some(failing) = Failing::calls(shim, calls, error) else {
        return;
    };
    until_still(&mut client, std::slice::from_ref(&job));
    let before = dropped(&mut client, &job);
    let there = spool_bytes(&server);
    assert!(
        there <= BOUND + 2 * SEGMENT,
        "{there} bytes, {error} at {calls}"
    );
    drop(failing);
    until_true("it goes on", || dropped(&mut client, &job) > before + BOUND);
    let Some(mut failing) = Failing::calls(shim, calls, error).map(Some) else {
        return;
    };
    until_still(&mut client, std::slice::from_ref(&job));
    // It ends while this lasts: what could not be dropped stays, and nothing else is said.
    if calls == "openat" {
        // Without files nobody can look for its processes either.
        failing = None;
    }
    ends(&server, &mut client, &job, failing);
}

#[test]
fn a_hole_that_cannot_be_renamed_keeps_the_bound() {
    a_hole_that_cannot_be_written_down("renameat2", "EIO");
    a_hole_that_cannot_be_written_down("renameat2", "ENOSPC");
}

#[test]
fn a_hole_that_cannot_be_opened_keeps_the_bound() {
    a_hole_that_cannot_be_written_down("openat", "EIO");
    a_hole_that_cannot_be_written_down("openat", "EMFILE");
    a_hole_that_cannot_be_written_down("openat", "ENOSPC");
}

#[test]
fn a_hole_that_cannot_be_synced_keeps_the_bound() {
    a_hole_that_cannot_be_written_down("fdatasync", "EIO");
}

#[test]
fn segments_that_cannot_be_unlinked_keep_the_bound() {
    a_hole_that_cannot_be_written_down("unlinkat,unlink", "EIO");
}
