//! Jobs whose shims are killed: whatever their processes have done to be found by nobody, they are
//! ended, by the server that sees it and by the next one.

use std::{fs, os::unix::fs::chown, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::{Value, json};

use crate::harness::{Server, is_alive, until, until_true, with_word};

/// A user that is not root.
const PLAIN_USER: u32 = 65534;

/// Hides from the kernel's file of its environment, then tells its number and waits.
const OVERWRITES_ITS_ENVIRONMENT: &str = "import ctypes, os, sys, time\n\
    c = ctypes.CDLL(None)\n\
    c.strlen.argtypes = [ctypes.c_void_p]\n\
    e = ctypes.POINTER(ctypes.c_void_p).in_dll(c, \"environ\")\n\
    i = 0\n\
    while e[i]:\n    ctypes.memset(e[i], 120, c.strlen(e[i]))\n    i += 1\n\
    open(sys.argv[1], \"w\").write(str(os.getpid()) + \"\\n\")\n\
    time.sleep(1000)";

const IS_NOT_DUMPABLE: &str = "import ctypes, os, sys, time\n\
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n\
    open(sys.argv[1], \"w\").write(str(os.getpid()) + \"\\n\")\n\
    time.sleep(1000)";

/// Its first thread ends, TERM is ignored, and another thread uses a processor.
const LOSES_ITS_FIRST_THREAD: &str = "import ctypes, os, signal, sys, threading\n\
    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
    def go_on():\n    while True: pass\n\
    threading.Thread(target=go_on).start()\n\
    open(sys.argv[1], \"w\").write(str(os.getpid()) + \"\\n\")\n\
    ctypes.CDLL(None).pthread_exit(None)";

/// The number that a job has written into a file.
fn pid_in(file: &Path) -> i32 {
    until("a process to tell its number", || {
        let text = fs::read_to_string(file).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
}

/// A job whose leader waits for a process that `line` starts and that writes its number to `$PID`.
fn job_of(server: &Server, line: &str, file: &Path) -> Value {
    let _ = fs::remove_file(file);
    let mut job = json!({"shell": format!("{line} & wait"), "cwd": "/"});
    job["env"]["PID"] = json!(file);
    job["env"]["PATH"] = json!(std::env::var("PATH").expect("a PATH"));
    server.marked(job)
}

/// Kills a job's shim, beside the server where the next one is to find out.
fn kill_shim(server: &mut Server, with_server: bool) {
    if with_server {
        server.kill_9();
    }
    server.kill_shim();
    if with_server {
        server.restart();
    }
}

/// The jobs are lost, and whoever they have started is gone.
fn assert_ended(server: &mut Server, lines: &[&str]) {
    let file = server.scratch("pid");
    for (line, with_server) in lines.iter().flat_map(|line| [(line, false), (line, true)]) {
        let mut client = server.connect();
        let job = client.submit(job_of(server, line, &file));
        let pid = pid_in(&file);
        kill_shim(server, with_server);
        let end = server.connect().finished(&job);
        let is_left = is_alive(pid);
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let shown = json!([end["reason"], end["survivors"], end["survivors_unknown"]]);
        assert_eq!(shown, json!(["lost", [], null]), "{line}: {end}");
        assert!(!is_left, "{line} (with the server: {with_server})");
    }
}

/// Lines that start a process which hides from who looks for the job's variables.
fn hiding() -> Vec<String> {
    let python = |code: &str| format!("setsid python3 -c '{code}' \"$PID\"");
    vec![
        r#"env -i setsid sh -c 'echo $$ > '"$PID"'; exec sleep 1000'"#.to_owned(),
        r#"setsid env -i sh -c 'trap "" TERM; echo $$ > '"$PID"'; while :; do sleep 1; done'"#
            .to_owned(),
        python(OVERWRITES_ITS_ENVIRONMENT),
        python(IS_NOT_DUMPABLE),
        python(LOSES_ITS_FIRST_THREAD),
    ]
}

#[test]
fn a_process_that_hides_its_descent_is_ended() {
    let mut server = Server::start();
    let lines = hiding();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_ended(&mut server, &lines);
}

#[test]
fn a_process_that_hides_from_a_server_that_is_not_root_is_ended() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: the other test is this one for who is not root");
        return;
    }
    let mut server = Server::stopped(&[], &[]);
    let home = server.scratch("");
    chown(&home, Some(PLAIN_USER), Some(PLAIN_USER)).expect("chown");
    let id = PLAIN_USER.to_string();
    server.under(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    server.restart();
    // A shim that is started later hides itself from its server as well.
    server.connect().submit(json!({"argv": ["true"]}));
    let line = r#"env -i setsid sh -c 'echo $$ > '"$PID"'; exec sleep 1000'"#;
    assert_ended(&mut server, &[line]);
    if can_run_python(PLAIN_USER) {
        let python = format!("setsid python3 -c '{IS_NOT_DUMPABLE}' \"$PID\"");
        assert_ended(&mut server, &[&python]);
    } else {
        eprintln!("SKIPPED: python3 is not for everybody here");
    }
}

fn can_run_python(user: u32) -> bool {
    use std::os::unix::process::CommandExt;
    let mut python = std::process::Command::new("python3");
    let python = python
        .args(["-c", ""])
        .uid(user)
        .stderr(std::process::Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

#[test]
fn a_chain_of_processes_that_fork_and_exit_does_not_get_away() {
    let mut server = Server::start();
    let (gate, word) = (server.scratch("gate"), server.scratch("chain"));
    fs::write(&gate, "").expect("the gate");
    let script = server.scratch("chain.sh");
    let next = |how: &str| format!("[ -e {} ] || exit\n{how} &\nexit 0\n", gate.display());
    let (script, word) = (script.display().to_string(), word.display().to_string());
    for how in [
        format!("sh {script} {word}"),
        format!("setsid sh {script} {word}"),
        format!("env -i PATH=$PATH setsid sh {script} {word}"),
    ] {
        fs::write(&script, next(&how)).expect("the chain");
        for with_server in [false, true] {
            let mut client = server.connect();
            let line = format!("sh {script} {word}; sleep 1000");
            let job = client.submit(server.marked(json!({"shell": line})));
            client.started(&job);
            until_true("the chain to begin", || !with_word(&word).is_empty());
            kill_shim(&mut server, with_server);
            let end = server.connect().finished(&job);
            let goes_on = (0..20).any(|_| !with_word(&word).is_empty());
            let is_told = end["survivors_unknown"] != Value::Null;
            assert_eq!(end["reason"], "lost", "{end}");
            assert!(!goes_on || is_told, "{how}: {end}");
            if goes_on {
                eprintln!("{how}: {}", end["survivors_unknown"]);
                fs::remove_file(&gate).expect("the gate");
                until_true("the chain to end", || with_word(&word).is_empty());
                fs::write(&gate, "").expect("the gate");
            }
        }
    }
}

#[test]
fn a_process_whose_first_thread_has_ended_is_controlled_like_any_other() {
    let server = Server::start();
    let mut client = server.connect();
    let file = server.scratch("pid");
    let line = format!("setsid python3 -c '{LOSES_ITS_FIRST_THREAD}' \"$PID\"");
    for how in ["cancel", "kill", "timeout", "pause", "keep", "alone"] {
        let mut job = job_of(&server, &line, &file);
        job["grace_s"] = json!(0.1);
        match how {
            "timeout" => job["timeout_s"] = json!(1),
            "keep" => {
                job["leftover"] = json!("keep");
                let shell = format!("{line} & until [ -s $PID ]; do sleep 0.01; done");
                job["shell"] = json!(shell);
            }
            "alone" => {
                let shell = line.replace("setsid", "exec");
                job["shell"] = json!(shell);
            }
            _ => {}
        }
        let job = client.submit(job);
        let pid = pid_in(&file);
        match how {
            "timeout" | "keep" => {}
            "pause" => {
                client.control(&job, "pause");
                let used = || ticks(pid);
                // What was being counted when it stopped has been counted.
                let settled = until("a stop", || {
                    let before = used();
                    spin();
                    (used() == before).then_some(before)
                });
                spin();
                assert_eq!(used(), settled, "it is paused");
                client.control(&job, "cancel");
            }
            "alone" => drop(client.control(&job, "cancel")),
            how => drop(client.control(&job, how)),
        }
        let end = client.finished(&job);
        if how == "keep" {
            let named = json!([end["state"], end["survivors"][0]["pid"]]);
            assert_eq!(named, json!(["succeeded", pid]), "{end}");
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
            continue;
        }
        let state = if how == "timeout" {
            "failed"
        } else {
            "cancelled"
        };
        assert_eq!(end["state"], state, "{how}: {end}");
        assert!(!is_alive(pid), "{how}");
    }
}

/// CPU time used by all threads of a process, clock ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let mut fields = rest.split(' ').skip(11).map(|ticks| ticks.parse::<u64>());
    let mut next = || fields.next().expect("a field").expect("a number");
    next() + next()
}

/// Gives the machine's processors something to do for some ticks of the clock.
fn spin() {
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(100) {
        std::thread::yield_now();
    }
}

#[test]
fn many_dead_shims_do_not_stand_before_the_ready_line() {
    const JOBS: usize = 40;
    let mut server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "q", "concurrency": JOBS}));
    let word = server.scratch("survivor").display().to_string();
    let line = format!("env -i setsid sh -c 'while :; do sleep 1; done' {word} & wait");
    let jobs: Vec<Value> = (0..JOBS)
        .map(|_| client.submit(server.marked(json!({"shell": line, "queue": "q"}))))
        .collect();
    until_true("all of them to run", || with_word(&word).len() == 2 * JOBS);
    drop(client);
    // Stopped first: it would have them replaced.
    kill(Pid::from_raw(server.pid()), Signal::SIGSTOP).expect("our child");
    for shim in server.shims() {
        kill(Pid::from_raw(shim), Signal::SIGKILL).expect("a shim");
    }
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    for job in &jobs {
        let end = client.finished(job);
        let shown = json!([end["reason"], end["survivors"], end["survivors_unknown"]]);
        assert_eq!(shown, json!(["lost", [], null]), "{end}");
    }
    assert_eq!(with_word(&word), [] as [i32; 0]);
}
