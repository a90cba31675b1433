//! The other verbs: what they print, what they do, how they exit.

use serde_json::{Value, json};

use crate::harness::{Finished, Server, assert_bytes, content, emit, sha256, until_true};

fn call(server: &Server, verb: &str, words: &[&str]) -> Finished {
    server.cli(verb).args(words).run()
}

/// Submits by command and returns the number that it was given.
fn submit(server: &Server, words: &[&str]) -> String {
    let done = call(server, "submit", words);
    assert_eq!(done.code(), 0, "{}", done.err());
    let page = call(server, "ls", &["--json"]).json();
    page[0]["number"].to_string()
}

#[test]
fn submit_prints_a_name_that_every_verb_takes() {
    let server = Server::start();
    let done = call(&server, "submit", &["--", "sh", "-c", "echo out; exit 7"]);
    assert_eq!(done.code(), 0, "{}", done.err());
    let name = done.out().trim().to_owned();
    let waited = call(&server, "wait", &[&name]);
    assert_eq!(waited.code(), 7, "{}", waited.err());
    assert_eq!(call(&server, "tail", &[&name]).out(), "out\n");
    let job = call(&server, "show", &[&name, "--json"]).json();
    assert_eq!(job["exit_code"], 7);
    let number = job["number"].to_string();
    for same in [number.as_str(), job["id"].as_str().expect("an id"), "last"] {
        assert_eq!(call(&server, "show", &[same, "--json"]).json(), job);
    }
}

/// Two runs of a nightly job have one name.
#[test]
fn a_name_is_its_newest_job_and_for_control_the_newest_that_is_not_final() {
    let server = Server::start();
    submit(&server, &["--name", "build", "--", "sleep", "1000"]);
    submit(&server, &["--name", "build", "--", "true"]);
    assert_eq!(call(&server, "wait", &["2"]).code(), 0);
    let show = |job: &str| call(&server, "show", &[job, "--json"]).json();
    assert_eq!(show("build")["number"], 2);
    assert_eq!(call(&server, "wait", &["build"]).code(), 0);
    for verb in ["pause", "resume", "cancel"] {
        assert_eq!(call(&server, verb, &["build"]).code(), 0, "{verb}");
    }
    call(&server, "wait", &["1"]);
    assert_eq!(show("1")["state"], "cancelled");
    assert_eq!(show("2")["state"], "succeeded");
    // Without one that is not final it is the newest again: nothing happens to a final job.
    assert_eq!(call(&server, "cancel", &["build"]).code(), 0);
    assert_eq!(call(&server, "rm", &["build"]).code(), 0);
    assert_eq!(show("build")["number"], 1);
}

#[test]
fn what_is_not_there_is_one_line_on_stderr() {
    let server = Server::start();
    for (verb, words) in [
        ("show", ["999"]),
        ("tail", ["999"]),
        ("wait", ["999"]),
        ("cancel", ["999"]),
        ("show", ["last"]),
    ] {
        let done = call(&server, verb, &words);
        assert_ne!(done.code(), 0, "{verb}");
        assert_eq!(done.out(), "");
        assert_eq!(
            done.err().trim().lines().count(),
            1,
            "{verb}: {}",
            done.err()
        );
    }
}

#[test]
fn ls_lists_newest_first_without_control_characters() {
    let server = Server::start();
    let mut client = server.connect();
    let name = "evil\u{1b}[2J\u{7}name";
    let job = client.submit(json!({"argv": ["true"], "name": name}));
    client.finished(&job);
    for (verb, words) in [("ls", vec![]), ("show", vec!["last"])] {
        let view = server.cli(verb).args(words).run();
        assert_eq!(view.code(), 0, "{}", view.err());
        assert!(view.out().contains("evil"), "{}", view.out());
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!view.out().chars().any(control), "{:?}", view.out());
    }
    client.submit(json!({"argv": ["true"]}));
    let page = call(&server, "ls", &["--json"]).json();
    assert_eq!(page[0]["number"], 2);
    assert_eq!(page[1]["number"], 1);
    assert_eq!(page[1]["name"], name, "JSON has it exactly");
}

#[test]
fn tail_prints_what_the_digest_covers() {
    let server = Server::start();
    let words = [
        "--",
        emit(),
        "--seed",
        "81",
        "--bytes",
        "100000",
        "--err-bytes",
        "5000",
    ];
    let number = submit(&server, &words);
    let done = call(&server, "tail", &[&number]);
    assert_eq!(done.code(), 0, "{}", done.err());
    let job = call(&server, "show", &[&number, "--json"]).json();
    assert_eq!(job["output_sha256"], sha256(&done.stdout));
    for (stream, number_of, length) in [("stdout", 0, 100_000), ("stderr", 1, 5000)] {
        let one = call(&server, "tail", &[&number, "--stream", stream]);
        assert_bytes(&one.stdout, &content(81, number_of, length, false), stream);
    }
}

