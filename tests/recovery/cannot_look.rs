//! A server that cannot look at something: not to know whether a shim or a process is there is no
//! proof that it is gone. The failures are strace's, from the server's first instruction on.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use cc_executor::{job::Stream, store::ClaimedJob};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    harness::{BINARY, Frozen, Server, is_alive},
    scene::{Scene, job},
    shim::{self, pid_in},
};

/// How calls are made to fail: their names, and their error.
struct Fault(&'static str, &'static str);

/// Whether anybody may trace here.
fn may_trace() -> bool {
    let traced = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status();
    let may = traced.is_ok_and(|status| status.success());
    if !may {
        eprintln!("SKIPPED: there is no strace, or nobody may trace here");
    }
    may
}

/// The next server sees these calls fail where they concern one of the paths.
fn fail(scene: &mut Scene, Fault(calls, error): &Fault, paths: &[&str]) {
    let trace = scene.server.scratch("trace").display().to_string();
    let inject = format!("inject={calls}:error={error}");
    let traced = format!("trace={calls}");
    let mut words = vec!["strace", "-D", "-f", "-qq", "-o", &trace];
    words.extend(["-e", &traced, "-e", &inject]);
    for path in paths {
        words.extend(["-P", path]);
    }
    scene.server.under(&words);
}

/// A job in a shim that does not answer; it ends when the gate is there. `None` where nobody may hold
/// a shim.
fn frozen(scene: &mut Scene, again: bool) -> Option<(ClaimedJob, Frozen)> {
    let gate = scene.server.scratch("gate");
    let line = format!(
        "echo before; while [ ! -e {} ]; do sleep 0.01; done; echo behind",
        gate.display()
    );
    let claim = match again {
        true => scene.claimed_again("s1", &line),
        false => scene.claimed("s1", &line),
    };
    let spec = scene.spec(&claim);
    let (mut server, _) = scene.start_shim("s1").hello(1);
    server.run(spec);
    server.started();
    let shim = scene.shim("s1");
    shim::until("its first words are stored", || {
        shim.output(Stream::Stdout) == b"before\n"
    });
    Some((claim, Frozen::process(shim.pid())?))
}

/// The job was left as it is; its shim goes on, and so does the server with it.
fn goes_on(mut scene: Scene, (claim, frozen): (ClaimedJob, Frozen)) {
    let mut client = scene.start();
    let asked = job(&claim);
    shim::until("the server has looked", || {
        scene.server.said().contains("its job is left as it is")
    });
    assert_eq!(client.get(&asked)["state"], "running");
    assert_eq!(scene.attempts(), "1.1:claimed");
    assert!(scene.shim("s1").socket().exists(), "its traces stay");
    fs::write(scene.server.scratch("gate"), b"").expect("the gate");
    drop(frozen);
    let transcript = client.whole(&asked);
    assert_eq!(transcript.bytes, b"before\nbehind\n");
    let end = transcript.verified();
    let shown = json!([end["state"], end["attempts"]]);
    assert_eq!(shown, json!(["succeeded", 1]), "{end}");
}

#[test]
fn a_lock_that_cannot_be_looked_at_is_not_free() {
    if !may_trace() {
        return;
    }
    for (index, fault) in [
        Fault("open,openat", "EMFILE"),
        Fault("open,openat", "ENFILE"),
        Fault("open,openat", "EIO"),
        Fault("open,openat", "EACCES"),
        Fault("flock", "ENOMEM"),
        Fault("flock", "EIO"),
    ]
    .iter()
    .enumerate()
    {
        let mut scene = Scene::new();
        let Some(held) = frozen(&mut scene, index % 2 == 0) else {
            return;
        };
        let lock = scene.shim("s1").lock().display().to_string();
        fail(&mut scene, fault, &["s1.lock", &lock]);
        goes_on(scene, held);
    }
}

#[test]
fn a_lock_that_somebody_has_removed_is_no_death() {
    for replaced in [false, true] {
        let mut scene = Scene::new();
        let Some(held) = frozen(&mut scene, true) else {
            return;
        };
        let lock = scene.shim("s1").lock();
        fs::remove_file(&lock).expect("the lock");
        if replaced {
            fs::write(&lock, "").expect("another lock");
        }
        goes_on(scene, held);
    }
}

