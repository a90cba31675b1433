//! What the server makes of shims that it loses and finds again, that wait, or that cannot be
//! started.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::harness::{Client, Server, parent, state, until_true};

/// The sockets of all shims.
fn sockets(server: &Server) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.data_dir().join("shims")).expect("the shims");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "sock"))
        .collect()
}

/// Says hello to a shim in the server's name, which closes the server's connection, and waits
/// until the server has come back.
fn take_the_line(socket: &PathBuf) {
    // One too many may just have been sent away.
    let Ok(mut line) = UnixStream::connect(socket) else {
        return;
    };
    let hello = json!({"type": "hello", "epoch": 1, "instance": "x"}).to_string();
    let mut message = (hello.len() as u32).to_le_bytes().to_vec();
    message.extend(hello.as_bytes());
    let _ = line.write_all(&message);
    let _ = line.read_to_end(&mut Vec::new());
}

fn kill_all(pids: &[i32]) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// A server whose jobs find no room for their first byte.
fn full() -> Server {
    Server::with(&[], &[("CC_EXECUTOR_SPOOL_BYTES_MAX", "1")])
}

/// No process was there: nothing may say how it ended.
fn assert_never_started(job: &Value) {
    assert_eq!(job["state"], "cancelled", "{job}");
    for key in ["started_at", "exit_code", "signal", "spawn_error", "reason"] {
        assert_eq!(job[key], Value::Null, "{key}: {job}");
    }
}

#[test]
fn an_idle_shim_that_was_lost_for_a_moment_is_offered_once() {
    let server = Server::start();
    until_true("two idle shims", || sockets(&server).len() == 2);
    let mut client = server.connect();
    let first = client.submit(json!({"argv": ["true"]}));
    client.finished(&first);
    sockets(&server).iter().for_each(take_the_line);
    let gate = server.scratch("gate");
    let line = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
    let long: Vec<Value> = (0..2)
        .map(|_| client.submit(json!({"shell": line})))
        .collect();
    // There are slots for these, and if the long ones have the shims, others are started.
    for _ in 0..2 {
        let job = client.submit(json!({"argv": ["true"]}));
        assert_eq!(client.finished(&job)["state"], "succeeded");
    }
    fs::write(&gate, "").expect("the gate");
    for job in &long {
        assert_eq!(client.finished(job)["state"], "succeeded");
    }
    assert!(!server.said().contains("rescued"), "no attempt was void");
}

#[test]
fn a_running_job_survives_a_lost_connection_to_its_shim() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "echo a; while [ ! -e {} ]; do sleep 0.02; done; echo b",
        gate.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    client.started(&job);
    sockets(&server).iter().for_each(take_the_line);
    fs::write(&gate, "").expect("the gate");
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"a\nb\n");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn a_restart_does_not_wake_a_job_that_stopped_itself() {
    let mut server = Server::start();
    let mut client = server.connect();
    let heard = server.scratch("heard");
    let line = format!(
        "(trap 'echo > {}' USR2; while :; do sleep 0.02; done) & kill -STOP $$; echo woken",
        heard.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    let stopped = |server: &Server| {
        let pids = server.job_processes();
        pids.into_iter().any(|pid| state(pid) == Some('T'))
    };
    until_true("the job to stop itself", || stopped(&server));
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    // What is sent to the shim is done in order: behind this, its adoption is complete.
    until_true("the signal to be taken", || {
        let signal = json!({"job": job["id"], "action": "signal", "signal": "SIGUSR2"});
        client.call("job.control", signal).is_ok()
    });
    until_true("the signal", || heard.exists());
    assert!(stopped(&server), "nobody asked for it to go on");
    client.control(&job, "kill");
    assert_eq!(client.finished(&job)["state"], "cancelled");
}

#[test]
fn a_cancel_before_there_is_a_process_is_only_a_cancel() {
    let server = full();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    until_true("the claim", || client.get(&job)["state"] == "running");
    client.control(&job, "cancel");
    assert_never_started(&client.finished(&job));
}

#[test]
fn an_adopted_attempt_that_waits_for_room_has_not_started() {
    let mut server = full();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    until_true("the first segment", || {
        fs::read_dir(server.data_dir().join("spool")).is_ok_and(|mut files| files.next().is_some())
    });
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    until_true("the adoption", || {
        let signal = json!({"job": job["id"], "action": "signal", "signal": "SIGWINCH"});
        client.call("job.control", signal).is_ok()
    });
    client.control(&job, "cancel");
    assert_never_started(&client.finished(&job));
}

/// Runs a job that writes down each of its starts, kills server and shim, lets `damage` happen to
/// the spool, and returns the job and a new server.
fn damaged(damage: impl Fn(&PathBuf)) -> (Value, Server) {
    let mut server = Server::start();
    let mut client = server.connect();
    let ledger = server.scratch("ledger");
    let line = format!(
        "echo start >> {}; echo out; exec sleep 1000",
        ledger.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    client.started(&job);
    until_true("output", || client.get(&job)["output_bytes"] == 4);
    server.kill_9();
    let held: Vec<i32> = server
        .job_processes()
        .into_iter()
        .filter_map(parent)
        .collect();
    let mut shims = server.shims();
    shims.retain(|pid| held.contains(pid));
    kill_all(&shims);
    until_true("the job's end", || server.job_processes().is_empty());
    for entry in fs::read_dir(server.data_dir().join("spool")).expect("the spool") {
        damage(&entry.expect("an entry").path());
    }
    server.restart();
    (job, server)
}

/// How such a job ended; it must have started once.
fn lost_with(damage: impl Fn(&PathBuf)) -> Value {
    let (job, server) = damaged(damage);
    let end = server.connect().finished(&job);
    let starts = fs::read_to_string(server.scratch("ledger")).expect("the ledger");
    assert_eq!(starts.lines().count(), 1, "it started once");
    end
}

#[test]
fn a_started_job_whose_segments_are_gone_is_lost_and_not_run_again() {
    let end = lost_with(|segment| fs::remove_file(segment).expect("remove"));
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!("lost"))
    );
}

