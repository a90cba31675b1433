//! A full disk: acknowledged work stays, reads work, submits are refused, running jobs wait and can
//! be cancelled, and everything goes on by itself when there is room again.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use serde_json::{Value, json};

use crate::harness::{
    Client, Disk, FileSystem, Server, Transcript, assert_bytes, content, emit, is_alive, until,
    until_true,
};

const UNAVAILABLE: i64 = -32006;
pub const MIB: u64 = 1 << 20;

/// Each scenario is a test on each kind of file system.
macro_rules! on_each_file_system {
    ($($scenario:ident,)*) => {
        mod tmpfs {
            $(#[test] fn $scenario() { super::$scenario(super::FileSystem::Tmpfs); })*
        }
        mod ext4 {
            $(#[test] fn $scenario() { super::$scenario(super::FileSystem::Ext4); })*
        }
    };
}

on_each_file_system! {
    a_job_that_fills_the_disk_waits_for_room,
    a_job_that_fills_the_disk_can_be_cancelled,
    on_a_disk_without_one_byte_left_nothing_is_lost,
    on_a_disk_without_one_byte_left_a_job_can_be_cancelled,
    a_kill_on_a_full_disk_costs_nothing,
    a_running_job_takes_input_and_a_waiting_one_keeps_none,
    on_a_disk_without_one_byte_left_a_kill_is_final,
    on_a_disk_without_one_byte_left_a_job_that_ends_is_final,
    running_jobs_do_not_eat_the_ballast,
    a_server_starts_on_a_full_disk,
}

/// A server on a disk of 64 MiB, of which so much has to stay free.
fn on_a_small_disk(kind: FileSystem, free_bytes_min: u64) -> Option<(Disk, Server)> {
    let disk = Disk::mount(kind, 64 * MIB)?;
    let min = free_bytes_min.to_string();
    let mut server = Server::stopped(&["--free-bytes-min", &min], &[]).within(disk.path("data"));
    server.restart();
    Some((disk, server))
}

/// Waits until submits are refused for the disk.
fn until_full(client: &mut Client) {
    until("the disk to be full", || {
        let submitted = client.call("job.submit", json!({"argv": ["/bin/true"]}));
        submitted.err().inspect(|error| {
            assert_eq!(error["code"], UNAVAILABLE, "{error}");
            assert_eq!(error["data"]["kind"], "unavailable");
        })
    });
}

fn emitter(seed: u64, bytes: u64, more: &[&str]) -> Value {
    let mut argv = vec![json!(emit()), json!("--seed"), json!(seed.to_string())];
    argv.extend([json!("--bytes"), json!(bytes.to_string())]);
    argv.extend(more.iter().map(|word| json!(word)));
    json!({ "argv": argv })
}

/// Nothing ends within this time, although a stall timeout of one second would have struck.
fn stays_as_it_is(client: &mut Client, job: &Value) {
    let params = json!({"jobs": [job["id"]], "timeout_s": 2.5});
    let reply = client.ok("job.wait", params);
    assert_eq!(reply["met"], false, "{reply}");
    assert_eq!(client.get(job)["state"], "running");
}

/// What is stored of a running job.
fn read_so_far(client: &mut Client, job: &Value) -> Transcript {
    let subscription = client.tail(json!({"job": job["id"], "follow": false}));
    let mut transcript = Transcript::default();
    while transcript.caught_up.is_none() {
        client.step(subscription, &mut transcript);
    }
    transcript
}

/// Everything that was ever accepted comes to its end.
fn all_end(client: &mut Client) {
    until("all jobs to end", || {
        let live = json!({"state": ["queued", "running", "paused"]});
        let page = client.ok("job.list", live);
        (page["jobs"].as_array()?.is_empty()).then_some(())
    });
}

/// A job that ends when the file appears.
fn gated(gate: &Path) -> Value {
    let gate = gate.display();
    json!({"shell": format!("while [ ! -e {gate} ]; do sleep 0.02; done; echo through; exit 4")})
}

fn a_job_that_fills_the_disk_waits_for_room(kind: FileSystem) {
    let Some((disk, server)) = on_a_small_disk(kind, 8 * MIB) else {
        return;
    };
    let mut client = server.connect();
    let before = client.submit(server.marked(json!({"argv": ["/bin/echo", "before"]})));
    client.finished(&before);
    let bytes = 80 * MIB;
    let mut job = emitter(71, bytes, &["--chunk", "65536:65536"]);
    job["stall_timeout_s"] = json!(1);
    let job = client.submit(server.marked(job));
    until_full(&mut client);
    stays_as_it_is(&mut client, &job);

    let so_far = read_so_far(&mut client, &job).bytes;
    assert!(so_far.len() as u64 > 40 * MIB, "{}", so_far.len());
    assert_bytes(&so_far, &content(71, 0, so_far.len() as u64, false), "tail");
    assert_eq!(client.get(&before)["state"], "succeeded");
    assert_eq!(client.download(&before, 65536), b"before\n");

    disk.grow(256 * MIB);
    let whole = client.whole(&job);
    assert_bytes(&whole.bytes, &content(71, 0, bytes, false), "all of it");
    assert_eq!(whole.verified()["state"], "succeeded");
    let after = client.submit(server.marked(json!({"argv": ["/bin/true"]})));
    assert_eq!(client.finished(&after)["state"], "succeeded");
    all_end(&mut client);
}

fn a_job_that_fills_the_disk_can_be_cancelled(kind: FileSystem) {
    let Some((_disk, server)) = on_a_small_disk(kind, 8 * MIB) else {
        return;
    };
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["/usr/bin/yes"]})));
    until_full(&mut client);
    client.control(&job, "cancel");
    // What has to stay free is there for this: the end needs no room from elsewhere.
    let transcript = client.whole(&job);
    assert_eq!(transcript.verified()["state"], "cancelled");
    assert!(server.job_processes().is_empty());
}