#[test]
fn tail_begins_where_it_is_told() {
    let server = Server::start();
    let number = submit(&server, &["--", "printf", "one\\ntwo\\nthree\\n"]);
    call(&server, "wait", &[&number]);
    assert_eq!(
        call(&server, "tail", &[&number, "-n", "1"]).out(),
        "three\n"
    );
    assert_eq!(
        call(&server, "tail", &[&number, "--from", "4"]).out(),
        "two\nthree\n"
    );
    let beyond = call(&server, "tail", &[&number, "--from", "400"]);
    assert_ne!(beyond.code(), 0);
    assert_eq!(beyond.out(), "");
}

#[test]
fn tail_as_json_is_one_object_a_line() {
    let server = Server::start();
    let number = submit(&server, &["--", "echo", "text"]);
    let done = call(&server, "tail", &[&number, "--json"]);
    assert_eq!(done.code(), 0, "{}", done.err());
    let lines: Vec<Value> = done
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(
        lines.len() >= 2 && lines.iter().all(Value::is_object),
        "{lines:?}"
    );
}

#[test]
fn tail_without_follow_returns_while_the_job_runs() {
    let server = Server::start();
    let number = submit(&server, &["--", "sh", "-c", "echo here; exec sleep 1000"]);
    until_true("the output", || {
        call(&server, "tail", &[&number, "--no-follow"]).out() == "here\n"
    });
    let job = call(&server, "show", &[&number, "--json"]).json();
    assert_eq!(job["state"], "running");
}

#[test]
fn control_verbs_take_several_jobs() {
    let server = Server::start();
    let jobs = [
        submit(&server, &["--", "sleep", "1000"]),
        submit(&server, &["--", "sleep", "1000"]),
    ];
    let both: Vec<&str> = jobs.iter().map(String::as_str).collect();
    let state = |job: &str| call(&server, "show", &[job, "--json"]).json()["state"].clone();
    until_true("both to run", || {
        both.iter().all(|job| state(job) == "running")
    });
    for (verb, after) in [
        ("pause", "paused"),
        ("resume", "running"),
        ("cancel", "cancelled"),
    ] {
        let done = call(&server, verb, &both);
        assert_eq!(done.code(), 0, "{verb}: {}", done.err());
        until_true(verb, || both.iter().all(|job| state(job) == after));
    }
}

#[test]
fn signal_and_kill() {
    let server = Server::start();
    let line = "trap 'echo got' USR1; echo ready; while :; do sleep 0.02; done";
    let number = submit(&server, &["--", "sh", "-c", line]);
    // On stderr the shell may name the signal that ended its sleep.
    let words = [number.as_str(), "--no-follow", "--stream", "stdout"];
    let shown = || call(&server, "tail", &words).out();
    until_true("the trap", || shown() == "ready\n");
    let signalled = call(&server, "signal", &["USR1", &number]);
    assert_eq!(signalled.code(), 0, "{}", signalled.err());
    until_true("the signal", || shown() == "ready\ngot\n");
    assert_eq!(call(&server, "kill", &[&number]).code(), 0);
    assert_eq!(call(&server, "wait", &[&number]).code(), 130);
}

#[test]
fn wait_has_a_timeout() {
    let server = Server::start();
    let number = submit(&server, &["--", "sleep", "1000"]);
    let done = call(&server, "wait", &[&number, "--timeout", "0.3"]);
    assert_ne!(done.code(), 0);
    let job = call(&server, "show", &[&number, "--json"]).json();
    assert_ne!(job["state"], "cancelled", "waiting never touches the job");
}

