//! The server as PID 1 of a container: no zombie is left, a stop ends it in time, a killed server
//! comes back under its jobs. The container is a PID namespace, which only root may make.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    BINARY, Client, Failing, children, is_alive, parent, state, until, until_true, with_mark,
    with_word,
};

/// The contract's bound for a planned stop.
const STOP_CEILING: Duration = Duration::from_secs(5);
/// Orphans that PID 1 has to reap (G16).
const ORPHANS: usize = 10_000;

/// A data directory, and a PID namespace in which the server is the first process.
struct Container {
    home: TempDir,
    unshare: Option<Child>,
    /// PID 1 of the namespace, in our own numbers.
    first: i32,
}

impl Container {
    /// `None` where this process may not make namespaces.
    fn start() -> Option<Self> {
        let allowed = namespace(&["true"]).output().expect("unshare runs");
        if !allowed.status.success() {
            let why = String::from_utf8_lossy(&allowed.stderr);
            eprintln!("SKIPPED: no PID namespace can be made here: {}", why.trim());
            return None;
        }
        let mut container = Self {
            home: tempfile::tempdir().expect("a directory"),
            unshare: None,
            first: 0,
        };
        container.restart();
        Some(container)
    }

    fn restart(&mut self) {
        let dir = self.data_dir();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("stderr"));
        let data_dir = dir.to_str().expect("a UTF-8 path");
        let words = [BINARY, "serve", "--listen", "none", "--data-dir", data_dir];
        let mut child = namespace(&words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("unshare runs");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped");
        let read = BufReader::new(stdout).read_line(&mut ready);
        assert!(read.is_ok() && ready.contains("ready"), "{ready:?}");
        self.first = children(child.id() as i32)[0];
        self.unshare = Some(child);
    }

    fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn connect(&self) -> Client {
        Client::unix(&self.data_dir().join("server.sock"))
    }

    /// The server: what PID 1 has started with its own words.
    fn server(&self) -> Option<i32> {
        let serving = with_word("serve\0--listen\0none");
        let mut ours = children(self.first).into_iter();
        ours.find(|pid| serving.contains(pid))
    }

    fn shim_of(&self, process: i32) -> i32 {
        let shim = parent(process).expect("a process");
        assert!(with_word("shim\0--data-dir").contains(&shim));
        shim
    }

    /// A job whose processes carry this test's mark.
    fn marked(&self, mut job: Value) -> Value {
        job["env"] = json!({ "CC_TEST_MARK": self.data_dir() });
        job
    }

    fn job_processes(&self) -> Vec<i32> {
        let servers = with_word(self.data_dir().to_str().expect("a UTF-8 path"));
        let mut found = with_mark(&self.data_dir());
        found.retain(|pid| !servers.contains(pid));
        found
    }

    /// Runs a shell script in the namespace, as `docker exec` would: it is nobody's child in there.
    fn exec(&self, script: &str) {
        let done = self.in_there(script).status().expect("nsenter runs");
        assert!(done.success());
    }

    fn in_there(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--pid", "--mount", "--target", &self.first.to_string()])
            .args(["--", "sh", "-c", script]);
        command
    }

    fn zombies(&self) -> usize {
        let dead = |pid: &i32| state(*pid) == Some('Z');
        children(self.first).iter().filter(|pid| dead(pid)).count()
    }

    fn signal(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let began = Instant::now();
        send(self.first, signal);
        (self.ended(), began.elapsed())
    }

    fn ended(&mut self) -> ExitStatus {
        let mut child = self.unshare.take().expect("a running container");
        let status = until("the container's end", || child.try_wait().expect("ours"));
        assert_eq!(self.left(), Vec::<i32>::new(), "a namespace dies whole");
        status
    }

    fn left(&self) -> Vec<i32> {
        let mut pids = with_word(self.data_dir().to_str().expect("a UTF-8 path"));
        pids.extend(with_mark(&self.data_dir()));
        pids
    }

