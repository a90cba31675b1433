//! How jobs end by themselves: exit codes, signals, spawn errors, timeouts, output limits.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Client, Frame, Server, Transcript, assert_bytes, content, emit, until_true};

fn end_of(client: &mut Client, job: Value) -> Value {
    let job = client.submit(job);
    client.finished(&job)
}

#[test]
fn exit_codes_and_signals_are_the_kernels() {
    let server = Server::start();
    let mut client = server.connect();
    for code in [0, 1, 3, 127, 255] {
        let end = end_of(
            &mut client,
            json!({"argv": [emit(), "--exit", code.to_string()]}),
        );
        let (state, reason) = match code {
            0 => ("succeeded", Value::Null),
            _ => ("failed", json!("exit_code")),
        };
        assert_eq!(end["state"], state);
        assert_eq!(end["reason"], reason);
        assert_eq!(end["exit_code"], code);
        assert_eq!(end["signal"], Value::Null);
    }
    for (number, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (6, "SIGABRT")] {
        let argv = json!([emit(), "--signal", number.to_string()]);
        let end = end_of(&mut client, json!({"argv": argv}));
        assert_eq!(end["state"], "failed");
        assert_eq!(end["reason"], "signal");
        assert_eq!(end["signal"], name);
        assert_eq!(end["exit_code"], Value::Null);
    }
}

#[test]
fn usage_is_counted() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let end = end_of(&mut client, json!({"shell": line}));
    assert!(end["usage"]["user_s"].as_f64() > Some(0.01), "{end}");
    assert!(
        end["usage"]["max_rss_bytes"].as_u64() > Some(100_000),
        "{end}"
    );
}

#[test]
fn what_cannot_be_started_names_its_error() {
    let server = Server::start();
    let mut client = server.connect();
    let plain = server.scratch("plain");
    fs::write(&plain, "#!/bin/sh\n").expect("a file");
    let shebang = server.scratch("shebang");
    fs::write(&shebang, "#!/no/such/interpreter\n").expect("a file");
    fs::set_permissions(&shebang, fs::Permissions::from_mode(0o755)).expect("a mode");
    let (plain, shebang) = (plain.to_str(), shebang.to_str());
    for (job, errno, name) in [
        (json!({"argv": ["no-such-program"]}), 2, "ENOENT"),
        (json!({"argv": ["/no/such/program"]}), 2, "ENOENT"),
        (json!({"argv": [plain]}), 13, "EACCES"),
        (json!({"argv": [shebang]}), 2, "ENOENT"),
        (json!({"argv": ["/etc"]}), 13, "EACCES"),
        (
            json!({"argv": ["true"], "cwd": "/no/such/directory"}),
            2,
            "ENOENT",
        ),
        (
            json!({"argv": ["true"], "cwd": "/etc/passwd"}),
            20,
            "ENOTDIR",
        ),
    ] {
        let shown = job.to_string();
        let end = end_of(&mut client, job);
        assert_eq!(end["state"], "failed", "{shown}");
        assert_eq!(end["reason"], "spawn", "{shown}");
        assert_eq!(end["exit_code"], Value::Null);
        assert_eq!(end["signal"], Value::Null);
        let error = &end["spawn_error"];
        assert_eq!(error["errno"], errno, "{shown}: {error}");
        assert_eq!(error["name"], name);
        assert!(error["what"].as_str().is_some_and(|what| !what.is_empty()));
        assert_eq!(client.whole(&end).bytes, b"");
    }
}

#[test]
fn arguments_that_are_too_long_for_the_kernel_are_told_as_such() {
    let server = Server::start();
    let mut client = server.connect();
    let end = end_of(&mut client, json!({"argv": ["true", "x".repeat(200_000)]}));
    assert_eq!(end["reason"], "spawn");
    assert_eq!(end["spawn_error"]["name"], "E2BIG");
}

#[test]
fn the_program_is_looked_up_in_the_jobs_own_path() {
    let server = Server::start();
    let mut client = server.connect();
    let place = server.scratch("bin");
    fs::create_dir(&place).expect("a directory");
    let tool = place.join("only-here");
    fs::write(&tool, "#!/bin/sh\necho found\n").expect("a file");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = format!("/nowhere:{}:/usr/bin:/bin", place.display());
    let job = client.submit(json!({"argv": ["only-here"], "env": {"PATH": path}}));
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"found\n");
}

#[test]
fn a_timeout_stops_the_job() {
    let server = Server::start();
    let mut client = server.connect();
    let began = Instant::now();
    let line = "echo begun; exec sleep 1000";
    let job = server.marked(json!({"shell": line, "timeout_s": 0.5}));
    let end = end_of(&mut client, job);
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert_eq!(end["state"], "failed");
    assert_eq!(end["reason"], "timeout");
    assert_eq!(end["signal"], "SIGTERM");
    assert_eq!(end["stop"]["cause"], "timeout");
    assert_eq!(client.whole(&end).bytes, b"begun\n");
    assert_eq!(server.job_processes(), Vec::<i32>::new());
}

#[test]
fn a_timeout_kills_what_ignores_it() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--ignore-term", "--hold", "1000"]);
    let job = json!({"argv": argv, "timeout_s": 0.3, "grace_s": 0.2});
    let end = end_of(&mut client, server.marked(job));
    assert_eq!(end["reason"], "timeout");
    assert_eq!(end["stop"]["killed"], true);
}

