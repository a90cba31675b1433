//! The wall clock of the server and its shims jumps a day forward and then two days back: order,
//! timeouts, pauses, waits and tails do not notice.
//!
//! What people see of such times is tested with the command line.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    CEILING, Client, DAY_S, Server, Transcript, WallClock, assert_bytes, content, emit, parent,
    until, until_true,
};

/// Where the clock jumps to in each test, one after the other: tomorrow, then yesterday, which is
/// also before everything that has happened.
const JUMPS_S: [i64; 2] = [DAY_S, -DAY_S];

/// A server that goes by a clock of its own, as do its shims.
fn on_its_own_clock(args: &[&str]) -> (WallClock, Server) {
    let clock = WallClock::new();
    let env = clock.env();
    let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let server = Server::with(args, &env);
    (clock, server)
}

/// Jumps, and proves that the server goes by that clock and so do the shims of its jobs.
#[track_caller]
fn jump(clock: &WallClock, server: &Server, shift_s: i64) {
    clock.moves(server.pid());
    let shims = server.shims();
    let held = server.job_processes().into_iter().filter_map(parent);
    held.filter(|pid| shims.contains(pid))
        .for_each(|shim| clock.moves(shim));
    clock.jump_to(shift_s);
}

/// A job that ends by itself only after these tests.
fn sleeper(server: &Server, more: Value) -> Value {
    let mut job = server.marked(json!({"argv": ["sleep", "1000"]}));
    for (key, value) in more.as_object().expect("keys") {
        job[key] = value.clone();
    }
    job
}

/// Nothing ends these within a second and a half.
#[track_caller]
fn go_on(client: &mut Client, jobs: &[&Value]) {
    let ids: Vec<&Value> = jobs.iter().map(|job| &job["id"]).collect();
    let reply = client.ok("job.wait", json!({"jobs": ids, "timeout_s": 1.5}));
    assert_eq!(reply["met"], false, "{reply}");
}

fn seconds(at: &Value) -> i64 {
    let text = at.as_str().expect("a moment");
    let at: chrono::DateTime<chrono::Utc> = text.parse().expect("RFC 3339");
    at.timestamp()
}

/// Without this no other test here means anything.
#[test]
fn server_and_shims_go_by_the_clock_that_jumps() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.02; done; echo after",
        gate.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    client.started(&job);
    until_true("its first line", || client.get(&job)["output_bytes"] == 7);
    jump(&clock, &server, DAY_S);
    fs::write(&gate, "").expect("the gate");
    let end = client.finished(&job);
    let ran_s = seconds(&end["finished_at"]) - seconds(&end["started_at"]);
    assert!(
        (DAY_S..DAY_S + 600).contains(&ran_s),
        "the shim's clock: {end}"
    );
    let read = client.ok("job.read", json!({"job": job["id"], "from": 0}));
    let at = |chunk: usize| seconds(&read["chunks"][chunk]["at"]);
    assert!(at(1) - at(0) >= DAY_S, "the output's clock: {read}");
    let next = client.submit(json!({"argv": ["true"]}));
    let later_s = seconds(&next["submitted_at"]) - seconds(&end["submitted_at"]);
    assert!(later_s >= DAY_S, "the server's clock: {next}");
    client.finished(&next);
}

#[test]
fn jobs_start_in_the_order_of_priority_and_submission() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "one", "concurrency": 1}));
    let (gate, order) = (server.scratch("gate"), server.scratch("order"));
    let line = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    let first = client.submit(server.marked(json!({"shell": line, "queue": "one"})));
    client.started(&first);
    let mut submit = |word: &str, priority: i64| {
        let line = format!("echo {word} >> {}", order.display());
        let job = json!({"shell": line, "queue": "one", "priority": priority});
        client.submit(server.marked(job))
    };
    let mut jobs = vec![submit("a", 0)];
    for (shift_s, words) in JUMPS_S.into_iter().zip([["b", "c"], ["d", "e"]]) {
        jump(&clock, &server, shift_s);
        jobs.push(submit(words[0], 0));
        jobs.push(submit(words[1], 1));
    }
    fs::write(&gate, "").expect("the gate");
    for job in &jobs {
        assert_eq!(client.finished(job)["state"], "succeeded");
    }
    let order = fs::read_to_string(order).expect("what ran");
    assert_eq!(order.split_whitespace().collect::<String>(), "ceabd");
    let page = client.ok("job.list", json!({"queue": "one"}));
    let numbers = page["jobs"].as_array().expect("jobs").iter();
    let numbers: Vec<_> = numbers.map(|job| job["number"].as_i64()).collect();
    assert!(
        numbers.is_sorted_by(|a, b| a > b),
        "newest first: {numbers:?}"
    );
}