#[test]
fn a_lock_that_is_missing_beside_no_process_is_a_death() {
    let mut scene = Scene::new();
    let Some((claim, _frozen)) = frozen(&mut scene, false) else {
        return;
    };
    scene.kill_shim("s1");
    fs::remove_file(scene.shim("s1").lock()).expect("the lock");
    let mut client = scene.start();
    assert_eq!(client.finished(&job(&claim))["reason"], "lost");
    assert!(scene.traces().is_empty(), "{:?}", scene.traces());
}

/// A job whose shim is dead, and a process of it that has left its session.
fn left_behind(scene: &mut Scene, again: bool) -> (ClaimedJob, i32) {
    let file = scene.server.scratch("grandchild");
    let line = format!(
        "setsid sh -c 'echo $$ >{}; exec sleep 1000' & wait",
        file.display()
    );
    let claim = match again {
        true => scene.claimed_again("s1", &line),
        false => scene.claimed("s1", &line),
    };
    let spec = scene.spec(&claim);
    let (mut server, _) = scene.start_shim("s1").hello(1);
    server.run(spec);
    server.started();
    let grandchild = pid_in(&file);
    shim::until("it is what it becomes", || {
        fs::read(format!("/proc/{grandchild}/comm")).is_ok_and(|comm| comm == b"sleep\n")
    });
    scene.kill_shim("s1");
    (claim, grandchild)
}

/// What a job ended with whose processes could not be looked at.
fn unknown_with(fault: &Fault, path: impl Fn(i32) -> String, again: bool) -> (Value, i32) {
    let mut scene = Scene::new();
    let (claim, grandchild) = left_behind(&mut scene, again);
    fail(&mut scene, fault, &[&path(grandchild)]);
    let mut client = scene.start();
    let end = client.finished(&job(&claim));
    let alive = is_alive(grandchild);
    let _ = kill(Pid::from_raw(grandchild), Signal::SIGKILL);
    assert!(alive, "nobody could know that it is ours");
    (end, grandchild)
}

#[test]
fn processes_that_cannot_be_looked_at_are_told_as_unknown_and_the_job_is_not_run_again() {
    if !may_trace() {
        return;
    }
    let environ = |pid| format!("/proc/{pid}/environ");
    for (fault, again) in [
        (Fault("open,openat", "EMFILE"), true),
        (Fault("open,openat", "EIO"), false),
    ] {
        let (end, pid) = unknown_with(&fault, environ, again);
        let shown = json!([end["state"], end["reason"], end["attempts"]]);
        assert_eq!(shown, json!(["failed", "lost", 1]), "{end}");
        let why = end["survivors_unknown"].as_str().unwrap_or_default();
        assert!(why.contains(&pid.to_string()), "{end}");
    }
    let all = |_| "/proc".to_owned();
    let (end, _) = unknown_with(&Fault("open,openat", "EMFILE"), all, true);
    let why = end["survivors_unknown"].as_str().unwrap_or_default();
    assert!(why.contains("/proc cannot be read"), "{end}");
    assert_eq!(end["attempts"], 1);
}

#[test]
fn processes_that_cannot_be_looked_at_for_a_moment_are_ended() {
    if !may_trace() {
        return;
    }
    let mut scene = Scene::new();
    let (claim, grandchild) = left_behind(&mut scene, false);
    let environ = format!("/proc/{grandchild}/environ");
    fail(&mut scene, &Fault("open,openat", "EMFILE"), &[&environ]);
    let mut client = scene.start();
    let trace = scene.server.scratch("trace");
    // A look takes up to a second under strace, and a search ten of them.
    shim::until("five looks to have failed", || {
        let trace = fs::read_to_string(&trace).unwrap_or_default();
        trace.matches("(INJECTED)").count() >= 5
    });
    // It blocks all other signals where it writes into a file.
    kill(tracer(scene.server.pid()), Signal::SIGKILL).expect("strace lets go");
    let end = client.finished(&job(&claim));
    let shown = json!([end["reason"], end["survivors"], end["survivors_unknown"]]);
    assert_eq!(shown, json!(["lost", [], null]), "{end}");
    assert!(!is_alive(grandchild));
}

