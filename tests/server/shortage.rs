//! Many jobs that write both streams on a disk without room, without inodes or with a used-up quota,
//! stopped all at once: each of them ends, and what they could not store is told to the byte.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::{signal::Signal, stat::Mode};
use serde_json::{Value, json};

use crate::harness::{Client, Disk, Failing, FileSystem, Server, Transcript, until, until_true};

const MIB: u64 = 1 << 20;

/// Each scene is a test on each kind of file system.
macro_rules! on_each_file_system {
    ($($scene:ident,)*) => {
        mod tmpfs {
            $(#[test] fn $scene() { super::$scene(super::FileSystem::Tmpfs); })*
        }
        mod ext4 {
            $(#[test] fn $scene() { super::$scene(super::FileSystem::Ext4); })*
        }
    };
}

on_each_file_system! {
    four_writers_that_filled_the_disk_are_cancelled_at_once,
    twenty_writers_that_filled_the_disk_are_cancelled_at_once,
    twenty_writers_that_filled_the_disk_are_killed_and_so_is_the_server,
    twenty_writers_without_inodes_are_cancelled_at_once,
    a_job_that_ended_by_itself_waits_for_room_until_it_is_cancelled,
    a_hundred_small_outputs_need_no_room_to_end,
}

/// A server with room for many jobs side by side, on a disk of 64 MiB.
fn on(disk: &Disk, options: &[&str]) -> Server {
    let mut server = Server::stopped(options, &[]).within(disk.path("data"));
    server.restart();
    many_side_by_side(&mut server.connect());
    server
}

fn many_side_by_side(client: &mut Client) {
    client.ok("queue.set", json!({"queue": "default", "concurrency": 30}));
}

/// Jobs that run, and write both streams for ever once they are let through.
fn writers(server: &Server, client: &mut Client, count: usize, more: &Value) -> Vec<Value> {
    let line = "while [ ! -e $GATE ]; do sleep 0.05; done; yes 0123456 & exec yes abcdefg >&2";
    gated(server, client, count, line, more)
}

fn gated(
    server: &Server,
    client: &mut Client,
    count: usize,
    line: &str,
    more: &Value,
) -> Vec<Value> {
    let gate = server.scratch("writing");
    let jobs: Vec<Value> = (0..count)
        .map(|_| {
            let mut job = json!({"shell": line, "grace_s": 2, "env": {"GATE": gate.to_str()}});
            for (key, value) in more.as_object().into_iter().flatten() {
                job[key] = value.clone();
            }
            client.submit(server.marked(job))
        })
        .collect();
    for job in &jobs {
        client.started(job);
    }
    jobs
}

fn let_through(server: &Server) {
    fs::write(server.scratch("writing"), "").expect("the gate, which lies elsewhere");
}

/// Waits until nothing is written any more.
pub fn until_still(client: &mut Client, jobs: &[Value]) {
    let mut before = Vec::new();
    let mut since = Instant::now();
    until_true("all writers to wait", || {
        let now: Vec<Value> = jobs
            .iter()
            .map(|job| client.get(job)["output_bytes"].clone())
            .collect();
        if std::mem::replace(&mut before, now) != before {
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(700)
    });
}

fn ask(client: &mut Client, jobs: &[Value], action: &str) {
    let ids: Vec<i64> = jobs
        .iter()
        .map(|job| client.begin("job.control", json!({"job": job["id"], "action": action})))
        .collect();
    for id in ids {
        client.reply(id).expect("a wish is taken");
    }
}

/// All of them are cancelled soon, whatever they could store is right, and the rest is told.
#[track_caller]
fn all_end_and_add_up(server: &Server, jobs: &[Value]) {
    let mut client = server.connect();
    let began = Instant::now();
    for job in jobs {
        let end = client.finished(job);
        assert_eq!(end["state"], "cancelled", "{end}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    until_true("the processes to be gone", || {
        server.job_processes().is_empty()
    });
    for job in jobs {
        adds_up(&mut client, job);
    }
}

#[track_caller]
pub fn adds_up(client: &mut Client, job: &Value) {
    let whole = client.whole(job);
    let end = whole.end.as_ref().expect("its end");
    is_right(&whole);
    let missing: u64 = whole
        .gaps
        .iter()
        .map(|gap| gap["to"].as_u64().expect("to") - gap["from"].as_u64().expect("from"))
        .sum();
    assert_eq!(end["dropped_bytes"].as_u64().unwrap_or(0), missing, "{end}");
    match missing {
        0 => drop(whole.verified()),
        _ => assert!(end["output_sha256"].is_null(), "{end}"),
    }
    let verdict = client.ok("transcript.verify", json!({"job": job["id"]}));
    assert_eq!(verdict["intact"], true, "{verdict}");
}

/// Every byte is one of the lines, up to where something is missing.
#[track_caller]
fn is_right(whole: &Transcript) {
    if whole.gaps.iter().any(|gap| gap["reason"] != "disk_full") {
        return;
    }
    for (stream, line) in whole.streams.iter().zip([b"0123456\n", b"abcdefg\n"]) {
        let mut expected = line.repeat(stream.len().div_ceil(line.len()));
        expected.truncate(stream.len());
        assert!(*stream == expected, "a stream is not as written");
    }
}

fn reserve(server: &Server) -> (u64, u64) {
    let path = server.data_dir().join("cc-executor.ballast");
    let data = fs::metadata(path).expect("the reserve");
    (data.len(), data.blocks() * 512)
}

fn writers_that_filled_the_disk(kind: FileSystem, count: usize) {
    let Some(disk) = Disk::mount(kind, 64 * MIB) else {
        return;
    };
    let mut server = on(&disk, &[]);
    let length = reserve(&server).0;
    let mut client = server.connect();
    let jobs = writers(&server, &mut client, count, &json!({}));
    let_through(&server);
    until_still(&mut client, &jobs);
    disk.fill();
    ask(&mut client, &jobs, "cancel");
    all_end_and_add_up(&server, &jobs);
    assert_eq!(reserve(&server).0, length, "the reserve knows its size");
    server.kill_9();
    server.restart();
    server.connect().ok("server.info", json!({}));
    assert_eq!(reserve(&server).0, length, "the reserve knows its size");
}

fn four_writers_that_filled_the_disk_are_cancelled_at_once(kind: FileSystem) {
    writers_that_filled_the_disk(kind, 4);
}

fn twenty_writers_that_filled_the_disk_are_cancelled_at_once(kind: FileSystem) {
    writers_that_filled_the_disk(kind, 20);
}

fn twenty_writers_that_filled_the_disk_are_killed_and_so_is_the_server(kind: FileSystem) {
    let Some(disk) = Disk::mount(kind, 64 * MIB) else {
        return;
    };
    let mut server = on(&disk, &["--free-bytes-min", "0"]);
    let mut client = server.connect();
    let jobs = writers(&server, &mut client, 20, &json!({}));
    let_through(&server);
    until_still(&mut client, &jobs);
    disk.fill();
    ask(&mut client, &jobs, "kill");
    server.kill_9();
    server.restart();
    all_end_and_add_up(&server, &jobs);
}

/// With and without `drop_oldest`.
fn twenty_writers_without_inodes_are_cancelled_at_once(kind: FileSystem) {
    let Some(disk) = Disk::with_inodes(kind, 192 * MIB, Some(256)) else {
        return;
    };
    let server = on(
        &disk,
        &["--free-bytes-min", "0", "--segment-bytes", "262144"],
    );
    fs::create_dir(disk.path("files")).expect("a directory");
    let mut client = server.connect();
    // They are at work before the inodes go, and write on until then.
    let mut jobs = writers(
        &server,
        &mut client,
        10,
        &json!({"output": {"max_bytes": 1 << 30}}),
    );
    let bounded = json!({"output": {"max_bytes": 16 << 20, "when_full": "drop_oldest"}});
    jobs.extend(writers(&server, &mut client, 10, &bounded));
    let held = reserve(&server).1;
    let_through(&server);
    until_still(&mut client, &jobs[..10]);
    disk.fill_inodes_again();
    ask(&mut client, &jobs, "cancel");
    all_end_and_add_up(&server, &jobs);
    assert_eq!(reserve(&server).1, held, "bytes were not what was short");
}

fn a_job_that_ended_by_itself_waits_for_room_until_it_is_cancelled(kind: FileSystem) {
    let Some(disk) = Disk::mount(kind, 64 * MIB) else {
        return;
    };
    let server = on(&disk, &["--free-bytes-min", "0"]);
    let mut client = server.connect();
    let leave = server.scratch("leave");
    let line = format!(
        "while [ ! -e $GATE ]; do sleep 0.05; done; yes 0123456 & yes abcdefg >&2 & \
         while [ ! -e {} ]; do sleep 0.05; done; kill -KILL 0",
        leave.display()
    );
    let jobs = gated(&server, &mut client, 8, &line, &json!({}));
    let_through(&server);
    until_still(&mut client, &jobs);
    disk.fill();
    fs::write(leave, "").expect("the gate, which lies elsewhere");
    until_true("their processes to be gone", || {
        server.job_processes().is_empty()
    });
    until_still(&mut client, &jobs);
    let waiting: Vec<Value> = jobs
        .iter()
        .filter(|job| client.get(job)["state"] == "running")
        .cloned()
        .collect();
    assert!(!waiting.is_empty(), "none had to wait");
    // Drains leave half of it; ends that came through may have taken portions of that half.
    let (length, held) = reserve(&server);
    let released = server
        .said()
        .matches("a part of the reserve is released")
        .count() as u64;
    let for_ends = held + released * length / 8;
    assert!(
        for_ends >= length / 2,
        "{held} of {length} are left to ends"
    );
    let (cancelled, others) = waiting.split_at(1);
    ask(&mut client, cancelled, "cancel");
    let end = client.finished(&cancelled[0]);
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!("signal"))
    );
    adds_up(&mut client, &cancelled[0]);
    disk.grow(256 * MIB);
    for job in others {
        client.finished(job);
        let whole = client.whole(job);
        is_right(&whole);
        assert_eq!(whole.verified()["dropped_bytes"].as_u64().unwrap_or(0), 0);
    }
}

/// Together they are more than the reserve, and the server hears of all at once: moved into the
/// database they would not fit.
fn a_hundred_small_outputs_need_no_room_to_end(kind: FileSystem) {
    let Some(disk) = Disk::mount(kind, 64 * MIB) else {
        return;
    };
    let server = on(&disk, &["--free-bytes-min", "0"]);
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "default", "concurrency": 100}));
    let gate = server.scratch("gate");
    nix::unistd::mkfifo(&gate, Mode::S_IRWXU).expect("a FIFO");
    let line = "yes 0123456 | head -c 240000; read -r _ < $GATE; exit 3";
    let job = json!({"shell": line, "env": {"GATE": gate.to_str()}});
    let jobs: Vec<Value> = (0..100)
        .map(|_| client.submit(server.marked(job.clone())))
        .collect();
    until_true("all to have written", || {
        let written = |job: &Value| client.get(job)["output_bytes"] == 240_000;
        jobs.iter().all(written)
    });
    disk.fill();
    server.signal(Signal::SIGSTOP);
    let mut gate = fs::File::options().write(true).open(gate).expect("readers");
    gate.write_all(&[b'\n'; 100]).expect("a line for each");
    until_true("the processes to be gone", || {
        server.job_processes().is_empty()
    });
    server.signal(Signal::SIGCONT);
    for job in &jobs {
        assert_eq!(client.finished(job)["exit_code"], 3);
    }
    for job in &jobs {
        adds_up(&mut client, job);
    }
}

