//! `run`: the job's bytes, the job's code, the caller's surroundings.

use std::{fs, os::unix::fs::PermissionsExt};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Finished, Server, assert_bytes, content, emit, until, until_true};

fn run(server: &Server, words: &[&str]) -> Finished {
    server.cli("run").args(words).run()
}

#[test]
fn streams_and_code_are_the_jobs() {
    let server = Server::start();
    let done = run(
        &server,
        &["--", "sh", "-c", "printf out; printf err >&2; exit 3"],
    );
    assert_eq!(done.code(), 3);
    assert_eq!(done.out(), "out");
    assert_eq!(done.err(), "err");
}

#[test]
fn the_first_word_that_is_no_option_ends_ours() {
    let server = Server::start();
    let done = run(&server, &["echo", "--clean-env", "-n", "--", "x"]);
    assert_eq!(
        (done.code(), done.out().as_str()),
        (0, "--clean-env -n -- x\n")
    );
}

#[test]
fn a_shell_line_runs_by_sh() {
    let server = Server::start();
    let done = run(&server, &["--shell", "echo a | tr a b; exit 4"]);
    assert_eq!((done.code(), done.out().as_str()), (4, "b\n"));
}

#[test]
fn every_byte_passes_through() {
    let server = Server::start();
    let done = run(
        &server,
        &[
            "--",
            emit(),
            "--seed",
            "61",
            "--raw",
            "--bytes",
            "2000000",
            "--err-bytes",
            "300000",
        ],
    );
    assert_eq!(done.code(), 0);
    assert_bytes(&done.stdout, &content(61, 0, 2_000_000, true), "stdout");
    assert_bytes(&done.stderr, &content(61, 1, 300_000, true), "stderr");
}

#[test]
fn a_signal_is_128_and_its_number() {
    let server = Server::start();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("INT", 130)] {
        let line = format!("kill -{signal} $$");
        let done = run(&server, &["--", "sh", "-c", &line]);
        assert_eq!(done.code(), code, "{}", done.err());
        assert_eq!(done.err(), "");
    }
}

#[test]
fn a_program_that_is_not_there_is_127_and_names_the_error() {
    let server = Server::start();
    let done = run(&server, &["--", "no-such-program"]);
    assert_eq!(done.code(), 127);
    assert_eq!(done.out(), "");
    let err = done.err();
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(
        err.contains("ENOENT") && err.contains("no-such-program"),
        "{err}"
    );
}

#[test]
fn a_program_that_cannot_be_executed_is_126() {
    let server = Server::start();
    let file = server.scratch("plain");
    fs::write(&file, "text").expect("a file");
    let done = run(&server, &["--", file.to_str().expect("UTF-8")]);
    assert_eq!(done.code(), 126, "{}", done.err());
    assert_eq!(done.err().lines().count(), 1);
    assert!(done.err().contains("EACCES"), "{}", done.err());
}

#[test]
fn a_timeout_is_124() {
    let server = Server::start();
    let done = run(&server, &["--timeout", "0.3", "--", "sleep", "1000"]);
    assert_eq!(done.code(), 124, "{}", done.err());
}

#[test]
fn a_cancelled_job_is_130() {
    let server = Server::start();
    let running = server.cli("run").args(["--", "sleep", "1000"]).spawn();
    let mut client = server.connect();
    let job = until("the job", || {
        let page = client.ok("job.list", json!({"state": "running"}));
        page["jobs"].get(0).cloned()
    });
    client.control(&job, "cancel");
    assert_eq!(running.finish().code(), 130);
}

#[test]
fn wrong_options_are_refused_with_a_line_of_help() {
    let server = Server::start();
    let done = run(&server, &["--no-such-option", "--", "true"]);
    assert_ne!(done.code(), 0);
    assert!(done.err().contains("--no-such-option"), "{}", done.err());
}

