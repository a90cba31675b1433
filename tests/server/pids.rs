//! Numbers of processes come again: whoever has the number of a dead leader, shim, or server is a
//! stranger, and no signal of ours reaches it. Each test runs in a PID namespace of its own, where the
//! next number can be chosen.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Server, emit, is_alive, parent, until, until_true};

/// Runs a test of this file, which is marked as ignored, in a namespace of its own.
fn in_a_namespace(test: &str) {
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(words).stdin(Stdio::null());
        command
    };
    let possible = unshare(&["sh", "-c", "echo 100 > /proc/sys/kernel/ns_last_pid"]).output();
    if !possible.is_ok_and(|done| done.status.success()) {
        eprintln!(
            "SKIPPED: no PID namespace can be made here, or no number chosen in it (root may)"
        );
        return;
    }
    let this = std::env::current_exe().expect("this program");
    // The shell is the namespace's init: it takes the orphans' ends, without which no number is free.
    let done = unshare(&["sh", "-c", "\"$@\"; exit $?", "init"])
        .arg(this)
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&done.stdout);
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\n{why}");
    assert!(said.contains("1 passed"), "{said}\n{why}");
}

/// Somebody else's process with a number of our choice, in a session of its own.
struct Stranger {
    child: Child,
}

impl Stranger {
    fn with(pid: i32) -> Self {
        let child = until("the number to come again", || {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("chosen");
            let mut command = Command::new("sleep");
            command.arg("1000").stdin(Stdio::null());
            // SAFETY: setsid is safe between fork and exec.
            #[allow(unsafe_code)]
            unsafe {
                command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
            }
            let mut child = command.spawn().expect("sleep");
            if child.id() as i32 == pid {
                return Some(child);
            }
            // A thread of somebody's was faster.
            child.kill().expect("our child");
            child.wait().expect("our child");
            None
        });
        Self { child }
    }

    #[track_caller]
    fn lives(&mut self) {
        let ended = self.child.try_wait().expect("our child");
        assert_eq!(ended, None, "a stranger was signalled");
        let pid = self.child.id();
        let state = crate::harness::state(pid as i32);
        assert_ne!(state, Some('T'), "a stranger was stopped");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("a process");
}

/// Waits until nobody has this number any more, not even a process that nobody has taken the end of.
fn freed(pid: i32) {
    until_true("a number to be free", || {
        !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
    });
}

fn kill(pid: i32) {
    signal(pid, Signal::SIGKILL);
    freed(pid);
}

/// A running job, its leader, and its shim.
fn running(server: &Server) -> (Value, i32, i32) {
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "7", "--bytes", "1000", "--hold", "1000"]);
    let job = client.submit(server.marked(json!({"argv": argv})));
    client.started(&job);
    let leader = until("its process", || server.job_processes().first().copied());
    (job, leader, parent(leader).expect("its shim"))
}

#[test]
fn a_rescue_ends_no_stranger_with_the_number_of_a_leader_or_a_shim() {
    in_a_namespace("pids::rescue_in_a_namespace");
}

#[test]
#[ignore = "run in a namespace by the test above"]
fn rescue_in_a_namespace() {
    let mut server = Server::start();
    let (job, leader, shim) = running(&server);
    server.kill_9();
    kill(shim);
    freed(leader);
    let mut strangers = [leader, shim].map(Stranger::with);
    server.restart();
    let end = server.connect().finished(&job);
    assert_eq!(
        (&end["reason"], &end["survivors"]),
        (&json!("lost"), &json!([]))
    );
    strangers.iter_mut().for_each(Stranger::lives);
}

#[test]
fn a_living_server_ends_no_stranger_with_the_number_of_a_leader() {
    in_a_namespace("pids::living_server_in_a_namespace");
}

#[test]
#[ignore = "run in a namespace by the test above"]
fn living_server_in_a_namespace() {
    let server = Server::start();
    let (job, leader, shim) = running(&server);
    // The server stands still while the number is taken; its shim's stays taken until it looks.
    signal(server.pid(), Signal::SIGSTOP);
    signal(shim, Signal::SIGKILL);
    freed(leader);
    let mut stranger = Stranger::with(leader);
    signal(server.pid(), Signal::SIGCONT);
    let end = server.connect().finished(&job);
    assert_eq!(end["reason"], "lost");
    stranger.lives();
}

#[test]
fn a_cancel_and_a_pause_reach_no_stranger_with_the_number_of_a_dead_child() {
    in_a_namespace("pids::cancel_in_a_namespace");
}

#[test]
#[ignore = "run in a namespace by the test above"]
fn cancel_in_a_namespace() {
    let server = Server::start();
    let mut client = server.connect();
    // A child in a session of its own, and one in the leader's group.
    let line = "setsid sleep 1000 & echo $!; sleep 1000 & echo $!; while :; do sleep 0.05; done";
    let job = client.submit(server.marked(json!({"shell": line, "grace_s": 1})));
    let numbers: Vec<i32> = until("two numbers", || {
        let read = client.ok("job.read", json!({"job": job["id"], "from": 0}));
        let chunks = read["chunks"].as_array()?.iter();
        let text: String = chunks.filter_map(|chunk| chunk["data"].as_str()).collect();
        let numbers: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (numbers.len() == 2 && text.ends_with('\n')).then_some(numbers)
    });
    let mut strangers: Vec<Stranger> = Vec::new();
    for pid in numbers {
        kill(pid);
        strangers.push(Stranger::with(pid));
    }
    client.control(&job, "pause");
    until_true("the pause", || client.get(&job)["state"] == "paused");
    strangers.iter_mut().for_each(Stranger::lives);
    client.control(&job, "resume");
    client.control(&job, "cancel");
    assert_eq!(client.finished(&job)["state"], "cancelled");
    strangers.iter_mut().for_each(Stranger::lives);
}

#[test]
fn a_stop_reaches_no_stranger_with_the_number_of_a_dead_server() {
    in_a_namespace("pids::stop_in_a_namespace");
}

#[test]
#[ignore = "run in a namespace by the test above"]
fn stop_in_a_namespace() {
    let mut server = Server::start();
    let (job, leader, _) = running(&server);
    let pid = server.pid();
    server.kill_9();
    let mut stranger = Stranger::with(pid);
    let stopped = server.cli("stop").run();
    assert_eq!(stopped.code(), 0, "{}", stopped.err());
    assert!(
        stopped.err().contains("no server runs"),
        "{}",
        stopped.err()
    );
    stranger.lives();
    server.restart();
    stranger.lives();
    assert!(is_alive(leader), "its job goes on");
    server.connect().control(&job, "kill");
    server.connect().finished(&job);
    stranger.lives();
}