/// The quota comes back when they have ended: nothing of the reserve was given away for nothing.
#[test]
fn twenty_jobs_are_cancelled_while_the_quota_is_used_up() {
    let server = Server::start();
    let mut client = server.connect();
    many_side_by_side(&mut client);
    let jobs: Vec<Value> = (0..20)
        .map(|_| client.submit(server.marked(json!({"argv": ["sleep", "1000"]}))))
        .collect();
    for job in &jobs {
        client.started(job);
    }
    let before = reserve(&server);
    let Some(failing) = Failing::calls(server.pid(), "pwrite64", "EDQUOT") else {
        return;
    };
    ask(&mut client, &jobs, "cancel");
    until_true("the processes to be gone", || {
        server.job_processes().is_empty()
    });
    client
        .call("job.submit", json!({"argv": ["true"]}))
        .expect_err("no room");
    assert_eq!(reserve(&server), before, "the reserve stays");
    drop(failing);
    let mut client = server.connect();
    for job in &jobs {
        assert_eq!(client.finished(job)["state"], "cancelled");
    }
    until("there is room again", || {
        client.call("job.submit", json!({"argv": ["true"]})).ok()
    });
    assert_eq!(reserve(&server), before, "the reserve is whole");
}

/// What is taken back in vain was not there before; what was there stays.
#[test]
fn a_refill_that_no_quota_allows_gives_nothing_away() {
    let server = Server::start();
    let mut client = server.connect();
    let path = server.data_dir().join("cc-executor.ballast");
    let (length, _) = reserve(&server);
    // Before something is missing: the server takes it back as soon as it can.
    let Some(failing) = Failing::calls(server.pid(), "fallocate", "EDQUOT") else {
        return;
    };
    let punched = Command::new("fallocate")
        .args(["--punch-hole", "--offset", &(length / 2).to_string()])
        .args(["--length", &(length / 2).to_string()])
        .arg(&path)
        .status();
    assert!(punched.expect("fallocate").success());
    let before = reserve(&server);
    for _ in 0..3 {
        let refused = client.call("job.submit", json!({"argv": ["true"]}));
        refused.expect_err("the reserve goes first");
        assert_eq!(reserve(&server), before);
    }
    drop(failing);
    until("the reserve to be whole", || {
        client.call("job.submit", json!({"argv": ["true"]})).ok()
    });
    let (length_now, held) = reserve(&server);
    assert!(length_now == length && held >= length);
}

/// A length that many processes have changed at once in an earlier version is no size to keep.
#[test]
fn a_reserve_that_has_lost_its_size_is_made_anew() {
    let mut server = Server::start();
    let path = server.data_dir().join("cc-executor.ballast");
    let (length, _) = reserve(&server);
    server.kill_9();
    let file = fs::File::options().write(true).open(&path).expect("it");
    file.set_len(430_080).expect("cut");
    // Somebody who stands still may have its lock.
    file.lock().expect("the lock");
    server.restart();
    let (length_now, held) = reserve(&server);
    assert!(length_now == length && held >= length, "{length_now}");
}