#[test]
fn timeouts_stand_still_in_a_pause() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "echo ready; exec sleep 1000";
    let job = json!({"shell": line, "timeout_s": 1.5, "stall_timeout_s": 1.5});
    let job = client.submit(server.marked(job));
    client.started(&job);
    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    let wait = json!({"jobs": [job["id"]], "timeout_s": 2.5});
    let waited = client.ok("job.wait", wait);
    assert_eq!(
        waited["met"], false,
        "it was stopped while paused: {waited}"
    );
    client.control(&job, "resume");
    let end = client.finished(&job);
    assert!(
        end["reason"] == "timeout" || end["reason"] == "stalled",
        "{end}"
    );
}

#[test]
fn silence_is_a_stall_and_output_is_none() {
    let server = Server::start();
    let mut client = server.connect();
    let talker = json!({"shell": "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done",
                        "stall_timeout_s": 1.2});
    let talker = client.submit(server.marked(talker));
    let silent = json!({"shell": "echo once; exec sleep 1000", "stall_timeout_s": 0.4});
    let silent = client.submit(server.marked(silent));
    let end = client.finished(&silent);
    assert_eq!(end["state"], "failed");
    assert_eq!(end["reason"], "stalled");
    assert_eq!(end["stop"]["cause"], "stalled");
    assert_eq!(client.finished(&talker)["state"], "succeeded");
}

#[test]
fn the_output_limit_stores_exactly_its_bytes() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "11",
        "--bytes",
        "1000000",
        "--hold",
        "1000"
    ]);
    let job = json!({"argv": argv, "output": {"max_bytes": 123_457}});
    let job = client.submit(server.marked(job));
    let transcript = client.whole(&job);
    assert_bytes(
        &transcript.bytes,
        &content(11, 0, 123_457, false),
        "up to the limit",
    );
    let end = transcript.verified();
    assert_eq!(end["state"], "failed");
    assert_eq!(end["reason"], "output_limit");
    assert_eq!(end["output_bytes"], 123_457);
}

#[test]
fn output_of_just_the_limit_is_no_failure() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "12", "--bytes", "5000"]);
    let job = json!({"argv": argv, "output": {"max_bytes": 5000, "when_full": "fail"}});
    let end = end_of(&mut client, job);
    assert_eq!(end["state"], "succeeded", "{end}");
}

#[test]
fn one_free_slot_is_given_by_priority_and_then_in_submit_order() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let ledger = server.scratch("ledger");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    let slots = 4.max(std::thread::available_parallelism().map_or(1, usize::from));
    for slot in 0..slots {
        let line = if slot == 0 {
            wait.as_str()
        } else {
            "exec sleep 1000"
        };
        let job = client.submit(server.marked(json!({"shell": line})));
        client.started(&job);
    }
    let late = [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1)].map(|(n, priority)| {
        let line = format!("echo {n} >> {}", ledger.display());
        client.submit(json!({"shell": line, "priority": priority}))
    });
    for job in &late {
        assert_eq!(client.get(job)["state"], "queued");
    }
    fs::write(&gate, "").expect("the gate");
    for job in &late {
        assert_eq!(client.finished(job)["state"], "succeeded");
    }
    let order = fs::read_to_string(&ledger).expect("the ledger");
    assert_eq!(order, "2\n4\n1\n3\n5\n");
}

#[test]
fn at_a_full_spool_the_process_waits_and_can_be_cancelled() {
    const BOUND: usize = 2 << 20;
    let settings = [
        ("CC_EXECUTOR_SPOOL_BYTES_MAX", "2097152"),
        ("CC_EXECUTOR_SEGMENT_BYTES", "262144"),
    ];
    let server = Server::with(&[], &settings);
    let mut client = server.connect();
    // The stall clock stands still while it is we who make the process wait.
    let job = json!({"argv": ["yes", "full"], "stall_timeout_s": 1});
    let job = client.submit(server.marked(job));
    let subscription = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    let mut take = |within: Duration, transcript: &mut Transcript| {
        let frame = client.frame_within(within);
        if let Some(Frame::Json(value)) = &frame {
            transcript.take(value);
            assert!(transcript.end.is_none(), "it ended: {value}");
        }
        frame.is_some()
    };
    let mut other = server.connect();
    let mut stored = || other.get(&job)["output_bytes"].as_u64().expect("bytes") as usize;
    until_true("the process to wait and all it wrote to arrive", || {
        while take(Duration::from_millis(20), &mut transcript) {}
        server.said().contains("a job waits") && transcript.bytes.len() == stored()
    });
    // Longer than the stall timeout, and nothing happens.
    let before = transcript.bytes.len();
    let more = take(Duration::from_millis(1500), &mut transcript);
    let after = transcript.bytes.len();
    assert!(!more, "{before} bytes, then {after}: {}", server.said());
    assert!(
        transcript.bytes.len() > BOUND / 2,
        "{}",
        transcript.bytes.len()
    );
    assert!(
        transcript.bytes.len() <= BOUND,
        "{}",
        transcript.bytes.len()
    );
    assert_eq!(client.get(&job)["state"], "running");
    client.control(&job, "cancel");
    client.follow(subscription, &mut transcript);
    assert_eq!(transcript.verified()["state"], "cancelled");
}