/// Which process traces this one.
fn tracer(pid: i32) -> Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let mut lines = status.lines();
    let tracer = lines.find_map(|line| line.strip_prefix("TracerPid:"));
    Pid::from_raw(tracer.expect("a line").trim().parse().expect("a number"))
}

#[test]
fn shims_that_cannot_be_listed_are_not_no_shims() {
    if !may_trace() {
        return;
    }
    let mut scene = Scene::new();
    let Some(held) = frozen(&mut scene, false) else {
        return;
    };
    scene.close();
    let place = scene.layout.shims().display().to_string();
    let started = Command::new("strace")
        .args(["-D", "-f", "-qq", "-o"])
        .arg(scene.server.scratch("trace"))
        .args(["-e", "trace=getdents64", "-P", &place])
        .args(["-e", "inject=getdents64:error=EIO", BINARY])
        .args(["serve", "--listen", "none", "--data-dir"])
        .arg(scene.layout.root())
        .output()
        .expect("strace");
    let said = String::from_utf8_lossy(&started.stderr);
    assert_eq!(started.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be listed"), "{said}");
    goes_on(scene, held);
}

#[test]
fn jobs_go_on_under_a_server_that_can_talk_to_two_of_them_at_a_time() {
    const JOBS: usize = 20;
    let mut server = Server::start();
    let ledger = server.scratch("ledger");
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "q", "concurrency": JOBS}));
    let line = format!("echo start >> {}; exec sleep 1000", ledger.display());
    let jobs: Vec<Value> = (0..JOBS)
        .map(|n| {
            let on_lost = if n % 2 == 0 { "retry" } else { "fail" };
            let job = json!({"shell": line, "queue": "q", "on_lost": on_lost});
            client.submit(server.marked(job))
        })
        .collect();
    for job in &jobs {
        client.started(job);
    }
    drop(client);
    for words in [&["prlimit", "--nofile=40:40"][..], &[]] {
        server.kill_9();
        server.under(words);
        server.restart();
        let mut client = server.connect();
        let (asked, others) = match words.is_empty() {
            true => jobs.split_at(JOBS),
            false => jobs.split_at(3),
        };
        for job in asked {
            client.control(job, "kill");
        }
        for job in asked {
            let end = client.finished(job);
            let shown = json!([end["state"], end["attempts"]]);
            assert_eq!(shown, json!(["cancelled", 1]), "{end}");
        }
        for job in others {
            assert_eq!(client.get(job)["state"], "running");
        }
    }
    let starts = fs::read_to_string(&ledger).expect("the ledger");
    assert_eq!(starts.lines().count(), JOBS, "each started once");
}

/// Plays a shim that refuses whatever it is given.
mod refuser {
    use std::{
        fs::File,
        io::{Read, Write},
        os::unix::net::UnixListener,
        time::Instant,
    };

    use cc_executor::spool::{
        FromShim, ShimState, ToShim,
        message::{MessageBuffer, PROTOCOL, encode},
    };
    use nix::fcntl::{Flock, FlockArg};

    use super::{Path, json};

