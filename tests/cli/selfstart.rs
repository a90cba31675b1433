//! The server that the CLI starts when none runs: its own session, one only, Unix socket only.

use std::{thread, time::Duration};

use serde_json::json;

use crate::harness::{Server, until, with_word};

#[test]
fn run_starts_a_server_and_leaves_it_running() {
    let place = Server::stopped(&[], &[]);
    let done = place.cli("run").args(["--", "echo", "hello"]).run();
    assert_eq!(done.code(), 0, "{}", done.err());
    assert_eq!((done.out().as_str(), done.err().as_str()), ("hello\n", ""));
    let status = place.cli("status").args(["--json"]).run().json();
    let again = place.cli("run").args(["--", "echo", "again"]).run();
    assert_eq!(again.out(), "again\n", "{}", again.err());
    let later = place.cli("status").args(["--json"]).run().json();
    assert_eq!(status["pid"], later["pid"], "the same server");
    assert!(place.data_dir().join("server.log").exists());
    assert!(place.data_dir().join("server.sock").exists());
    let stopped = place.cli("stop").run();
    assert_eq!(stopped.code(), 0, "{}", stopped.err());
}

#[test]
fn two_at_once_start_one() {
    let place = Server::stopped(&[], &[]);
    let outputs: Vec<(i32, String, String)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|n| {
                let place = &place;
                scope.spawn(move || {
                    let done = place.cli("run").args(["--", "echo", &n.to_string()]).run();
                    (done.code(), done.out(), done.err())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a run"))
            .collect()
    });
    for (n, (code, out, err)) in outputs.into_iter().enumerate() {
        assert_eq!((code, out), (0, format!("{n}\n")), "{err}");
        assert_eq!(err, "");
    }
    let page = place.cli("ls").args(["--json"]).run().json();
    assert_eq!(page.as_array().map(Vec::len), Some(6), "one ledger: {page}");
    let servers = with_word(&place.data_dir().display().to_string())
        .into_iter()
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|b| *b == 0).any(|word| word == b"serve"))
        })
        .count();
    assert_eq!(servers, 1);
}

#[test]
fn a_server_started_by_run_outlives_the_group_of_its_caller() {
    let place = Server::stopped(&[], &[]);
    let first = place.cli("run").args(["--", "true"]).run();
    assert_eq!(first.code(), 0, "{}", first.err());
    let pid = place.cli("status").args(["--json"]).run().json()["pid"].clone();
    let pid = nix::unistd::Pid::from_raw(pid.as_i64().expect("a pid") as i32);
    let session = nix::unistd::getsid(Some(pid)).expect("a session");
    assert_ne!(session, nix::unistd::getsid(None).expect("ours"));
}

#[test]
fn a_deep_data_directory_works() {
    let place = Server::stopped(&[], &[]);
    let deep = place.data_dir().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).expect("a deep directory");
    let done = crate::harness::Cli::new(&deep, "run")
        .args(["--", "echo", "deep"])
        .run();
    assert_eq!(
        (done.code(), done.out().as_str()),
        (0, "deep\n"),
        "{}",
        done.err()
    );
    let stopped = crate::harness::Cli::new(&deep, "stop").run();
    assert_eq!(stopped.code(), 0, "{}", stopped.err());
}

#[test]
fn status_without_a_server_says_so_and_starts_none() {
    let place = Server::stopped(&[], &[]);
    let status = place.cli("status").run();
    assert_ne!(status.code(), 0);
    assert!(!status.err().trim().is_empty() || !status.out().trim().is_empty());
    assert!(with_word(&place.data_dir().display().to_string()).is_empty());
}

/// Whenever a job comes: either the server that is about to exit runs it, or the next one does.
#[test]
fn a_job_that_comes_when_an_idle_server_exits_is_run() {
    let place = Server::stopped(&[], &[]);
    let mut jobs = 0;
    for round in 0..6_u64 {
        let log = place.data_dir().join("server.log");
        let words = ["--listen", "none", "--idle-exit-s", "1", "--log-file"];
        let serving = place.cli("serve").args(words).args([&log]).spawn();
        until("the server", || {
            place.cli("status").run().status.success().then_some(())
        });
        // Somewhere around the moment at which it exits.
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        thread::sleep(Duration::from_millis(980 + 50 * round));
        let done = place.cli("run").args(["--", "echo", "taken"]).run();
        let told = (done.code(), done.out(), done.err());
        assert_eq!(told, (0, "taken\n".to_owned(), String::new()));
        jobs += 1;
        let stopped = place.cli("stop").run();
        assert_eq!(stopped.code(), 0, "{}", stopped.err());
        serving.finish();
    }
    let listed = place.cli("ls").args(["--all", "--json"]).run().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(jobs));
    for job in listed.as_array().into_iter().flatten() {
        assert_eq!(
            (&job["state"], &job["attempts"]),
            (&json!("succeeded"), &json!(1))
        );
    }
}