fn on_a_disk_without_one_byte_left_nothing_is_lost(kind: FileSystem) {
    let Some((disk, server)) = on_a_small_disk(kind, 0) else {
        return;
    };
    let mut client = server.connect();
    let before = client.submit(server.marked(json!({"argv": ["/bin/echo", "before"]})));
    client.finished(&before);
    let gate = server.scratch("gate");
    let quiet = client.submit(server.marked(gated(&gate)));
    let slow = ["--chunk", "4096:4096", "--pause-us", "500"];
    let mut writer = emitter(72, 12 * MIB, &slow);
    writer["stall_timeout_s"] = json!(1);
    let writer = client.submit(server.marked(writer));
    client.started(&quiet);
    until("some output", || {
        (client.get(&writer)["output_bytes"].as_u64()? > MIB).then_some(())
    });
    let ballast = disk.fill();
    until_full(&mut client);
    let pids = server.job_processes();
    fs::write(&gate, "").expect("the gate, which lies elsewhere");
    stays_as_it_is(&mut client, &writer);
    let alive = pids.iter().filter(|pid| is_alive(**pid)).count();
    assert!(alive >= 1, "the one that writes waits");

    let so_far = read_so_far(&mut client, &writer).bytes;
    assert_bytes(&so_far, &content(72, 0, so_far.len() as u64, false), "tail");
    assert_eq!(client.download(&before, 65536), b"before\n");
    client.ok("job.list", json!({}));
    client.ok("server.info", json!({}));

    let lines = server.said().lines().count();
    assert!(lines < 200, "a full disk is told {lines} times");

    fs::remove_file(ballast).expect("removed");
    let quiet = client.finished(&quiet);
    assert_eq!(
        (&quiet["state"], &quiet["exit_code"]),
        (&json!("failed"), &json!(4))
    );
    let whole = client.whole(&writer);
    assert_bytes(&whole.bytes, &content(72, 0, 12 * MIB, false), "all of it");
    assert_eq!(whole.verified()["state"], "succeeded");
    let after = client.submit(server.marked(json!({"argv": ["/bin/true"]})));
    assert_eq!(client.finished(&after)["state"], "succeeded");
    all_end(&mut client);
}

fn on_a_disk_without_one_byte_left_a_job_can_be_cancelled(kind: FileSystem) {
    let Some((disk, server)) = on_a_small_disk(kind, 0) else {
        return;
    };
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["/usr/bin/yes"]})));
    client.started(&job);
    until("some output", || {
        (client.get(&job)["output_bytes"].as_u64()? > 4 * MIB).then_some(())
    });
    let ballast = disk.fill();
    until_full(&mut client);
    client.control(&job, "cancel");
    until_true("its processes to be gone", || {
        server.job_processes().is_empty()
    });

    fs::remove_file(ballast).expect("removed");
    disk.grow(128 * MIB);
    let transcript = client.whole(&job);
    assert_eq!(transcript.verified()["state"], "cancelled");
    let expected: Vec<u8> = b"y\n"
        .iter()
        .copied()
        .cycle()
        .take(transcript.bytes.len())
        .collect();
    assert_bytes(&transcript.bytes, &expected, "what was written");
}

