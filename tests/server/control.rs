//! Pause, resume, cancel, kill and signal: on the whole tree, and told as facts.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Client, Server, emit, is_alive, until, until_true};

/// Starts a job and waits until its script has said that it is ready.
fn ready(server: &Server, client: &mut Client, mut job: Value) -> Value {
    job = server.marked(job);
    let job = client.submit(job);
    let read = json!({"job": job["id"], "from": 0, "wait_ms": 60_000});
    let reply = client.ok("job.read", read);
    assert_ne!(reply["next_offset"], 0, "{reply}");
    job
}

fn pid_in(path: &std::path::Path) -> i32 {
    until("a pid to be written", || {
        let text = fs::read_to_string(path).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
}

#[test]
fn a_paused_job_stands_still_and_goes_on() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "echo ready; while :; do echo tick; sleep 0.02; done";
    let job = ready(&server, &mut client, json!({"shell": line}));
    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    let before = client.get(&job)["output_bytes"].clone();
    let silence = json!({"job": job["id"], "from": before, "wait_ms": 500});
    let read = client.ok("job.read", silence.clone());
    // What had been written before the pause may still come; then nothing.
    let after = json!({"job": job["id"], "from": read["next_offset"], "wait_ms": 500});
    assert_eq!(client.ok("job.read", after)["chunks"], json!([]));
    client.control(&job, "pause");
    assert_eq!(
        client.get(&job)["state"],
        "paused",
        "a repeat changes nothing"
    );
    client.control(&job, "resume");
    until_true("the resume", || client.get(&job)["state"] == "running");
    let more = json!({"job": job["id"], "from": read["next_offset"], "wait_ms": 60_000});
    assert_ne!(client.ok("job.read", more)["chunks"], json!([]));
    client.control(&job, "kill");
    client.finished(&job);
}

#[test]
fn a_pause_reaches_the_whole_group() {
    // At level A a control group is frozen: tests/server/isolation.rs.
    let server = Server::with(&["--isolation", "B"], &[]);
    let mut client = server.connect();
    let file = server.scratch("child");
    let line = format!(
        "(while :; do :; done) & echo $! >{}; echo ready; wait",
        file.display()
    );
    let job = ready(&server, &mut client, json!({"shell": line}));
    let child = pid_in(&file);
    client.control(&job, "pause");
    until_true("the child to be stopped", || stopped(child));
    client.control(&job, "resume");
    until_true("the child to go on", || !stopped(child));
    client.control(&job, "kill");
    client.finished(&job);
    assert!(!is_alive(child));
}

fn stopped(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('T')))
        .unwrap_or(false)
}

#[test]
fn a_cancel_ends_the_job_and_says_how() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done";
    let job = ready(&server, &mut client, json!({"shell": line}));
    let asked = client.ok(
        "job.control",
        json!({"job": job["id"], "action": "cancel", "actor": "the-test"}),
    );
    assert!(
        asked["stop"].is_object(),
        "the wish is in the reply: {asked}"
    );
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["reason"], Value::Null);
    assert_eq!(end["exit_code"], 7);
    let stop = &end["stop"];
    assert!(
        stop["by"]
            .as_str()
            .is_some_and(|by| by.contains("the-test")),
        "{stop}"
    );
    assert_eq!(stop["cause"], "cancel");
    assert_eq!(stop["signals"][0], "SIGTERM");
    assert_eq!(stop["killed"], false);
    assert!(stop["asked_at"].is_string());
    assert!(
        client.whole(&job).streams[0].ends_with(b"bye\n"),
        "the last words arrive"
    );
}

#[test]
fn a_job_that_ignores_term_is_killed_after_its_grace() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--ignore-term", "--bytes", "1", "--hold", "1000"]);
    let job = ready(&server, &mut client, json!({"argv": argv, "grace_s": 0.5}));
    let began = Instant::now();
    client.control(&job, "cancel");
    let end = client.finished(&job);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500), "killed after {took:?}");
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["signal"], "SIGKILL");
    assert_eq!(end["stop"]["killed"], true);
    assert_eq!(end["stop"]["signals"], json!(["SIGTERM", "SIGKILL"]));
    assert_eq!(server.job_processes(), Vec::<i32>::new());
}

