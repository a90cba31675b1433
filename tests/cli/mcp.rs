//! `mcp`: a relay between an agent's stdin and stdout and the server, whatever becomes of either.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    thread,
    time::Instant,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    agent::Agent,
    harness::{CEILING, Server, is_alive, memory, until, until_true, with_word},
};

/// The jobs, oldest first.
#[track_caller]
fn jobs(place: &Server) -> Vec<Value> {
    let page = place.cli("ls").args(["--json"]).run().json();
    let mut jobs = page.as_array().expect("jobs").clone();
    jobs.sort_by_key(|job| job["number"].as_i64());
    jobs
}

/// Waits until this many jobs have started.
#[track_caller]
fn until_started(place: &Server, count: usize) {
    until_true("the jobs to start", || {
        let page = place.cli("ls").args(["--json"]).run();
        let jobs: Value = serde_json::from_slice(&page.stdout).unwrap_or_default();
        let jobs = jobs.as_array().cloned().unwrap_or_default();
        let started = jobs.iter().filter(|job| !job["started_at"].is_null());
        started.count() == count
    });
}

/// A command that waits for this file, and then prints `done`.
fn waits_for(gate: &Path) -> String {
    format!(
        "until [ -e {} ]; do sleep 0.02; done; echo done",
        gate.display()
    )
}

fn open(gate: &Path) {
    fs::write(gate, "").expect("written");
}

fn server_of(place: &Server) -> Option<i32> {
    let status = place.cli("status").args(["--json"]).run();
    let status: Value = serde_json::from_slice(&status.stdout).ok()?;
    status["pid"].as_i64().map(|pid| pid as i32)
}

#[track_caller]
fn stop(place: &Server) {
    let stopped = place.cli("stop").run();
    assert_eq!(stopped.code(), 0, "{}", stopped.err());
}