#[test]
fn a_timeout_strikes_in_its_time_and_a_long_one_does_not() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    let long = client.submit(sleeper(&server, json!({"timeout_s": 3600})));
    let silent = client.submit(sleeper(&server, json!({"stall_timeout_s": 3600})));
    client.started(&long);
    client.started(&silent);
    for shift_s in JUMPS_S {
        for (key, reason) in [("timeout_s", "timeout"), ("stall_timeout_s", "stalled")] {
            let began = Instant::now();
            let job = client.submit(sleeper(&server, json!({key: 2.5})));
            client.started(&job);
            jump(&clock, &server, shift_s);
            let end = client.finished(&job);
            assert_eq!(end["reason"], reason, "{end}");
            assert!(began.elapsed() >= Duration::from_millis(2500), "too early");
            jump(&clock, &server, 0);
        }
        jump(&clock, &server, shift_s);
        go_on(&mut client, &[&long, &silent]);
    }
}

#[test]
fn in_a_pause_timeouts_stand_still() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    for shift_s in JUMPS_S {
        let began = Instant::now();
        let limits = json!({"timeout_s": 2, "stall_timeout_s": 1000});
        let job = client.submit(sleeper(&server, limits));
        client.started(&job);
        client.control(&job, "pause");
        until_true("the pause", || client.get(&job)["state"] == "paused");
        jump(&clock, &server, shift_s);
        let paused = Instant::now();
        go_on(&mut client, &[&job]);
        assert_eq!(client.get(&job)["state"], "paused");
        let paused = paused.elapsed();
        client.control(&job, "resume");
        jump(&clock, &server, 0);
        assert_eq!(client.finished(&job)["reason"], "timeout");
        assert!(
            began.elapsed() >= Duration::from_secs(2) + paused,
            "too early"
        );
    }
}

#[test]
fn the_grace_of_a_cancel_is_as_long_as_it_was() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    let deaf = |client: &mut Client, grace_s: f64| {
        let argv = json!([emit(), "--bytes", "64", "--ignore-term", "--hold", "1000"]);
        let job = client.submit(server.marked(json!({"argv": argv, "grace_s": grace_s})));
        until_true("it to be deaf", || client.get(&job)["output_bytes"] == 64);
        job
    };
    let patient = deaf(&mut client, 3600.0);
    client.control(&patient, "cancel");
    for shift_s in JUMPS_S {
        let job = deaf(&mut client, 2.0);
        let asked = Instant::now();
        client.control(&job, "cancel");
        jump(&clock, &server, shift_s);
        let end = client.finished(&job);
        assert_eq!(end["state"], "cancelled");
        assert_eq!(end["stop"]["killed"], true);
        assert!(asked.elapsed() >= Duration::from_secs(2), "too early");
        go_on(&mut client, &[&patient]);
    }
}

/// Begins to wait until a job has been silent for so long.
fn begin_quiet(client: &mut Client, job: &Value, idle_s: f64) -> i64 {
    let until = json!({"idle_s": idle_s});
    let params = json!({"jobs": [job["id"]], "until": until, "timeout_s": CEILING.as_secs()});
    client.begin("job.wait", params)
}

/// Whether a job has been silent for so long already.
fn is_quiet(client: &mut Client, job: &Value, idle_s: f64) -> bool {
    let until = json!({"idle_s": idle_s});
    let params = json!({"jobs": [job["id"]], "until": until, "timeout_s": 0});
    client.ok("job.wait", params)["met"] == true
}