    /// Holds the lock and the socket of a shim in this directory.
    pub fn open(shims: &Path) -> (Flock<File>, UnixListener) {
        let lock = File::create(shims.join("refuser.lock")).expect("the lock");
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).expect("locked");
        let socket = UnixListener::bind(shims.join("refuser.sock")).expect("the socket");
        (lock, socket)
    }

    /// Plays an idle shim of a version before secrets until it is told to leave: how many runs it was given.
    pub fn play_an_earlier_version(lock: Flock<File>, socket: &UnixListener) -> usize {
        let (mut stream, _) = socket.accept().expect("a server");
        let (mut inbox, mut runs) = (MessageBuffer::default(), 0);
        let welcome = json!({"type": "welcome", "protocol": PROTOCOL, "version": "0.0.1", "pid": 1,
                             "state": {"state": "idle"}});
        loop {
            let mut bytes = [0; 65536];
            let n = stream.read(&mut bytes).expect("read");
            assert_ne!(n, 0, "the server has hung up");
            inbox.extend(&bytes[..n]);
            while let Some(json) = inbox.next_message().expect("short") {
                match serde_json::from_slice(json).expect("a message") {
                    ToShim::Hello { .. } => stream.write_all(&encode(&welcome)).expect("write"),
                    ToShim::Run(_) => runs += 1,
                    ToShim::Leave => {
                        drop(lock);
                        return runs;
                    }
                    _ => {}
                }
            }
        }
    }

    /// When the first `count` attempts came.
    pub fn refuse(socket: &UnixListener, count: usize) -> Vec<Instant> {
        let (mut stream, _) = socket.accept().expect("a server");
        let (mut inbox, mut runs) = (MessageBuffer::default(), Vec::new());
        while runs.len() < count {
            let mut bytes = [0; 65536];
            let n = stream.read(&mut bytes).expect("read");
            assert_ne!(n, 0, "the server has hung up");
            inbox.extend(&bytes[..n]);
            while let Some(json) = inbox.next_message().expect("short") {
                let answer = match serde_json::from_slice(json).expect("a message") {
                    ToShim::Hello { .. } => FromShim::Welcome {
                        protocol: PROTOCOL,
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        pid: 1,
                        state: ShimState::Idle,
                        takes_secrets: true,
                        tells_last_sign: true,
                    },
                    ToShim::Run(spec) => {
                        runs.push(Instant::now());
                        FromShim::Refused {
                            job: spec.job,
                            attempt: spec.attempt,
                            why: "it always does".to_owned(),
                        }
                    }
                    _ => continue,
                };
                stream.write_all(&encode(&answer)).expect("write");
            }
        }
        runs
    }
}

#[test]
fn a_shim_that_refuses_is_left_alone_for_longer_each_time() {
    let mut scene = Scene::new();
    let id = scene.submit("echo at last");
    let (lock, socket) = refuser::open(&scene.layout.shims());
    let place = scene.layout.shims();
    let refusing = std::thread::spawn(move || refuser::refuse(&socket, 3));
    let mut client = scene.start();
    let runs = refusing.join().expect("three attempts");
    let pauses: Vec<u64> = runs.windows(2).map(|w| (w[1] - w[0]).as_secs()).collect();
    assert!(pauses[0] >= 1 && pauses[1] >= 2, "{pauses:?}");
    let asked = json!({"id": id.to_string()});
    assert_eq!(scene.server.shims().len(), 0, "nobody else was started");
    // It is dead: another one is started for the job.
    fs::remove_file(place.join("refuser.sock")).expect("the socket");
    drop(lock);
    assert_eq!(client.finished(&asked)["state"], "succeeded");
}

#[test]
fn a_shim_of_a_version_before_secrets_gets_no_job_that_needs_one() {
    let secrets = tempfile::tempdir().expect("a directory");
    let file = secrets.path().join("token");
    fs::write(&file, "s3cret value").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let directory = secrets.path().to_str().expect("UTF-8").to_owned();
    let mut scene = Scene::with(&["--warm-shims", "0", "--secrets-dir", &directory]);
    let (lock, socket) = refuser::open(&scene.layout.shims());
    let place = scene.layout.shims();
    let playing = std::thread::spawn(move || {
        let runs = refuser::play_an_earlier_version(lock, &socket);
        fs::remove_file(place.join("refuser.sock")).expect("the socket");
        runs
    });
    let mut client = scene.start();
    let asked = client
        .submit(json!({"shell": "echo \"it is $TOKEN\"", "env": {"TOKEN": {"secret": "token"}}}));
    assert_eq!(playing.join().expect("it left"), 0);
    assert_eq!(client.finished(&asked)["state"], "succeeded");
    assert_eq!(client.whole(&asked).bytes, b"it is ************\n");
}
