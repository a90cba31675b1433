//! `search`: what it prints and says, how it exits.

use serde_json::{Value, json};

use crate::harness::{Finished, Server, Terminal, until_true};

fn call(server: &Server, words: &[&str]) -> Finished {
    server.cli("search").args(words).run()
}

fn ended(server: &Server, job: Value) -> Value {
    let mut client = server.connect();
    let job = client.submit(server.marked(job));
    client.finished(&job)
}

/// Three jobs: 1 and 3 have two lines each with "error", 2 has it in capitals on stderr.
fn three(server: &Server) {
    let shell = "echo start; echo 'error: one'; echo; echo another error";
    ended(server, json!({"shell": shell, "name": "first"}));
    ended(server, json!({"shell": "echo 'an ERROR' >&2"}));
    ended(
        server,
        json!({"shell": format!("{shell}; exit 1"), "queue": "interactive"}),
    );
}

#[test]
fn lines_are_printed_with_job_and_number_and_the_exit_code_is_greps() {
    let server = Server::start();
    three(&server);
    let done = call(&server, &["error"]);
    let all = "3:2:error: one\n3:4:another error\n1:2:error: one\n1:4:another error\n";
    assert_eq!(
        (done.code(), done.out().as_str(), done.err().as_str()),
        (0, all, "")
    );
    let done = call(&server, &["--regex", "^error: (one|two)$", "1"]);
    assert_eq!((done.code(), done.out().as_str()), (0, "1:2:error: one\n"));
    let done = call(
        &server,
        &[
            "ERROR",
            "--ignore-case",
            "--stream",
            "stderr",
            "first",
            "2",
            "last",
        ],
    );
    assert_eq!((done.code(), done.out().as_str()), (0, "2:1:an ERROR\n"));
    let done = call(&server, &["-b", "error:", "1"]);
    assert_eq!(done.out(), "1:2:6:error: one\n");
    let done = call(
        &server,
        &["--state", "failed", "--queue", "interactive", "error:"],
    );
    assert_eq!(done.out(), "3:2:error: one\n");
    let done = call(
        &server,
        &[
            "--since",
            "1h",
            "--state",
            "succeeded",
            "--name",
            "first",
            "error:",
        ],
    );
    assert_eq!(done.out(), "1:2:error: one\n");
    for none in [
        &["no such text"][..],
        &["error", "2"],
        &["error", "--label", "a=b"],
    ] {
        let done = call(&server, none);
        assert_eq!(
            (done.code(), done.out().as_str(), done.err().as_str()),
            (1, "", ""),
            "{none:?}"
        );
    }
    for (wrong, says) in [
        (&["--regex", "("][..], "unclosed group"),
        (&["--regex", "a\\nb"], "line end"),
        (&["x", "nobody"], "no job is called nobody"),
        (&["x", "99"], "no job 99"),
        (&["x", "1", "--state", "failed"], "cannot be used with"),
        (&["x", "--since", "soon"], "neither a length of time"),
        (&["x", "--label", "k"], "KEY=VALUE"),
        (&[], "PATTERN"),
    ] {
        let done = call(&server, wrong);
        assert_eq!(done.code(), 2, "{wrong:?}: {}", done.err());
        assert!(done.err().contains(says), "{wrong:?}: {}", done.err());
    }
    // What is wrong with one job does not hide what is found in others.
    let done = call(&server, &["error:", "99", "1"]);
    assert_eq!((done.code(), done.out().as_str()), (2, "1:2:error: one\n"));
}