#[test]
fn a_wait_ends_in_its_time() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    for shift_s in JUMPS_S {
        let job = client.submit(sleeper(&server, json!({})));
        client.started(&job);
        let began = Instant::now();
        let timed = json!({"jobs": [job["id"]], "timeout_s": 2});
        let timed = client.begin("job.wait", timed);
        let quiet = begin_quiet(&mut client, &job, 4.0);
        client.get(&job);
        jump(&clock, &server, shift_s);
        assert_eq!(client.reply(timed).expect("a wait")["met"], false);
        assert!(began.elapsed() >= Duration::from_secs(2), "too early");
        assert_eq!(client.reply(quiet).expect("a wait")["met"], true);
        assert!(began.elapsed() >= Duration::from_secs(3), "too early");
        client.control(&job, "kill");
        jump(&clock, &server, 0);
    }
}

/// What was silent before the wait began counts, and the jump between does not.
#[test]
fn silence_before_a_wait_is_measured_by_the_steady_clock() {
    let (clock, mut server) = on_its_own_clock(&[]);
    for restarts in [false, true] {
        for shift_s in JUMPS_S {
            let mut client = server.connect();
            let silent = client.submit(sleeper(&server, json!({})));
            client.started(&silent);
            let line = "echo said; exec sleep 1000";
            let said = client.submit(server.marked(json!({"shell": line})));
            until_true("its line", || client.get(&said)["output_bytes"] == 5);
            let resumed = client.submit(sleeper(&server, json!({})));
            client.started(&resumed);
            go_on(&mut client, &[&silent, &said, &resumed]);
            if !restarts {
                client.control(&resumed, "pause");
                until_true("the pause", || client.get(&resumed)["state"] == "paused");
                client.control(&resumed, "resume");
                until_true("its end", || client.get(&resumed)["state"] == "running");
            }
            jump(&clock, &server, shift_s);
            if restarts {
                server.kill_9();
                server.restart();
                client = server.connect();
            }
            for job in [&silent, &said, &resumed] {
                assert!(!is_quiet(&mut client, job, 3600.0), "not for an hour yet");
            }
            for job in [&silent, &said] {
                assert!(is_quiet(&mut client, job, 1.5), "for so long already");
            }
            assert_eq!(is_quiet(&mut client, &resumed, 1.5), restarts);
            for job in [&silent, &said, &resumed] {
                client.control(job, "kill");
                client.finished(job);
            }
            clock.jump_to(0);
        }
    }
}

/// Of several jobs that are final already, the last one to end decides a wait for all of them.
#[test]
fn the_last_of_all_is_the_one_that_ended_last() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    let mut jobs = Vec::new();
    for shift_s in JUMPS_S {
        clock.jump_to(shift_s);
        let job = client.submit(json!({"argv": ["true"]}));
        client.finished(&job);
        jobs.push(job["id"].clone());
    }
    let all = client.ok("job.wait", json!({"jobs": jobs, "mode": "all"}));
    assert_eq!(all["met"], true);
    assert_eq!(all["job"]["id"], jobs[1], "{all}");
}

#[test]
fn the_delay_after_a_lost_connection_is_as_long_as_it_was() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    for shift_s in JUMPS_S {
        let mut leaving = server.connect();
        let mut tied = |delay_s: f64| {
            let keys = json!({"grace_s": 0, "on_disconnect": "cancel",
                              "disconnect_delay_s": delay_s});
            leaving.submit(sleeper(&server, keys))
        };
        let (soon, late) = (tied(2.0), tied(3600.0));
        let left = Instant::now();
        drop(leaving);
        jump(&clock, &server, shift_s);
        // A `job.wait` calls nothing off.
        assert_eq!(client.finished(&soon)["stop"]["by"], "disconnect");
        assert!(left.elapsed() >= Duration::from_secs(2), "too early");
        go_on(&mut client, &[&late]);
    }
}

