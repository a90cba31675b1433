//! Both levels of isolation: programs that try to outlive whoever ends them, whatever ends them; what a level says of
//! itself; what becomes of control groups.
//!
//! `CC_ZOO_ROUNDS` repeats the programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use serde_json::{Value, json};

use crate::harness::{Client, Server, cpu_ticks, describe, is_alive, state, until_true, with_word};

/// Programs that level B ends as well.
const TAME: [&str; 12] = [
    "double_fork",
    "setsid",
    "without_a_trace",
    "deaf",
    "stopped",
    "stops_itself",
    "holds_the_pipe",
    "chain",
    "changes_its_group",
    "traced",
    "subreaper",
    "threads_without_a_first",
];

/// What ends them.
const WAYS: [&str; 5] = ["cancel", "timeout", "pause", "exit", "server"];

/// A server at this level; `None`, told as skipped, where it cannot be had.
fn server(level: &str) -> Option<Server> {
    let mut server = Server::stopped(&["--isolation", level], &[]);
    server.launch();
    match server.readied() {
        Ok(()) => Some(server),
        Err(why) => {
            let is_told = server.said_last().contains("level A is not possible here");
            assert!(level == "A" && is_told, "{why}");
            eprintln!("SKIPPED: {}", server.said_last());
            None
        }
    }
}

/// A program of the zoo that runs as a job.
struct Animal {
    name: &'static str,
    way: &'static str,
    /// Is in the command line of each of its processes.
    word: String,
    job: Value,
}

impl Animal {
    fn release(
        server: &Server,
        client: &mut Client,
        name: &'static str,
        way: &'static str,
    ) -> Self {
        // None is the beginning of another one.
        let word = format!("zoo-{}-{name}-{way}-{}.", std::process::id(), unique());
        let ready = server.scratch(&word);
        let lasts = if way == "exit" { "0.1" } else { "1000" };
        let mut job = json!({
            "argv": ["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/zoo.py"),
                     name, word, ready, lasts],
            "queue": "interactive", "grace_s": 0.3, "name": word,
        });
        if way == "timeout" {
            job["timeout_s"] = json!(1.5);
        }
        let job = client.submit(job);
        Self {
            name,
            way,
            word,
            job,
        }
    }

    fn await_ready(&self, server: &Server) {
        let ready = server.scratch(&self.word);
        until_true("an animal to be there", || ready.exists());
    }

    /// Begins to end it, where it does not end by itself.
    fn end(&self, client: &mut Client) {
        match self.way {
            "cancel" | "server" => _ = client.control(&self.job, "cancel"),
            "pause" => {
                client.control(&self.job, "pause");
                until_true("the pause", || {
                    let job = client.get(&self.job);
                    job["state"] == "paused" || job["finished_at"].is_string()
                });
                client.control(&self.job, "cancel");
            }
            _ => {}
        }
    }

    /// When its job is final, nothing of it is left.
    fn assert_gone(&self, client: &mut Client) {
        let job = client.finished(&self.job);
        let left: Vec<_> = with_word(&self.word).into_iter().map(describe).collect();
        let who = format!("{} by {}", self.name, self.way);
        assert!(left.is_empty(), "{who}: {left:?} are left, {job}");
        assert_eq!(job["survivors"], json!([]), "{who}");
        assert_eq!(job["survivors_unknown"], Value::Null, "{who}");
        let expected: &[&str] = match (self.way, self.name) {
            // It may be ended before it does.
            (_, name) if name.starts_with("kills_its_shim") => {
                &["failed", "cancelled", "succeeded"]
            }
            ("exit", _) => &["succeeded"],
            ("timeout", _) => &["failed"],
            _ => &["cancelled"],
        };
        let state = job["state"].as_str().expect("a state");
        assert!(expected.contains(&state), "{who}: {job}");
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn rounds() -> u32 {
    std::env::var("CC_ZOO_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"))
}