#[test]
fn nothing_is_cut_in_silence() {
    let server = Server::start();
    three(&server);
    let done = call(&server, &["error", "--limit", "3"]);
    assert_eq!((done.code(), done.out().lines().count()), (0, 3));
    assert!(
        done.err()
            .contains("stopped at --limit 3: there may be more lines"),
        "{}",
        done.err()
    );
    // More than the server returns at once.
    ended(&server, json!({"shell": "seq 2500"}));
    let done = call(&server, &["--regex", "^", "last"]);
    let expected: String = (1..=2500).map(|n| format!("4:{n}:{n}\n")).collect();
    assert_eq!((done.out(), done.err().as_str()), (expected, ""));
    let argv = json!(["sh", "-c", "seq 300000; echo needle"]);
    ended(
        &server,
        json!({"argv": argv, "output": {"max_bytes": 1000, "when_full": "drop_newest"}}),
    );
    let done = call(&server, &["needle", "last"]);
    assert_eq!((done.code(), done.out().as_str()), (1, ""));
    assert!(
        done.err().contains("bytes of output are missing"),
        "{}",
        done.err()
    );
    let long =
        "head -c 9000 /dev/zero | tr '\\0' x; printf needle; head -c 9000 /dev/zero | tr '\\0' y";
    ended(&server, json!({"shell": long}));
    let done = call(&server, &["needle", "last"]);
    let out = done.out();
    assert!(
        out.starts_with("6:1:…xxx") && out.ends_with("yyy…\n"),
        "{out}"
    );
    assert!(
        out.contains("xneedley") && out.len() < 5000,
        "{}",
        out.len()
    );
}

#[test]
fn json_is_one_object_a_line() {
    let server = Server::start();
    three(&server);
    let done = call(&server, &["error", "--json"]);
    let lines: Vec<Value> = done
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (&lines[0]["number"], &lines[0]["line"]),
        (&json!(3), &json!("error: one"))
    );
    assert_eq!(
        (&lines[0]["offset"], &lines[0]["stream"]),
        (&json!(6), &json!("stdout"))
    );
    let done = call(&server, &["no such text", "--json"]);
    assert_eq!((done.code(), done.out().as_str()), (1, ""));
}

#[test]
fn a_terminal_gets_colours_and_nothing_else_that_acts() {
    let server = Server::start();
    ended(
        &server,
        json!({"argv": ["printf", "an \u{1b}[2J error\\there"]}),
    );
    let (code, shown) = Terminal::call(&server.data_dir(), "search", ["error"], &[]).ends();
    assert_eq!(code, 0);
    let colon = "\u{1b}[36m:\u{1b}[0m";
    let expected = format!(
        "\u{1b}[35m1\u{1b}[0m{colon}\u{1b}[32m1\u{1b}[0m{colon}an \\x1b[2J \u{1b}[1;31merror\u{1b}[0m"
    );
    assert!(shown.starts_with(&expected), "{shown:?}");
    let env = [("NO_COLOR", "1")];
    let (_, shown) = Terminal::call(&server.data_dir(), "search", ["error"], &env).ends();
    assert!(shown.starts_with("1:1:an \\x1b[2J error"), "{shown:?}");
}

#[test]
fn where_no_server_runs_the_jobs_are_found_all_the_same() {
    let mut server = Server::start();
    three(&server);
    let (status, _) = server.stop();
    assert!(status.success());
    let done = call(&server, &["error:"]);
    assert_eq!(
        (done.code(), done.out().as_str()),
        (0, "3:2:error: one\n1:2:error: one\n")
    );
    assert_eq!(server.cli("stop").run().code(), 0);
    let empty = Server::stopped(&[], &[]);
    let done = call(&empty, &["x"]);
    assert_eq!(done.code(), 2);
    assert!(done.err().contains("there are no jobs"), "{}", done.err());
    assert!(!empty.data_dir().join("cc-executor.db").exists());
}

#[test]
fn a_running_job_is_searched() {
    let server = Server::start();
    let mut client = server.connect();
    let job =
        client.submit(server.marked(json!({"shell": "printf 'Password: '; exec sleep 1000"})));
    until_true("the prompt", || client.get(&job)["output_bytes"] == 10);
    let done = call(&server, &["-E", "^Password: $"]);
    assert_eq!((done.code(), done.out().as_str()), (0, "1:1:Password: \n"));
    // Lists know the same beginning of time.
    let listed = server
        .cli("ls")
        .args(["--since", "1h", "--json"])
        .run()
        .json();
    assert_eq!(listed[0]["number"], 1);
    let far = "2999-01-01T00:00:00Z";
    let listed = server
        .cli("ls")
        .args(["--since", far, "--json"])
        .run()
        .json();
    assert_eq!(listed, json!([]));
}