#[test]
fn wait_has_conditions_and_its_codes_tell_how_it_went() {
    let server = Server::start();
    let number = submit(&server, &["--shell", "echo is ready; exec sleep 1000"]);
    let wait = |words: &[&str]| {
        let words: Vec<&str> = std::iter::once(&*number)
            .chain(words.iter().copied())
            .collect();
        call(&server, "wait", &words)
    };
    for until in ["regex:ready$", "bytes:9", "idle:50ms", "running"] {
        let done = wait(&["--until", until]);
        assert_eq!(done.code(), 0, "{until}: {}", done.err());
    }
    let told = wait(&["--until", "regex:READY|is", "--json"]).json();
    assert_eq!(
        (&told["met"], &told["job"]["state"]),
        (&json!(true), &json!("running"))
    );
    let late = wait(&["--until", "regex:never", "--timeout", "0.2"]);
    assert_eq!(late.code(), 124, "{}", late.err());
    for wrong in ["ready", "regex:(", "idle:soon"] {
        assert_ne!(wait(&["--until", wrong]).code(), 0, "{wrong}");
    }
    let done = submit(&server, &["--", "true"]);
    let any = call(
        &server,
        "wait",
        &[&done, &number, "--any", "--until", "regex:ready"],
    );
    assert_eq!(any.code(), 0, "{}", any.err());
    let all = call(&server, "wait", &[&number, &done, "--until", "regex:ready"]);
    assert_eq!(
        all.code(),
        1,
        "it ended well and never said so: {}",
        all.err()
    );
    assert_eq!(call(&server, "kill", &[&number]).code(), 0);
    assert_eq!(wait(&["--until", "regex:never"]).code(), 130);
}

#[test]
fn wait_goes_on_over_a_kill_of_the_server() {
    let mut server = Server::start();
    let go = server.scratch("go");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; echo ready",
        go.display()
    );
    let number = submit(&server, &["--shell", &line]);
    let words = [&*number, "--until", "regex:ready"];
    let waiting = server.cli("wait").args(words).spawn();
    until_true("it waits", || server.get("/health").json()["sessions"] == 1);
    server.kill_9();
    server.restart();
    std::fs::write(&go, "").expect("go");
    let done = waiting.finish();
    assert_eq!(done.code(), 0, "{}", done.err());
}

#[test]
fn status_and_stop() {
    let mut server = Server::start();
    let status = call(&server, "status", &["--json"]).json();
    assert_eq!(status["pid"], server.pid());
    assert_eq!(call(&server, "status", &[]).code(), 0);
    let pid = server.pid();
    let stopped = call(&server, "stop", &[]);
    assert_eq!(stopped.code(), 0, "{}", stopped.err());
    // A zombie until it is waited for, but no longer a server.
    assert!(!crate::harness::is_alive(pid));
    server.kill_9();
}

#[test]
fn the_token_is_printed_on_request_only() {
    let server = Server::start();
    let done = call(&server, "token", &[]);
    assert_eq!(done.out().trim(), server.token(), "{}", done.err());
    assert!(!server.said().contains(&server.token()), "it is in the log");
}

#[test]
fn config_names_each_value_with_its_origin() {
    let server = Server::start();
    let done = server
        .cli("config")
        .env("CC_EXECUTOR_LISTEN", "127.0.0.1:9")
        .run();
    assert_eq!(done.code(), 0, "{}", done.err());
    assert!(done.out().contains("127.0.0.1:9"), "{}", done.out());
    assert!(done.out().contains("CC_EXECUTOR_LISTEN"), "{}", done.out());
}

#[test]
fn completions_are_written_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let done = std::process::Command::new(crate::harness::BINARY)
            .args(["completions", shell])
            .output()
            .expect("the binary");
        assert!(done.status.success());
        let text = String::from_utf8(done.stdout).expect("UTF-8");
        assert!(text.contains("cc-executor") && text.contains("submit"));
    }
}

#[test]
fn an_idempotency_key_makes_two_submits_one_job() {
    let server = Server::start();
    let words = ["--key", "k", "--", "true"];
    let first = call(&server, "submit", &words);
    let second = call(&server, "submit", &words);
    assert_eq!(first.out(), second.out(), "{}", second.err());
    let page = call(&server, "ls", &["--json"]).json();
    assert_eq!(page.as_array().map(Vec::len), Some(1));
}

/// A verb once failed when it came to a server in the moment of its death.
#[test]
fn a_server_that_dies_before_it_greets_is_followed_by_the_next_one() {
    let server = Server::start();
    submit(&server, &["--", "true"]);
    let socket = server.socket();
    // In the server's place, somebody who listens and hangs up; behind it the server itself.
    let aside = server.scratch("aside");
    std::fs::rename(&socket, &aside).expect("renamed");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    let listing = server.cli("ls").args(["--json"]).spawn();
    let (peer, _) = listener.accept().expect("a command");
    std::fs::rename(&aside, &socket).expect("renamed");
    drop((peer, listener));
    let done = listing.finish();
    assert_eq!(
        done.json().as_array().map(Vec::len),
        Some(1),
        "{}",
        done.err()
    );
}