/// Each program, ended in each way.
fn each_is_ended(level: &str, names: &[&'static str]) {
    let Some(mut server) = server(level) else {
        return;
    };
    for _ in 0..rounds() {
        for way in WAYS {
            let begun = Instant::now();
            let mut client = server.connect();
            let release = |name: &&'static str| Animal::release(&server, &mut client, name, way);
            let animals: Vec<_> = names.iter().map(release).collect();
            for animal in &animals {
                animal.await_ready(&server);
            }
            if way == "server" {
                server.kill_9();
                server.restart();
                client = server.connect();
            }
            for animal in &animals {
                animal.end(&mut client);
            }
            for animal in &animals {
                animal.assert_gone(&mut client);
            }
            eprintln!("{level} {way}: {:?}", begun.elapsed());
        }
    }
}

#[test]
fn whoever_would_escape_is_ended_at_level_a() {
    let names: Vec<&str> = TAME
        .into_iter()
        .chain(["kills_its_shim", "kills_its_shim_without_a_trace"])
        .collect();
    each_is_ended("A", &names);
}

#[test]
fn whoever_would_escape_is_ended_at_level_b() {
    let names: Vec<&str> = TAME.into_iter().chain(["kills_its_shim"]).collect();
    each_is_ended("B", &names);
}

/// The control group of a process in the hierarchy of version 2.
fn group_of(pid: i32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let mount = mounts
        .into_iter()
        .find(|mount| mount.join("cgroup.procs").exists())?;
    Some(mount.join(path))
}

#[test]
fn an_attempt_has_a_group_as_long_as_a_process_lives() {
    let Some(server) = server("A") else { return };
    let mut client = server.connect();
    let info = client.ok("server.info", json!({}));
    assert_eq!(
        (&info["isolation"], &info["isolation_reason"]),
        (&json!("A"), &Value::Null)
    );
    let job =
        client.submit(server.marked(json!({"shell": "sleep 1000 & setsid sleep 1000 & wait"})));
    client.started(&job);
    until_true("three processes", || server.job_processes().len() == 3);
    let groups: Vec<_> = server
        .job_processes()
        .into_iter()
        .filter_map(group_of)
        .collect();
    let name = format!("{}.1", job["number"]);
    assert!(
        groups.iter().all(|group| group.ends_with(&name)),
        "{groups:?}"
    );
    assert_ne!(group_of(server.pid()).as_ref(), Some(&groups[0]));
    client.control(&job, "kill");
    client.finished(&job);
    assert!(!groups[0].exists(), "{} is left", groups[0].display());
    assert!(!groups[0].parent().expect("a parent").exists());
}

/// A parent that ignores SIGCHLD is not told what its children have used.
#[test]
fn what_children_used_that_nobody_waited_for_counts() {
    let Some(server) = server("A") else { return };
    let mut client = server.connect();
    let code = "import os, signal, sys, time\n\
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
                end = time.monotonic() + 60\n\
                if os.fork() == 0:\n    \
                    while time.process_time() < 0.5 and time.monotonic() < end: pass\n    \
                    os._exit(0)\n\
                while True:\n    \
                    try: os.wait()\n    \
                    except ChildProcessError: break\n";
    let job = client.submit(json!({"argv": ["python3", "-S", "-c", code]}));
    let usage = client.finished(&job)["usage"].clone();
    let used =
        usage["user_s"].as_f64().expect("seconds") + usage["system_s"].as_f64().expect("seconds");
    assert!(used >= 0.45, "{usage}");
}

#[test]
fn survivors_keep_their_group_until_a_server_starts_without_them() {
    let Some(mut server) = server("A") else {
        return;
    };
    let mut client = server.connect();
    let keep = json!({"shell": "setsid sleep 1000 & exit 0", "leftover": "keep"});
    let job = client.submit(server.marked(keep));
    let job = client.finished(&job);
    let survivor = job["survivors"][0]["pid"].as_i64().expect("a survivor") as i32;
    let group = group_of(survivor).expect("a group");
    server.kill_9();
    server.restart();
    assert!(is_alive(survivor) && group.exists());
    let pid = nix::unistd::Pid::from_raw(survivor);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
    until_true("its end", || !is_alive(survivor));
    server.kill_9();
    server.restart();
    assert!(!group.exists(), "{} is left", group.display());
}

/// Returns once another process has computed for half a second.
fn work_for_half_a_second() {
    let mut other = Command::new("sh");
    let other = other.args(["-c", "while :; do :; done"]).spawn();
    let mut other = other.expect("a process");
    let pid = other.id() as i32;
    until_true("work", || cpu_ticks(pid).expect("it lives") >= 50);
    other.kill().expect("killed");
    other.wait().expect("reaped");
}

/// What stops itself goes on standing after a pause; what the pause has stopped goes on.
#[test]
fn a_pause_stands_still_at_both_levels_and_changes_nothing_else() {
    for level in ["A", "B"] {
        let Some(server) = server(level) else {
            continue;
        };
        let mut client = server.connect();
        let line = "(while :; do :; done) & sh -c 'kill -STOP $$; sleep 1000' & \
                    setsid sh -c 'while :; do :; done' & wait";
        let job = client.submit(server.marked(json!({"shell": line})));
        client.started(&job);
        let states = |server: &Server| -> Vec<_> {
            let pids = server.job_processes().into_iter();
            pids.map(|pid| (pid, state(pid))).collect()
        };
        until_true("one that stands", || {
            let states = states(&server);
            states.len() == 4 && states.iter().any(|(_, state)| *state == Some('T'))
        });
        let stands: Vec<i32> = states(&server)
            .into_iter()
            .filter_map(|(pid, state)| (state == Some('T')).then_some(pid))
            .collect();
        for _ in 0..3 {
            client.control(&job, "pause");
            until_true("the pause", || client.get(&job)["state"] == "paused");
            let used = || -> u64 {
                let pids = server.job_processes().into_iter();
                pids.filter_map(cpu_ticks).sum()
            };
            let before = used();
            work_for_half_a_second();
            assert_eq!(used(), before, "level {level}");
            client.control(&job, "resume");
            until_true("the resume", || client.get(&job)["state"] == "running");
            until_true("work", || used() > before);
        }
        let still: Vec<i32> = states(&server)
            .into_iter()
            .filter_map(|(pid, state)| (state == Some('T')).then_some(pid))
            .collect();
        assert_eq!(still, stands, "level {level}");
        client.control(&job, "kill");
        client.finished(&job);
    }
}

#[test]
fn a_level_that_is_not_there_is_refused_and_one_that_is_not_wanted_is_not_taken() {
    let server = Server::with(&["--isolation", "B"], &[]);
    let info = server.connect().ok("server.info", json!({}));
    assert_eq!(info["isolation"], "B");
    let reason = info["isolation_reason"].as_str().expect("a reason");
    assert!(reason.contains("isolation"), "{reason}");
    let refused = server.cli("serve").args(["--isolation", "C"]).run();
    assert_ne!(refused.code(), 0);
    assert!(
        refused.err().contains("must be auto, A or B"),
        "{}",
        refused.err()
    );
}