    fn said(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(mut child) = self.unshare.take() {
            // The death of the first is the death of all.
            let _ = kill(Pid::from_raw(self.first), Signal::SIGKILL);
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

fn namespace(words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
    command.args(words);
    command
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("a process of ours");
}

/// Waits for one line that a process of the container has written.
fn pid_in(file: &Path) {
    until("a line", || {
        fs::read_to_string(file)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
}

#[test]
fn ten_thousand_orphans_leave_no_zombie() {
    let Some(mut container) = Container::start() else {
        return;
    };
    // The background process of a subshell that does not wait is an orphan at once.
    container.exec(&format!(
        "i=0; while [ $i -lt {ORPHANS} ]; do (: &); i=$((i+1)); done"
    ));
    container.exec("(exec sleep 4242 &)");
    let server = container.server().expect("a server");
    let orphan = until("the orphan", || {
        let children = children(container.first);
        let sleeps = with_word("sleep\x004242");
        children.into_iter().find(|pid| sleeps.contains(pid))
    });
    until_true("no zombie", || container.zombies() == 0);
    assert_eq!(container.server(), Some(server), "nobody took its status");
    send(orphan, Signal::SIGKILL);
    until_true("the orphan to be reaped", || state(orphan).is_none());
    let job = json!({"argv": ["true"]});
    let mut client = container.connect();
    let job = client.submit(job);
    assert_eq!(client.finished(&job)["state"], "succeeded");
    assert_eq!(container.signal(Signal::SIGTERM).0.code(), Some(0));
}

#[test]
fn what_a_dead_shim_leaves_is_reaped() {
    let Some(mut container) = Container::start() else {
        return;
    };
    let mut client = container.connect();
    // Double-forked, in a session of its own, and kept: its shim stays its parent.
    let script = "(setsid sh -c 'echo up >$0; exec sleep 1000' \"$FILE\" &)";
    let file = container.home.path().join("kept");
    let mut job = container.marked(json!({"shell": script, "leftover": "keep"}));
    job["env"]["FILE"] = json!(file);
    let job = client.submit(job);
    assert_eq!(client.finished(&job)["state"], "succeeded");
    pid_in(&file);
    let kept = container.job_processes();
    assert_eq!(kept.len(), 1, "the survivor");
    send(container.shim_of(kept[0]), Signal::SIGKILL);
    until_true("PID 1 to be its parent", || {
        parent(kept[0]) == Some(container.first)
    });
    send(kept[0], Signal::SIGKILL);
    until_true("the survivor to be reaped", || state(kept[0]).is_none());

    // A shim dies under a running tree.
    let script = "(setsid sleep 1000 &) ; sleep 1000 & wait";
    let job = client.submit(container.marked(json!({ "shell": script })));
    let tree = until("three processes", || {
        let pids = container.job_processes();
        (pids.len() == 3).then_some(pids)
    });
    let leader = tree
        .iter()
        .find(|pid| with_word("setsid sleep").contains(pid))
        .expect("the shell");
    send(container.shim_of(*leader), Signal::SIGKILL);
    let end = client.finished(&job);
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&"failed".into(), &"lost".into())
    );
    assert_eq!(end["survivors"], json!([]));
    until_true("the tree to be reaped", || {
        tree.iter().all(|pid| state(*pid).is_none())
    });
    until_true("no zombie", || container.zombies() == 0);
    assert_eq!(container.signal(Signal::SIGTERM).0.code(), Some(0));
}

#[test]
fn a_stop_ends_the_container_and_its_jobs_are_lost() {
    let Some(mut container) = Container::start() else {
        return;
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut client = container.connect();
        let job = client.submit(container.marked(json!({"argv": ["sleep", "1000"]})));
        let done = client.submit(container.marked(json!({"shell": "echo done"})));
        client.started(&job);
        client.finished(&done);
        let (status, took) = container.signal(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert!(took < STOP_CEILING, "{signal}: {took:?}");
        container.restart();
        let mut client = container.connect();
        let end = client.finished(&job);
        assert_eq!(
            (&end["state"], &end["reason"]),
            (&"failed".into(), &"lost".into())
        );
        assert_eq!(client.download(&done, 65536), b"done\n");
    }
}

#[test]
fn a_killed_server_comes_back_under_its_jobs() {
    let Some(mut container) = Container::start() else {
        return;
    };
    let mut client = container.connect();
    let gate = container.home.path().join("gate");
    let mut job = json!({"shell": "echo before; while [ ! -e \"$GATE\" ]; do sleep 0.02; done; echo behind; exit 4"});
    job = container.marked(job);
    job["env"]["GATE"] = json!(gate);
    let job = client.submit(job);
    client.started(&job);
    let tree = container.job_processes();
    let server = container.server().expect("a server");
    send(server, Signal::SIGKILL);
    let next = until("the next server", || {
        container.server().filter(|pid| *pid != server)
    });
    until_true("it to be ready", || {
        container.said().matches("is ready").count() == 2
    });
    assert!(tree.iter().any(|pid| is_alive(*pid)), "the job goes on");
    fs::write(&gate, "").expect("the gate");
    let mut client = container.connect();
    let end = client.finished(&job);
    assert_eq!(
        (&end["exit_code"], &end["attempts"]),
        (&4.into(), &1.into())
    );
    assert_eq!(client.download(&job, 65536), b"before\nbehind\n");
    assert!(container.said().contains("started again"));
    assert_eq!(container.server(), Some(next));
    assert_eq!(container.signal(Signal::SIGTERM).0.code(), Some(0));
}

#[test]
fn a_restart_would_end_the_container_and_is_refused() {
    let Some(mut container) = Container::start() else {
        return;
    };
    let mut client = container.connect();
    let job = client.submit(container.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&job);
    let verb = |verb: &str| {
        let dir = container.data_dir();
        let words = format!("{BINARY} {verb} --data-dir {}", dir.display());
        container.in_there(&words).output().expect("nsenter runs")
    };
    let refused = verb("restart");
    let why = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("restart the container"), "{why}");
    assert_eq!(client.get(&job)["state"], "running");
    // It dies with the container that it ends.
    verb("stop");
    assert_eq!(container.ended().code(), Some(0));
}

#[test]
fn a_server_that_is_killed_again_and_again_comes_back_under_its_jobs() {
    let Some(mut container) = Container::start() else {
        return;
    };
    let mut client = container.connect();
    let job = client.submit(container.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&job);
    let tree = container.job_processes();
    let mut last = None;
    // Each as soon as it is there, so that none of them lives long.
    for _ in 0..8 {
        let server = until("another server", || {
            container.server().filter(|pid| Some(*pid) != last)
        });
        send(server, Signal::SIGKILL);
        last = Some(server);
    }
    // One that was killed may have been ready before.
    let socket = container.data_dir().join("server.sock");
    let mut client = until("a server to be ready again", || {
        Client::try_unix(&socket).ok()
    });
    assert!(tree.iter().all(|pid| is_alive(*pid)), "the job goes on");
    assert_eq!(client.get(&job)["state"], "running");
    assert_eq!(container.signal(Signal::SIGTERM).0.code(), Some(0));
}

#[test]
fn a_fork_that_the_kernel_refused_once_is_tried_again() {
    let Some(mut container) = Container::start() else {
        return;
    };
    let mut client = container.connect();
    let job = client.submit(container.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&job);
    let tree = container.job_processes();
    let server = container.server().expect("a server");
    let refused = Failing::calls(container.first, "clone,clone3,fork,vfork", "EAGAIN");
    let Some(refused) = refused else {
        return;
    };
    send(server, Signal::SIGKILL);
    until_true("a start to fail", || {
        container.said().contains("no server could be started")
    });
    drop(refused);
    let next = until("the next server", || container.server());
    assert_ne!(next, server);
    until_true("it to be ready", || {
        container.said().matches("is ready").count() == 2
    });
    assert!(tree.iter().all(|pid| is_alive(*pid)), "the job goes on");
    assert_eq!(container.signal(Signal::SIGTERM).0.code(), Some(0));
}

#[test]
fn an_end_that_is_asked_for_in_a_pause_comes_at_once_and_orphans_are_reaped_in_it() {
    let Some(mut container) = Container::start() else {
        return;
    };
    let server = container.server().expect("a server");
    let Some(refused) = Failing::calls(container.first, "clone,clone3,fork,vfork", "EAGAIN") else {
        return;
    };
    send(server, Signal::SIGKILL);
    // Later pauses are long enough for all that follows.
    until_true("a long pause", || {
        container.said().contains("again in 6.4 s")
    });
    container.exec("(exec sleep 4343 &)");
    let orphan = until("the orphan", || {
        let sleeps = with_word("sleep\x004343");
        let children = children(container.first);
        children.into_iter().find(|pid| sleeps.contains(pid))
    });
    send(orphan, Signal::SIGKILL);
    until_true("the orphan to be reaped", || state(orphan).is_none());
    drop(refused);
    let (status, took) = container.signal(Signal::SIGTERM);
    assert_eq!(status.code(), Some(1), "as what kept it from going on");
    assert!(took < STOP_CEILING, "{took:?}");
}

#[test]
fn a_first_server_that_refuses_its_settings_ends_the_container() {
    if Container::start().is_none() {
        return;
    }
    let words = [
        BINARY,
        "serve",
        "--listen",
        "none",
        "--data-dir",
        "/proc/none",
    ];
    let status = namespace(&words).stderr(Stdio::null()).status();
    assert_eq!(status.expect("unshare runs").code(), Some(1));
}