/// What some file systems leave of a file that was not synced before the power went.
#[test]
fn a_segment_of_zeros_does_not_keep_the_server_from_starting() {
    let end = lost_with(|segment| fs::write(segment, [0; 4096]).expect("write"));
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!("lost"))
    );
}

#[test]
fn shims_that_cannot_be_started_are_tried_again_without_haste() {
    let server = Server::start();
    until_true("two idle shims", || sockets(&server).len() == 2);
    let (place, away) = (
        server.data_dir().join("shims"),
        server.data_dir().join("away"),
    );
    fs::rename(&place, &away).expect("rename");
    let failures = || server.said().matches("could not be started").count();
    kill_all(&server.shims());
    until_true("a failure", || failures() >= 1);
    let first = Instant::now();
    until_true("more failures", || failures() >= 5);
    // Two shims at a time.
    assert!(
        first.elapsed() >= Duration::from_millis(500),
        "{:?}",
        first.elapsed()
    );
    fs::remove_dir_all(&away).expect("the traces of the dead");
    fs::create_dir(&place).expect("a place for shims");
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    assert_eq!(client.finished(&job)["state"], "succeeded");
}

/// A read error is not the end of a segment: the attempt stays open until it can be read.
#[test]
fn a_segment_that_cannot_be_read_now_delays_its_job_and_nothing_else() {
    // Reading a directory fails with EISDIR.
    let (job, server) = damaged(|segment| {
        fs::remove_file(segment).expect("remove");
        fs::create_dir(segment).expect("a directory");
    });
    let mut client = server.connect();
    let other = client.submit(json!({"argv": ["true"]}));
    assert_eq!(client.finished(&other)["state"], "succeeded");
    let running = client.ok("job.list", json!({"state": "running"}));
    assert_eq!(running["jobs"][0]["id"], job["id"]);
    for entry in fs::read_dir(server.data_dir().join("spool")).expect("the spool") {
        let _ = fs::remove_dir(entry.expect("an entry").path());
    }
    assert_eq!(client.finished(&job)["reason"], "lost");
}

#[test]
fn a_job_that_connects_to_its_shim_in_a_loop_keeps_no_restarted_server_out() {
    let mut server = Server::start();
    let mut client = server.connect();
    let script = "import glob, socket, sys\n\
                  kept = []\n\
                  print('up', flush=True)\n\
                  while True:\n\
                  \x20   for name in glob.glob('*.sock'):\n\
                  \x20       s = socket.socket(socket.AF_UNIX)\n\
                  \x20       try: s.connect(name)\n\
                  \x20       except OSError: continue\n\
                  \x20       kept.append(s)\n\
                  \x20       del kept[:-64]\n";
    let line = "for i in 1 2 3 4; do python3 -c \"$FLOOD\" & done; wait";
    let cwd = server.data_dir().join("shims");
    let mut job = server.marked(json!({"shell": line, "cwd": cwd}));
    job["env"]["FLOOD"] = json!(script);
    let job = client.submit(job);
    client.started(&job);
    until_true("all of them connect", || {
        client.get(&job)["output_bytes"] == "up\n".repeat(4).len()
    });
    server.kill_9();
    server.restart();
    // Its shim has answered: an order reaches it.
    let mut client = server.connect();
    assert_eq!(client.control(&job, "pause")["state"], "paused");
    assert_eq!(client.control(&job, "kill")["id"], job["id"]);
    let end = client.finished(&job);
    assert_eq!(
        (&end["state"], &end["attempts"]),
        (&json!("cancelled"), &json!(1))
    );
    // Heard at the first try, in every shim whose socket is flooded.
    assert!(!server.said().contains("does not answer"));
}