#[test]
fn the_job_runs_in_the_callers_surroundings() {
    let server = Server::start();
    let place = server.scratch("place with ä");
    fs::create_dir(&place).expect("a directory");
    let place = place.canonicalize().expect("a path");
    let tool = place.join("project-tool");
    fs::write(&tool, "#!/bin/sh\necho tool $GIVEN\n").expect("a tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = format!("{}:/usr/bin:/bin", place.display());
    let done = server
        .cli("run")
        .cwd(&place)
        .env("PATH", path)
        .env("GIVEN", "value with spaces")
        .env("CC_EXECUTOR_SECRET", "not for jobs")
        .args([
            "--",
            "sh",
            "-c",
            "pwd; project-tool; env | grep -c ^CC_EXECUTOR_SECRET",
        ])
        .run();
    let text = format!("{}\ntool value with spaces\n0\n", place.display());
    assert_eq!(done.out(), text, "{}", done.err());
}

#[test]
fn the_umask_is_the_callers() {
    let server = Server::start();
    let shell = format!(
        "umask 031; exec {} run --data-dir {} -- sh -c umask",
        crate::harness::BINARY,
        server.data_dir().display()
    );
    let done = std::process::Command::new("/bin/sh")
        .args(["-c", &shell])
        .output()
        .expect("a shell");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0031\n");
}

#[test]
fn surroundings_can_be_left_out_or_changed() {
    let server = Server::start();
    let clean = server
        .cli("run")
        .env("CALLERS", "own")
        .args(["--clean-env", "--env", "ADDED=1", "--", "/usr/bin/env"])
        .run();
    assert_eq!(clean.code(), 0, "{}", clean.err());
    assert!(!clean.out().contains("CALLERS"), "{}", clean.out());
    assert!(
        clean.out().lines().any(|l| l == "ADDED=1"),
        "{}",
        clean.out()
    );
    let moved = run(&server, &["--cwd", "/usr", "--", "pwd"]);
    assert_eq!(moved.out(), "/usr\n", "{}", moved.err());
}

#[test]
fn values_of_the_environment_are_in_no_view() {
    let server = Server::start();
    let done = server
        .cli("run")
        .env("SECRET", "s3cr3t-value")
        .args(["--", "true"])
        .run();
    assert_eq!(done.code(), 0);
    for (verb, words) in [
        ("show", vec!["last"]),
        ("ls", vec![]),
        ("ls", vec!["--json"]),
    ] {
        let view = server.cli(verb).args(words).run();
        assert_eq!(view.code(), 0, "{}", view.err());
        assert!(
            !view.out().contains("s3cr3t-value"),
            "{verb}: {}",
            view.out()
        );
    }
}

#[test]
fn detach_prints_the_id_and_leaves() {
    let server = Server::start();
    let done = run(&server, &["--detach", "--", "sh", "-c", "echo later"]);
    assert_eq!(done.code(), 0, "{}", done.err());
    let id = done.out().trim().to_owned();
    let mut client = server.connect();
    let end = client.finished(&json!({"id": id}));
    assert_eq!(end["state"], "succeeded");
    assert_eq!(client.whole(&end).bytes, b"later\n");
}

#[test]
fn run_goes_on_over_a_kill_of_the_server() {
    let mut server = Server::start();
    let running = server
        .cli("run")
        .args(["--", emit(), "--seed", "71", "--bytes", "1000000"])
        .args(["--pause-us", "4000", "--exit", "6"])
        .spawn();
    let mut client = server.connect();
    let job = until("the job", || {
        let page = client.ok("job.list", json!({"state": "running"}));
        page["jobs"].get(0).cloned()
    });
    let read = json!({"job": job["id"], "from": 0, "wait_ms": 60_000});
    assert_ne!(client.ok("job.read", read)["next_offset"], 0);
    server.kill_9();
    server.restart();
    let done = running.finish();
    assert_eq!(done.code(), 6, "{}", done.err());
    assert_bytes(&done.stdout, &content(71, 0, 1_000_000, false), "stdout");
}

#[test]
fn an_interrupt_cancels() {
    let server = Server::start();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let running = server.cli("run").args(["--", "sleep", "1000"]).spawn();
        let mut client = server.connect();
        let job = until("the job", || {
            let page = client.ok("job.list", json!({"state": "running"}));
            page["jobs"].get(0).cloned()
        });
        running.signal(signal);
        let done = running.finish();
        assert_eq!(done.code(), 130, "{signal}: {}", done.err());
        assert_eq!(client.get(&job)["state"], "cancelled");
    }
}

#[test]
fn a_second_interrupt_kills() {
    let server = Server::start();
    let running = server
        .cli("run")
        .args([
            "--",
            emit(),
            "--ignore-term",
            "--bytes",
            "1",
            "--hold",
            "1000",
        ])
        .spawn();
    let mut client = server.connect();
    let job = until("the job", || {
        let page = client.ok("job.list", json!({"state": "running"}));
        page["jobs"].get(0).cloned()
    });
    let read = json!({"job": job["id"], "from": 0, "wait_ms": 60_000});
    assert_ne!(client.ok("job.read", read)["next_offset"], 0);
    running.signal(Signal::SIGINT);
    until_true("the wish", || client.get(&job)["stop"].is_object());
    running.signal(Signal::SIGINT);
    let done = running.finish();
    assert_eq!(done.code(), 130, "{}", done.err());
    assert_eq!(client.get(&job)["signal"], "SIGKILL");
}

#[test]
fn a_hang_up_detaches() {
    let server = Server::start();
    let running = server.cli("run").args(["--", "sleep", "1000"]).spawn();
    let mut client = server.connect();
    let job = until("the job", || {
        let page = client.ok("job.list", json!({"state": "running"}));
        page["jobs"].get(0).cloned()
    });
    running.signal(Signal::SIGHUP);
    let done = running.finish();
    assert!(!done.err().trim().is_empty(), "it says so");
    assert_eq!(client.get(&job)["state"], "running");
}