#[test]
fn a_kill_has_no_grace() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--ignore-term", "--bytes", "1", "--hold", "1000"]);
    let job = ready(&server, &mut client, json!({"argv": argv, "grace_s": 1000}));
    client.control(&job, "kill");
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["signal"], "SIGKILL");
    assert_eq!(end["stop"]["cause"], "kill");
}

#[test]
fn a_kill_hastens_a_cancel() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--ignore-term", "--bytes", "1", "--hold", "1000"]);
    let job = ready(&server, &mut client, json!({"argv": argv, "grace_s": 1000}));
    client.control(&job, "cancel");
    client.control(&job, "kill");
    assert_eq!(client.finished(&job)["state"], "cancelled");
}

#[test]
fn nothing_of_the_tree_survives_a_cancel() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--grandchild",
        "1000",
        "--bytes",
        "1",
        "--hold",
        "1000"
    ]);
    let job = ready(&server, &mut client, json!({"argv": argv}));
    until_true("leader and grandchild", || {
        server.job_processes().len() >= 2
    });
    client.control(&job, "cancel");
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["survivors"], json!([]));
    assert_eq!(
        server.job_processes(),
        Vec::<i32>::new(),
        "at the moment it is final"
    );
}

#[test]
fn what_outlives_the_leader_ends_with_it_and_is_counted() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--grandchild",
        "1000",
        "--bytes",
        "10",
        "--exit",
        "4"
    ]);
    let began = Instant::now();
    let job = client.submit(server.marked(json!({"argv": argv})));
    let end = client.finished(&job);
    assert_eq!(end["state"], "failed");
    assert_eq!(end["exit_code"], 4, "the state is the leader's");
    assert_eq!(end["leaked"], 1);
    assert_eq!(end["output_bytes"], 10);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it waited for the grandchild"
    );
    assert_eq!(server.job_processes(), Vec::<i32>::new());
}

#[test]
fn what_outlives_the_leader_may_stay() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--grandchild", "1000", "--bytes", "10"]);
    let job = client.submit(server.marked(json!({"argv": argv, "leftover": "keep"})));
    let end = client.finished(&job);
    assert_eq!(end["state"], "succeeded");
    let survivor = end["survivors"][0]["pid"].as_i64().expect("a survivor") as i32;
    assert!(is_alive(survivor));
    assert_eq!(server.job_processes(), [survivor]);
    let pid = nix::unistd::Pid::from_raw(survivor);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the survivor");
    until_true("the survivor's end", || !is_alive(survivor));
}

#[test]
fn a_paused_job_can_be_cancelled() {
    let server = Server::start();
    let mut client = server.connect();
    let job = ready(
        &server,
        &mut client,
        json!({"shell": "echo ready; exec sleep 1000"}),
    );
    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    client.control(&job, "cancel");
    let end = client.finished(&job);
    assert_eq!(end["state"], "cancelled");
    assert_eq!(end["signal"], "SIGTERM", "it could hear the TERM");
}

#[test]
fn queued_jobs_are_cancelled_at_once_and_not_paused() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "default", "concurrency": 2}));
    let sleeper = server.marked(json!({"argv": ["sleep", "1000"]}));
    let running = [
        client.submit(sleeper.clone()),
        client.submit(sleeper.clone()),
    ];
    for job in &running {
        client.started(job);
    }
    let queued = client.submit(sleeper);
    assert_eq!(client.get(&queued)["state"], "queued");
    let pause = json!({"job": queued["id"], "action": "pause"});
    let error = client.refused(-32004, "job.control", pause);
    assert_eq!(error["data"]["kind"], "conflict");
    let cancelled = client.control(&queued, "cancel");
    assert_eq!(cancelled["state"], "cancelled");
    for key in ["exit_code", "signal", "started_at"] {
        assert_eq!(cancelled[key], Value::Null, "{key}");
    }
    assert_eq!(client.whole(&queued).bytes, b"");
    for job in running.iter().rev() {
        client.control(job, "kill");
    }
}