/// A server that is killed on a full disk finds everything when it comes back to one with room.
fn a_kill_on_a_full_disk_costs_nothing(kind: FileSystem) {
    let Some((disk, mut server)) = on_a_small_disk(kind, 0) else {
        return;
    };
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let quiet = client.submit(server.marked(gated(&gate)));
    client.started(&quiet);
    let ballast = disk.fill();
    until_full(&mut client);
    server.kill_9();
    fs::write(&gate, "").expect("the gate, which lies elsewhere");
    until_true("the job's end", || server.job_processes().is_empty());
    fs::remove_file(ballast).expect("removed");
    server.restart();
    let mut client = server.connect();
    let transcript = client.whole(&quiet);
    assert_eq!(transcript.bytes, b"through\n");
    assert_eq!(transcript.verified()["exit_code"], 4);
}

fn a_running_job_takes_input_and_a_waiting_one_keeps_none(kind: FileSystem) {
    let Some((disk, server)) = on_a_small_disk(kind, MIB) else {
        return;
    };
    let mut client = server.connect();
    let talker = |client: &mut Client| {
        let job = json!({"shell": "read -r word; exit \"$word\"", "interactive": true});
        client.submit(server.marked(job))
    };
    let running: Vec<Value> = until("a job that has to wait", || {
        let job = talker(&mut client);
        let params = json!({"jobs": [job["id"]], "until": "running", "timeout_s": 1});
        let met = client.ok("job.wait", params)["met"] == true;
        let page = client.ok("job.list", json!({"state": "running"}));
        (!met).then(|| page["jobs"].as_array().cloned().unwrap_or_default())
    });
    let page = client.ok("job.list", json!({"state": "queued"}));
    let waiting = page["jobs"][0].clone();
    let ballast = disk.fill();
    until_full(&mut client);
    let input = |job: &Value| json!({"job": job["id"], "data": "5\n", "write_id": "w"});
    // A few bytes may still find room in the database.
    let mut much = input(&waiting);
    much["data"] = json!(format!("5\n{}", "x".repeat(800_000)));
    client.refused(UNAVAILABLE, "job.input", much.clone());
    client.ok("job.input", input(&running[0]));
    fs::remove_file(ballast).expect("the ballast");
    until_true("there is room again", || {
        client.call("job.input", much.clone()).is_ok()
    });
    assert_eq!(client.finished(&running[0])["exit_code"], 5);
    for job in &running[1..] {
        client.ok("job.input", input(job));
    }
    assert_eq!(client.finished(&waiting)["exit_code"], 5);
    all_end(&mut client);
}

/// Nothing of what is on the disk goes away by itself: the ballast is what lets it end.
fn on_a_disk_without_one_byte_left_a_kill_is_final(kind: FileSystem) {
    let Some((disk, server)) = on_a_small_disk(kind, 0) else {
        return;
    };
    let mut client = server.connect();
    // None fills the disk before all have started.
    let place = tempfile::tempdir().expect("a temporary directory");
    let go = place.path().join("go");
    let line = format!(
        "until [ -e {} ]; do sleep 0.02; done; exec yes",
        go.display()
    );
    let yes: Vec<Value> = (0..3)
        .map(|_| client.submit(server.marked(json!({"argv": ["sh", "-c", line]}))))
        .collect();
    for job in &yes {
        client.started(job);
    }
    fs::write(&go, "").expect("written");
    until_full(&mut client);
    disk.fill();
    client.control(&yes[0], "kill");
    assert_eq!(client.finished(&yes[0])["state"], "cancelled");
    client.control(&yes[1], "cancel");
    assert_eq!(client.finished(&yes[1])["state"], "cancelled");
    client.refused(UNAVAILABLE, "job.submit", json!({"argv": ["/bin/true"]}));
    assert_eq!(client.get(&yes[2])["state"], "running");
    let whole = client.whole(&yes[0]);
    assert!(whole.verified()["output_sha256"].is_string());

    // Before there is room: it would fill that as well.
    client.control(&yes[2], "cancel");
    disk.grow(256 * MIB);
    assert_eq!(client.finished(&yes[2])["state"], "cancelled");
    let after = submitted(&mut client);
    assert_eq!(client.finished(&after)["state"], "succeeded");
    all_end(&mut client);
    assert!(server.data_dir().join("cc-executor.ballast").exists());
    until_true("what was given up to be there again", || {
        missing(&server) == 0
    });
}