#[test]
fn a_run_that_is_killed_takes_its_job_along_if_it_was_told_to() {
    let server = Server::start();
    let mut client = server.connect();
    let tied = ["--on-disconnect", "cancel", "--disconnect-delay", "0"];
    let words = tied.iter().chain(&["--grace", "0", "--", "sleep", "1000"]);
    let running = server.cli("run").args(words).spawn();
    let job = until("the job", || {
        let page = client.ok("job.list", json!({"state": "running"}));
        page["jobs"].get(0).cloned()
    });
    assert_eq!(
        (&job["on_disconnect"], &job["disconnect_delay_s"]),
        (&json!("cancel"), &json!(0.0))
    );
    running.signal(Signal::SIGKILL);
    let job = client.finished(&job);
    assert_eq!(
        (&job["state"], &job["stop"]["by"]),
        (&json!("cancelled"), &json!("disconnect"))
    );
}

#[test]
fn a_closed_pipe_detaches() {
    let server = Server::start();
    let shell = format!(
        "{} run --data-dir {} --shell 'for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done' | head -n 1",
        crate::harness::BINARY,
        server.data_dir().display()
    );
    let done = std::process::Command::new("/bin/sh")
        .args(["-c", &shell])
        .output()
        .expect("a shell");
    assert_eq!(done.stdout, b"1\n");
    let mut client = server.connect();
    let job = client.ok("job.list", json!({}))["jobs"][0].clone();
    let end = client.finished(&job);
    assert_eq!(end["state"], "succeeded", "the job runs to its end");
    assert_eq!(client.whole(&end).bytes, b"1\n2\n3\n4\n5\n6\n");
}

#[test]
fn run_uses_the_interactive_queue_and_submit_the_default() {
    let server = Server::start();
    assert_eq!(run(&server, &["--", "true"]).code(), 0);
    let done = server.cli("submit").args(["--", "true"]).run();
    assert_eq!(done.code(), 0, "{}", done.err());
    let mut client = server.connect();
    let page = client.ok("job.list", json!({}));
    assert_eq!(page["jobs"][1]["queue"], "interactive");
    assert_eq!(page["jobs"][0]["queue"], "default");
}

#[test]
fn output_comes_as_it_is_written() {
    let server = Server::start();
    let gate = server.scratch("gate");
    let line = format!(
        "printf now; while [ ! -e {} ]; do sleep 0.02; done",
        gate.display()
    );
    let file = server.scratch("out");
    let shell = format!(
        "exec {} run --data-dir {} --shell '{line}' >{}",
        crate::harness::BINARY,
        server.data_dir().display(),
        file.display()
    );
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", &shell])
        .spawn()
        .expect("a shell");
    until_true("the first bytes", || {
        fs::read(&file).is_ok_and(|bytes| bytes == b"now")
    });
    assert!(child.try_wait().expect("our child").is_none());
    fs::write(&gate, "").expect("the gate");
    let status = child.wait().expect("our child");
    assert!(status.success());
}

#[test]
fn what_is_dropped_is_said_and_the_rest_is_shown() {
    let server = Server::start();
    let words = [
        "--max-output",
        "4",
        "--when-full",
        "drop-newest",
        "--shell",
        "printf 'one\\ntwo\\n'",
    ];
    let done = run(&server, &words);
    assert_eq!((done.code(), done.out().as_str()), (0, "one\n"));
    let shown = server.cli("show").run().out();
    let dropped = shown.lines().find(|line| line.starts_with("dropped"));
    let dropped = dropped.expect("a line about it");
    assert!(
        dropped.contains("4 of these bytes, with 1 line ends"),
        "{dropped}"
    );
    let tailed = server.cli("tail").args(["last"]).run();
    assert_eq!(tailed.out(), "one\n");
    let missing = "bytes 4 to 8 are missing (drop_newest)";
    assert!(tailed.err().contains(missing), "{}", tailed.err());
    let words = [
        "--max-lines",
        "2",
        "--when-full",
        "drop-newest",
        "--",
        "seq",
        "5",
    ];
    assert_eq!(run(&server, &words).out(), "1\n2\n");
    let shown = server.cli("show").run().out();
    assert!(shown.contains("2 lines, then drop_newest"), "{shown}");
    let failed = run(&server, &["--max-lines", "2", "seq", "5"]);
    assert_eq!((failed.code(), failed.out().as_str()), (125, "1\n2\n"));
    let refused = run(
        &server,
        &["--max-output", "1M", "--when-full", "drop-oldest", "true"],
    );
    assert_ne!(refused.code(), 0);
    assert!(refused.err().contains("16"), "{}", refused.err());
}