#[test]
fn a_signal_reaches_the_job() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "trap 'echo got; exit 0' USR1; echo ready; while :; do sleep 0.02; done";
    let job = ready(&server, &mut client, json!({"shell": line}));
    let params = json!({"job": job["id"], "action": "signal", "signal": "SIGUSR1"});
    client.ok("job.control", params);
    let end = client.finished(&job);
    assert_eq!(end["state"], "succeeded", "a signal is no stop");
    assert_eq!(end["stop"], Value::Null);
    // The shell may say on stderr that the signal has ended its `sleep`, in whatever order.
    assert_eq!(client.whole(&job).streams[0], b"ready\ngot\n");
}

#[test]
fn on_a_final_job_nothing_happens() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    let end = client.finished(&job);
    for action in ["pause", "resume", "cancel", "kill"] {
        assert_eq!(client.control(&job, action), end, "{action}");
    }
    let signal = json!({"job": job["id"], "action": "signal", "signal": "TERM"});
    client.refused(-32004, "job.control", signal);
}

#[test]
fn wrong_controls_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    for params in [
        json!({"job": job["id"]}),
        json!({"job": job["id"], "action": "explode"}),
        json!({"job": job["id"], "action": "signal"}),
        json!({"job": job["id"], "action": "signal", "signal": "SIGNONE"}),
        json!({"job": job["id"], "action": "signal", "signal": 9.5}),
        json!({"job": job["id"], "action": "cancel", "colour": 1}),
        json!({"action": "cancel"}),
    ] {
        client.refused(-32602, "job.control", params);
    }
    client.refused(
        -32003,
        "job.control",
        json!({"job": 999_999, "action": "cancel"}),
    );
    assert_ne!(client.get(&job)["state"], "cancelled");
}

#[test]
fn racing_controls_leave_one_truth() {
    let server = Server::start();
    let mut client = server.connect();
    let job = ready(
        &server,
        &mut client,
        json!({"shell": "echo ready; exec sleep 1000"}),
    );
    let mut replies = Vec::new();
    for round in 0..20 {
        for action in ["pause", "resume"] {
            let params = json!({"job": job["id"], "action": action});
            replies.push(client.begin("job.control", params));
        }
        if round == 19 {
            for _ in 0..2 {
                let params = json!({"job": job["id"], "action": "cancel"});
                replies.push(client.begin("job.control", params));
            }
        }
        for id in replies.drain(..) {
            if let Err(error) = client.reply(id) {
                assert_eq!(error["code"], -32004, "only a conflict may refuse: {error}");
            }
        }
    }
    assert_eq!(client.finished(&job)["state"], "cancelled");
    assert_eq!(server.job_processes(), Vec::<i32>::new());
}

#[test]
fn a_signal_does_not_end_a_pause() {
    let server = Server::start();
    let mut client = server.connect();
    let job = ready(
        &server,
        &mut client,
        json!({"shell": "echo ready; while :; do sleep 0.01; done"}),
    );
    let signal = |name: &str| json!({"job": job["id"], "action": "signal", "signal": name});
    // Of one that runs they are signals like others: it stands still, and is called running.
    client.ok("job.control", signal("STOP"));
    let leader = server.job_processes();
    until_true("it stands still", || leader.iter().any(|pid| stopped(*pid)));
    assert_eq!(client.get(&job)["state"], "running");
    client.ok("job.control", signal("CONT"));
    until_true("it goes on", || {
        server.job_processes().iter().all(|pid| !stopped(*pid))
    });

    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    for name in ["CONT", "STOP", "TSTP", "TTIN", "TTOU"] {
        let error = client.refused(-32004, "job.control", signal(name));
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("resume"), "{message}");
    }
    let refused = server.cli("signal").args(["CONT", "last"]).run();
    assert_ne!(refused.code(), 0);
    assert!(refused.err().contains("resume"), "{}", refused.err());
    // Others wait until it goes on.
    client.ok("job.control", signal("TERM"));
    assert_eq!(client.get(&job)["state"], "paused");
    client.control(&job, "resume");
    assert_eq!(client.finished(&job)["signal"], "SIGTERM");
}