#[test]
fn it_starts_a_server_and_runs_commands_where_the_agent_is() {
    let place = Server::stopped(&[], &[]);
    let home = place.scratch("project");
    fs::create_dir(&home).expect("made");
    let mut agent = Agent::start(&place, |command| {
        command.current_dir(&home).env("PROJECT", "blue");
    });
    agent.open();
    agent.request(1, "tools/list", json!({}));
    let tools = agent.answer(1);
    let names: Vec<&Value> = tools["result"]["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .map(|tool| &tool["name"])
        .collect();
    assert!(names.contains(&&json!("run")), "{names:?}");
    agent.call(
        2,
        "run",
        json!({"command": "pwd; echo $PROJECT; ulimit -n"}),
    );
    let (told, is_error) = agent.told(2);
    let here = fs::canonicalize(&home).expect("there");
    assert!(
        told.contains(&format!("\n{}\nblue\n", here.display())),
        "{told}"
    );
    assert!(!is_error);
    agent.call(3, "run", json!({"command": "pwd", "cwd": "/"}));
    assert!(agent.told(3).0.contains("\n/\n"));
    let shown = place.cli("show").args(["1", "--json"]).run().json();
    assert!(!shown.to_string().contains("blue"), "values are in no view");
    agent.leave();
    stop(&place);
}

#[test]
fn an_environment_can_stay_where_it_is() {
    let place = Server::stopped(&[], &[]);
    let mut agent = Agent::start(&place, |command| {
        command.arg("--clean-env").env("PROJECT", "blue");
    });
    agent.open();
    agent.call(1, "run", json!({"command": "echo [$PROJECT]"}));
    assert!(agent.told(1).0.contains("\n[]\n"));
    agent.leave();
    stop(&place);
}

/// A `run` waits while something happens to the server; it is answered afterwards, and was one job.
#[track_caller]
fn waits_over(place: &mut Server, newest: bool, happens: impl FnOnce(&mut Server)) {
    let gate = place.scratch("gate");
    let mut agent = Agent::start(place, |_| {});
    if !newest {
        agent.open();
    }
    let arguments = json!({"command": waits_for(&gate), "wait_s": 120});
    match newest {
        true => agent.call_newest(7, "run", arguments),
        false => agent.call(7, "run", arguments),
    }
    until_started(place, 1);
    happens(place);
    open(&gate);
    let (told, is_error) = agent.told(7);
    assert!(told.contains("\ndone\n") && !is_error, "{told}");
    let jobs = jobs(place);
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(jobs[0]["attempts"], 1);
    assert!(!agent.has_more());
    agent.leave();
}

fn kill_and_restart(server: &mut Server) {
    server.kill_9();
    server.restart();
}

#[test]
fn a_call_that_waits_is_answered_after_a_kill() {
    waits_over(&mut Server::start(), false, kill_and_restart);
}

#[test]
fn so_is_one_of_a_client_that_opens_no_session() {
    waits_over(&mut Server::start(), true, kill_and_restart);
}

#[test]
fn a_call_that_waits_is_answered_after_a_stop_and_a_start() {
    waits_over(&mut Server::start(), false, |server| {
        assert!(server.stop().0.success());
        server.restart();
    });
}

#[test]
fn a_call_that_waits_is_answered_after_several_kills() {
    waits_over(&mut Server::start(), false, |server| {
        for _ in 0..3 {
            kill_and_restart(server);
        }
    });
}

#[test]
fn a_server_that_nobody_else_starts_again_is_started() {
    let mut place = Server::stopped(&[], &[]);
    waits_over(&mut place, false, |place| {
        let pid = server_of(place).expect("it was started");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the server");
        until_true("another server", || {
            server_of(place).is_some_and(|other| other != pid)
        });
    });
    stop(&place);
}

#[test]
fn a_restart_by_the_verb_is_waited_over() {
    let mut place = Server::stopped(&[], &[]);
    waits_over(&mut place, false, |place| {
        let done = place.cli("restart").run();
        assert_eq!(done.code(), 0, "{}", done.err());
    });
    stop(&place);
}

#[test]
fn a_server_that_nothing_needs_is_started_again_by_the_next_call_only() {
    let place = Server::stopped(&[], &[]);
    let mut agent = Agent::opened(&place);
    agent.call(1, "run", json!({"command": "echo one"}));
    assert!(agent.told(1).0.contains("\none\n"));
    let pid = server_of(&place).expect("a server");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the server");
    until_true("it is gone", || !is_alive(pid));
    // A bad line is answered without a server: by then the loss is known, and nothing was started.
    agent.send_bytes(b"garbage\n");
    assert_eq!(agent.answer(Value::Null)["error"]["code"], -32700);
    assert_eq!(server_of(&place), None);
    agent.call(2, "run", json!({"command": "echo two"}));
    assert!(agent.told(2).0.contains("\ntwo\n"));
    assert_eq!(jobs(&place).len(), 2);
    agent.leave();
    stop(&place);
}

#[test]
fn a_signal_is_not_sent_twice() {
    const TURNS: usize = 20;
    let mut server = Server::start();
    let mut agent = Agent::opened(&server);
    agent.call(1, "run", json!({"command": "exec sleep 1000", "wait_s": 0}));
    agent.told(1);
    until_started(&server, 1);
    // The server takes no more, but the kernel does for it.
    server.signal(Signal::SIGSTOP);
    agent.call(2, "wait", json!({"jobs": [1], "wait_s": 0}));
    let arguments = json!({"job": 1, "action": "signal", "signal": "SIGCONT"});
    agent.call(3, "control", arguments);
    // The relay answers a bad line itself: at each of these turns it sends whatever it has.
    for _ in 0..TURNS {
        agent.send_bytes(b"garbage\n");
        agent.answer(Value::Null);
    }
    server.kill_9();
    server.restart();
    let (told, is_error) = agent.told(3);
    assert!(is_error && told.contains("not sent again"), "{told}");
    assert!(!agent.told(2).1, "reading is repeated");
    agent.call(4, "control", json!({"job": 1, "action": "kill"}));
    assert!(!agent.told(4).1);
    agent.leave();
}

#[test]
fn a_cancelled_call_gets_no_answer() {
    let server = Server::start();
    let gate = server.scratch("gate");
    let mut agent = Agent::opened(&server);
    agent.call(
        1,
        "run",
        json!({"command": waits_for(&gate), "wait_s": 120}),
    );
    until_started(&server, 1);
    agent.send(&json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}
    }));
    open(&gate);
    agent.call(2, "wait", json!({"jobs": [1], "wait_s": 50}));
    assert!(agent.told(2).0.contains("succeeded"));
    assert!(!agent.has_more(), "an answer to the cancelled call");
    // A cancel of a call that is answered does nothing.
    agent.send(&json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}
    }));
    agent.request(3, "ping", json!({}));
    assert_eq!(agent.answer(3)["result"], json!({}));
    agent.leave();
}