/// Jobs that stop their own shim: once, again and again, and as fast as they can.
const STOPPERS: [&str; 4] = [
    "echo ready; kill -STOP $PPID; exec sleep 1000",
    "echo ready; while :; do kill -STOP $PPID; sleep 0.05; done",
    "trap '' TERM; echo ready; while :; do kill -STOP $PPID; done",
    "(setsid sh -c \"trap '' TERM; while :; do kill -STOP $PPID; done\" &) ; echo ready; exec sleep 1000",
];

fn stopper(server: &Server, client: &mut Client, line: &str, more: Value) -> Value {
    let mut job = json!({"shell": line, "grace_s": 0.2});
    let keys = more.as_object().expect("an object").clone();
    job.as_object_mut().expect("an object").extend(keys);
    let job = client.submit(server.marked(job));
    client.started(&job);
    job
}

#[test]
fn a_job_that_stops_its_shim_can_be_cancelled() {
    let server = Server::start();
    let mut client = server.connect();
    for line in STOPPERS {
        let job = stopper(&server, &mut client, line, json!({}));
        client.control(&job, "cancel");
        let end = client.finished(&job);
        assert_eq!(end["state"], "cancelled", "{line}: {end}");
        assert_eq!(server.job_processes(), Vec::<i32>::new(), "{line}");
    }
}

#[test]
fn a_job_that_stops_its_shim_has_its_timeout_and_its_output() {
    let server = Server::start();
    let mut client = server.connect();
    for line in STOPPERS {
        let job = stopper(&server, &mut client, line, json!({"timeout_s": 1}));
        let end = client.finished(&job);
        assert_eq!(end["reason"], "timeout", "{line}: {end}");
        assert_eq!(client.whole(&job).bytes, b"ready\n", "{line}");
        assert_eq!(server.job_processes(), Vec::<i32>::new(), "{line}");
    }
}

#[test]
fn a_shim_that_was_stopped_while_no_server_ran_is_adopted() {
    let mut server = Server::start();
    for line in STOPPERS {
        let mut client = server.connect();
        let gate = server.scratch("gate");
        let _ = fs::remove_file(&gate);
        let line = format!(
            "while [ ! -e {} ]; do sleep 0.01; done; {line}",
            gate.display()
        );
        let job = stopper(&server, &mut client, &line, json!({}));
        server.kill_9();
        fs::write(&gate, "").expect("the gate");
        let shims = server.shims();
        until_true("the shim to be stopped", || {
            shims.iter().any(|pid| state(*pid) == Some('T'))
        });
        server.restart();
        let mut client = server.connect();
        client.control(&job, "kill");
        let end = client.finished(&job);
        assert_eq!(end["state"], "cancelled", "{line}: {end}");
        assert_eq!(server.job_processes(), Vec::<i32>::new(), "{line}");
    }
}

#[test]
fn a_job_that_stops_its_shim_can_be_paused() {
    let server = Server::start();
    let mut client = server.connect();
    for line in STOPPERS {
        let job = stopper(&server, &mut client, line, json!({}));
        client.control(&job, "pause");
        until_true("the pause", || client.get(&job)["state"] == "paused");
        client.control(&job, "kill");
        assert_eq!(client.finished(&job)["state"], "cancelled", "{line}");
    }
}

/// A greeting on a shim's socket, as anybody of the same user can send it; whether the shim answers it.
fn is_welcome(server: &Server, epoch: u64, proof: Option<&str>) -> bool {
    let mut welcome = false;
    for socket in sockets(server) {
        let mut stream = UnixStream::connect(socket).expect("a shim");
        let hello = json!({"type": "hello", "epoch": epoch, "instance": "x", "proof": proof});
        let hello = hello.to_string();
        let mut bytes = (hello.len() as u32).to_le_bytes().to_vec();
        bytes.extend(hello.as_bytes());
        stream.write_all(&bytes).expect("sent");
        // A shim that does not take it hangs up.
        let mut answer = [0; 64];
        let length = stream.read(&mut answer).expect("an answer, or none");
        welcome |= length > 0;
    }
    welcome
}

#[test]
fn a_greeting_without_the_key_takes_no_shim_over() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"shell": "echo up; sleep 1000"})));
    client.started(&job);
    let forged = "00".repeat(32);
    for epoch in [0, 1, 2, 1 << 40, i64::MAX as u64, u64::MAX] {
        assert!(!is_welcome(&server, epoch, None), "{epoch}");
        assert!(!is_welcome(&server, epoch, Some(&forged)), "{epoch}");
    }
    // The server still has its ear, and so has the next one.
    assert_eq!(client.control(&job, "pause")["state"], "paused");
    server.kill_9();
    server.restart();
    assert!(!is_welcome(&server, u64::MAX, None));
    let mut client = server.connect();
    assert_eq!(client.control(&job, "resume")["state"], "running");
    client.control(&job, "kill");
    assert_eq!(client.finished(&job)["state"], "cancelled");
}