/// What the ballast has given back to the disk.
fn missing(server: &Server) -> u64 {
    let path = server.data_dir().join("cc-executor.ballast");
    let data = fs::metadata(path).expect("the ballast");
    data.len().saturating_sub(data.blocks() * 512)
}

/// A job, as soon as it is taken.
fn submitted(client: &mut Client) -> Value {
    until("there is room again", || {
        let reply = client.call("job.submit", json!({"argv": ["/bin/true"]}));
        Some(reply.ok()?["job"].clone())
    })
}

fn on_a_disk_without_one_byte_left_a_job_that_ends_is_final(kind: FileSystem) {
    let Some((disk, server)) = on_a_small_disk(kind, 0) else {
        return;
    };
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let quiet = client.submit(server.marked(gated(&gate)));
    let waits = client.submit(server.marked(json!({"shell": "while :; do sleep 0.01; done"})));
    client.started(&quiet);
    client.started(&waits);
    disk.fill();
    until_full(&mut client);
    fs::write(&gate, "").expect("the gate, which lies elsewhere");
    let whole = client.whole(&quiet);
    assert_eq!(whole.bytes, b"through\n");
    assert_eq!(whole.verified()["exit_code"], 4);
    client.control(&waits, "pause");
    until_true("the pause", || client.get(&waits)["state"] == "paused");
    client.control(&waits, "resume");
    until_true("its end", || client.get(&waits)["state"] == "running");
    client.control(&waits, "kill");
    assert_eq!(client.finished(&waits)["state"], "cancelled");
}

/// Running jobs leave what was given up to those that end, and go on when there is more.
fn running_jobs_do_not_eat_the_ballast(kind: FileSystem) {
    let Some((disk, server)) = on_a_small_disk(kind, 0) else {
        return;
    };
    let mut client = server.connect();
    let yes = client.submit(server.marked(json!({"argv": ["/usr/bin/yes"]})));
    let slow = ["--chunk", "4096:4096", "--pause-us", "500"];
    let slow = client.submit(server.marked(emitter(73, 12 * MIB, &slow)));
    client.started(&yes);
    client.started(&slow);
    disk.fill();
    until_full(&mut client);
    client.control(&yes, "kill");
    assert_eq!(client.finished(&yes)["state"], "cancelled");
    let stored = client.get(&slow)["output_bytes"].clone();
    assert!(missing(&server) > 0, "that end took some of the ballast");
    stays_as_it_is(&mut client, &slow);
    assert_eq!(client.get(&slow)["output_bytes"], stored);
    disk.grow(256 * MIB);
    let whole = client.whole(&slow);
    assert_bytes(&whole.bytes, &content(73, 0, 12 * MIB, false), "all of it");
    assert_eq!(whole.verified()["state"], "succeeded");
}

/// A start has to write, and jobs that ended meanwhile have to be finished.
fn a_server_starts_on_a_full_disk(kind: FileSystem) {
    let Some((disk, mut server)) = on_a_small_disk(kind, 0) else {
        return;
    };
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let quiet = client.submit(server.marked(gated(&gate)));
    let yes = client.submit(server.marked(json!({"argv": ["/usr/bin/yes"]})));
    client.started(&quiet);
    client.started(&yes);
    until_full(&mut client);
    let (status, _) = server.stop();
    assert!(status.success());
    let ballast = disk.fill();
    server.restart();
    let mut client = server.connect();
    // What the start carries over from the write-ahead log may leave room for a moment.
    until_full(&mut client);
    fs::write(&gate, "").expect("the gate, which lies elsewhere");
    assert_eq!(client.finished(&quiet)["exit_code"], 4);
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    client.control(&yes, "kill");
    assert_eq!(client.finished(&yes)["state"], "cancelled");
    fs::remove_file(ballast).expect("removed");
    disk.grow(128 * MIB);
    let after = submitted(&mut client);
    assert_eq!(client.finished(&after)["state"], "succeeded");
}