#[test]
fn bad_lines_and_ten_megabytes_do_not_disturb_other_calls() {
    let server = Server::start();
    let gate = server.scratch("gate");
    let mut agent = Agent::opened(&server);
    agent.call(
        1,
        "run",
        json!({"command": waits_for(&gate), "wait_s": 120}),
    );
    agent.send_bytes(b"garbage\n\n[]\n{\"jsonrpc\":\"2.0\",\"id\":9}\n");
    assert_eq!(agent.answer(Value::Null)["error"]["code"], -32700);
    assert_eq!(agent.answer(Value::Null)["error"]["code"], -32600);
    assert_eq!(agent.answer(9)["error"]["code"], -32600);
    for (id, late) in [(10, false), (11, true)] {
        let big = "x".repeat(10 << 20);
        let params = json!({"name": "run", "arguments": {"stdin": big}});
        let line = match late {
            false => format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{params}}}\n"
            ),
            true => format!(
                "{{\"method\":\"tools/call\",\"params\":{params},\"jsonrpc\":\"2.0\",\"id\":{id}}}\n"
            ),
        };
        agent.send_bytes(line.as_bytes());
        let refused = agent.answer(id);
        assert_eq!(refused["error"]["code"], -32005);
        let message = refused["error"]["message"].to_string();
        assert!(message.contains("write the data to a file"), "{message}");
    }
    assert!(
        memory(agent.pid(), "VmHWM") < 64 << 20,
        "the lines were not held"
    );
    open(&gate);
    assert!(agent.told(1).0.contains("\ndone\n"));
    agent.leave();
}

/// What ends the relay, each with a call that waits.
#[test]
fn it_ends_with_its_client_and_the_job_runs_on() {
    let server = Server::start();
    let ends: [fn(&mut Agent); 4] = [
        |agent| agent.close_stdin(),
        |agent| agent.signal(Signal::SIGTERM),
        |agent| agent.signal(Signal::SIGINT),
        Agent::close_stdout,
    ];
    for (nth, end) in ends.into_iter().enumerate() {
        let mut agent = Agent::that_does_not_read(&server.data_dir(), |_| {});
        // Another command each time: an equal one would be taken for a repetition after a lost reply.
        let command = format!("exec sleep {}", 1000 + nth);
        let arguments = json!({"command": command, "wait_s": 120});
        agent.call_newest(1, "run", arguments);
        until_started(&server, nth + 1);
        end(&mut agent);
        let began = Instant::now();
        assert_eq!(agent.ended().0, Some(0));
        assert!(began.elapsed() < CEILING / 4, "soon");
    }
    assert!(jobs(&server).iter().all(|job| job["state"] == "running"));
    for nth in 1..=ends.len() {
        assert_eq!(server.cli("kill").args([nth.to_string()]).run().code(), 0);
    }
}

#[test]
fn it_ends_when_its_stdout_cannot_be_written() {
    let server = Server::start();
    let mut agent = Agent::that_does_not_read(&server.data_dir(), |command| {
        command.stdout(File::create("/dev/full").expect("a device"));
        command.stderr(Stdio::piped());
    });
    agent.send_bytes(b"garbage\n");
    let (code, said) = agent.ended();
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[test]
fn what_was_asked_before_the_end_of_stdin_is_answered() {
    let server = Server::start();
    let mut agent = Agent::start(&server, |_| {});
    agent.call_newest(1, "run", json!({"command": "echo hello"}));
    agent.close_stdin();
    assert!(agent.told(1).0.contains("\nhello\n"));
    assert_eq!(agent.ended().0, Some(0));
}

#[test]
fn two_at_once_are_two_sessions_on_one_server() {
    let place = Server::stopped(&[], &[]);
    thread::scope(|scope| {
        for nth in 0..2 {
            let place = &place;
            scope.spawn(move || {
                let mut agent = Agent::opened(place);
                // The same ids in both; the commands differ, so that neither is taken for the other.
                agent.call(1, "run", json!({"command": format!("echo number {nth}")}));
                let (told, _) = agent.told(1);
                assert!(told.contains(&format!("\nnumber {nth}\n")), "{told}");
                agent.leave();
            });
        }
    });
    assert_eq!(jobs(&place).len(), 2);
    let servers = with_word(&place.data_dir().display().to_string());
    let servers = servers.into_iter().filter(|pid| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"serve"))
    });
    assert_eq!(servers.count(), 1);
    stop(&place);
}