/// Follows a job whose output comes slowly while the clock jumps; `bytes` decides whether it
/// becomes rows at its end or stays in segments.
fn follow_across_jumps(bytes: u64, chunk: &str) {
    let (clock, mut server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "9",
        "--bytes",
        bytes.to_string(),
        "--err-bytes",
        "64",
        "--chunk",
        chunk,
        "--pause-us",
        "20000"
    ]);
    let job = client.submit(server.marked(json!({ "argv": argv })));
    let subscription = client.tail(json!({"job": job["id"]}));
    let mut live = Transcript::default();
    for (nth, shift_s) in JUMPS_S.into_iter().enumerate() {
        while live.next_offset < bytes * (nth as u64 + 1) / 4 {
            client.step(subscription, &mut live);
        }
        jump(&clock, &server, shift_s);
    }
    while live.next_offset < bytes * 3 / 4 {
        client.step(subscription, &mut live);
    }
    server.kill_9();
    clock.jump_to(0);
    server.restart();
    let mut client = server.connect();
    let subscription = client.tail(json!({"job": job["id"], "from": live.next_offset}));
    live.resume();
    client.follow(subscription, &mut live);
    assert_eq!(live.verified()["state"], "succeeded");
    assert_bytes(&live.streams[0], &content(9, 0, bytes, false), "live");
    let replayed = client.whole(&job);
    assert_eq!(replayed.bytes, live.bytes);
    assert_eq!(replayed.verified()["state"], "succeeded");
    assert_eq!(client.download(&job, 65536), live.bytes);
    let read = client.ok("job.read", json!({"job": job["id"], "from": 0}));
    let chunks = read["chunks"].as_array().expect("chunks");
    let times: Vec<i64> = chunks.iter().map(|chunk| seconds(&chunk["at"])).collect();
    assert!(
        bytes > 100_000 || !times.is_sorted(),
        "times went back: {times:?}"
    );
}

#[test]
fn a_tail_goes_on_in_the_order_of_offsets() {
    follow_across_jumps(6400, "64:64");
}

#[test]
fn a_tail_goes_on_from_segment_to_segment() {
    follow_across_jumps(12 << 20, "65536:65536");
}

#[test]
fn an_idle_server_ends_in_its_time() {
    for shift_s in JUMPS_S {
        let (clock, mut server) = on_its_own_clock(&["--idle-exit-s", "4"]);
        let began = Instant::now();
        jump(&clock, &server, shift_s);
        assert!(server.ended().success());
        assert!(began.elapsed() >= Duration::from_millis(3500), "too early");
        clock.jump_to(0);
        server.restart();
    }
}

/// `on_lost: retry` runs a job again at once, whatever time it is.
#[test]
fn a_lost_job_runs_again() {
    let (clock, server) = on_its_own_clock(&[]);
    let mut client = server.connect();
    for shift_s in JUMPS_S {
        let job = client.submit(sleeper(&server, json!({"on_lost": "retry"})));
        client.started(&job);
        let pid = until("its process", || server.job_processes().first().copied());
        jump(&clock, &server, shift_s);
        server.kill_shim();
        until_true("its second process", || {
            let now = server.job_processes();
            !now.is_empty() && !now.contains(&pid)
        });
        assert_eq!(client.get(&job)["state"], "running");
        client.control(&job, "kill");
        assert_eq!(client.finished(&job)["state"], "cancelled");
        until_true("its end", || server.job_processes().is_empty());
    }
}

/// A server that is killed and started on the other side of a jump has what it had: adopted jobs
/// run on under their limits, what ended meanwhile ended, and the order stays.
#[test]
fn a_restart_behind_a_jump_finds_everything() {
    let (clock, mut server) = on_its_own_clock(&[]);
    for shift_s in JUMPS_S {
        let mut client = server.connect();
        let gate = server.scratch(&format!("gate{shift_s}"));
        let line = format!(
            "while [ ! -e {} ]; do sleep 0.02; done; exit 4",
            gate.display()
        );
        let ends = client.submit(server.marked(json!({"shell": line})));
        let runs = client.submit(sleeper(&server, json!({"timeout_s": 3600})));
        client.started(&ends);
        client.started(&runs);
        let began = Instant::now();
        let short = client.submit(sleeper(&server, json!({"timeout_s": 3})));
        client.started(&short);
        jump(&clock, &server, shift_s);
        server.kill_9();
        fs::write(&gate, "").expect("the gate");
        server.restart();
        let mut client = server.connect();
        assert_eq!(client.finished(&ends)["exit_code"], 4);
        assert_eq!(client.finished(&short)["reason"], "timeout");
        assert!(began.elapsed() >= Duration::from_secs(3), "too early");
        go_on(&mut client, &[&runs]);
        client.control(&runs, "kill");
        assert_eq!(client.finished(&runs)["state"], "cancelled");
        clock.jump_to(0);
    }
}