#[test]
fn a_client_that_does_not_read_is_not_read_for() {
    const CALLS: i64 = 240;
    let server = Server::start();
    let mut other = Agent::opened(&server);
    let print = "yes 0123456789abcdef | head -c 200000";
    other.call(1, "run", json!({"command": print, "wait_s": 60}));
    other.told(1);
    let mut agent = Agent::that_does_not_read(&server.data_dir(), |_| {});
    // As much as the pipe and the relay take together without being read from.
    for id in 0..CALLS {
        let arguments = json!({"job": 1, "from": 0, "max_chars": 9500});
        agent.call_newest(id, "read_output", arguments);
    }
    other.call(2, "run", json!({"command": "echo alive"}));
    assert!(
        other.told(2).0.contains("\nalive\n"),
        "the others do not notice"
    );
    assert!(memory(agent.pid(), "VmHWM") < 64 << 20, "little is held");
    agent.read();
    for id in 0..CALLS {
        let answer = agent.answer(id);
        let is_refused = answer["error"]["code"] == -32005;
        assert!(
            is_refused || answer["result"]["isError"] == false,
            "{answer}"
        );
    }
    agent.leave();
    other.leave();
}

#[test]
fn a_server_that_cannot_be_had_is_an_error_and_no_wait() {
    let place = Server::stopped(&[], &[]);
    fs::create_dir(place.data_dir()).expect("made");
    let mode = |mode| {
        fs::set_permissions(place.data_dir(), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode(0o777);
    let mut agent = Agent::start(&place, |command| {
        command.stderr(Stdio::piped());
    });
    agent.request(1, "initialize", json!({"protocolVersion": "2025-11-25"}));
    let refused = agent.answer(1);
    assert_eq!(refused["error"]["code"], -32006);
    assert!(
        refused["error"]["message"]
            .to_string()
            .contains("chmod go-w"),
        "{refused}"
    );
    agent.call(2, "run", json!({"command": "true"}));
    let (told, is_error) = agent.told(2);
    assert!(is_error && told.contains("was not executed"), "{told}");
    // The next call tries again.
    mode(0o700);
    agent.call_newest(3, "run", json!({"command": "echo now"}));
    assert!(agent.told(3).0.contains("\nnow\n"));
    agent.close_stdin();
    let (code, said) = agent.ended();
    assert_eq!(code, Some(0));
    assert!(said.contains("chmod go-w"), "{said}");
    stop(&place);
}

#[test]
fn a_server_at_an_address_gets_nothing_of_the_agents_place() {
    let server = Server::start();
    let token = server.ready["token_file"]
        .as_str()
        .expect("a path")
        .to_owned();
    let url = format!("ws://{}", server.listen());
    let mut agent = Agent::start(&server, |command| {
        command.args(["--server", &url, "--token-file", &token]);
        command.current_dir("/usr").env("PROJECT", "blue");
    });
    agent.open();
    agent.call(1, "run", json!({"command": "pwd; echo [$PROJECT]"}));
    let (told, _) = agent.told(1);
    assert!(told.contains("\n[]\n") && !told.contains("/usr"), "{told}");
    agent.leave();

    let mut refused = Agent::start(&server, |command| {
        command
            .args(["--server", "ws://127.0.0.1:1"])
            .stderr(Stdio::null());
    });
    refused.call_newest(1, "run", json!({"command": "true"}));
    let (told, _) = refused.told(1);
    assert!(told.contains("no server answers at 127.0.0.1:1"), "{told}");
    refused.close_stdin();
    assert_eq!(refused.ended().0, Some(1), "there never was a server");
}

#[test]
fn a_file_as_stdin_is_answered_to_its_end() {
    let server = Server::start();
    let script = server.scratch("script");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    // Without a line end after the last one.
    fs::write(&script, format!("{call}\nnot json")).expect("written");
    let mut agent = Agent::start(&server, |command| {
        command.stdin(File::open(&script).expect("there"));
    });
    assert_eq!(agent.answer(1)["result"], json!({}));
    assert_eq!(agent.answer(Value::Null)["error"]["code"], -32700);
    assert_eq!(until("the end", || Some(agent.ended().0)), Some(0));
}
