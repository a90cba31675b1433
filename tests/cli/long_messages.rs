//! A server whose longest message is longer than usual: every verb takes what it sends, and may send as
//! much.

use serde_json::{Value, json};

use crate::harness::{Finished, Server, assert_bytes, content, emit};

/// The longest message of these servers, bytes.
const MESSAGE_BYTES_MAX: &str = "4194304";
/// How many jobs fill a reply to more than a usual message.
const JOBS: usize = 30;

fn server() -> Server {
    Server::with(&["--message-bytes-max", MESSAGE_BYTES_MAX], &[])
}

#[track_caller]
fn output(done: &Finished) -> &[u8] {
    assert_eq!(done.code(), 0, "{}", done.err());
    &done.stdout
}

#[test]
fn long_replies_are_read() {
    let server = server();
    let mut client = server.connect();
    let mut last = Value::Null;
    for n in 0..JOBS {
        let job = json!({"argv": ["true", "x".repeat(100_000)], "name": format!("long-{n}")});
        last = client.submit(job);
    }
    let last = client.finished(&last)["number"].to_string();
    let listed = server.cli("ls").args(["--all", "--json"]).run();
    assert!(output(&listed).len() > 2 << 20, "{}", listed.stdout.len());
    assert_eq!(listed.json().as_array().map(Vec::len), Some(JOBS));
    output(&server.cli("ls").args(["--all"]).run());
    output(&server.cli("show").args([&last]).run());
    output(&server.cli("wait").args([&last]).run());
    let names: Vec<_> = (0..JOBS).map(|n| format!("long-{n}")).collect();
    output(&server.cli("wait").args(["--any"]).args(&names).run());
    let select = "SELECT number, argv FROM history_jobs ORDER BY number";
    let rows = server.cli("sql").args(["--format", "csv", select]).run();
    assert!(output(&rows).len() > 2 << 20, "{}", rows.stdout.len());
}

#[test]
fn long_requests_are_sent() {
    let server = server();
    // A word may have 128 KiB, and all of them more than a usual message.
    let words = vec!["x".repeat(100_000); 15];
    let submitted = server.cli("submit").args(["--", "true"]).args(&words).run();
    output(&submitted);
    let argv = [&["true".to_owned()][..], &words].concat();
    let line = json!({"argv": argv});
    let file = server.scratch("jobs");
    std::fs::write(&file, format!("{line}\n{line}\n")).expect("a file");
    let file = file.display().to_string();
    let many = server.cli("submit").args(["--many", &file]).run();
    assert_eq!(String::from_utf8_lossy(output(&many)), "2\n3\n");
    output(&server.cli("wait").args(["1", "2", "3"]).run());
}

#[test]
fn output_is_as_ever() {
    let server = server();
    let words = ["--", emit(), "--seed", "41", "--bytes", "3000000"];
    let done = server.cli("run").args(words).run();
    assert_bytes(output(&done), &content(41, 0, 3_000_000, false), "run");
    let done = server.cli("tail").args(["last", "--json"]).run();
    output(&done);
}

/// The advice is about what was asked for.
#[test]
fn a_request_that_is_too_long_says_what_to_leave_out() {
    let server = Server::start();
    let words = vec!["x".repeat(100_000); 15];
    let refused = server.cli("submit").args(["--", "true"]).args(&words).run();
    assert_eq!(refused.code(), 1);
    assert!(refused.err().contains("--clean-env"), "{}", refused.err());
    let file = server.scratch("query");
    std::fs::write(&file, format!("SELECT 1 --{}", "x".repeat((1 << 20) - 20))).expect("a file");
    let file = std::fs::File::open(&file).expect("the file");
    let refused = server.cli("sql").stdin(file).run();
    assert_eq!(refused.code(), 1);
    assert!(
        refused.err().contains("leave something out"),
        "{}",
        refused.err()
    );
    assert!(!refused.err().contains("--clean-env"), "{}", refused.err());
}

/// Some of its jobs do not fit into the reply.
#[test]
fn a_wait_for_many_says_what_it_leaves_out() {
    let server = Server::start();
    let mut client = server.connect();
    let mut wait = vec!["--any".to_owned(), "--json".to_owned()];
    for _ in 0..15 {
        let job = client.submit(json!({"argv": ["true", "x".repeat(100_000)]}));
        client.finished(&job);
        wait.push(job["number"].to_string());
    }
    let waited = server.cli("wait").args(&wait).run().json();
    let jobs = waited["jobs"].as_array().map_or(0, Vec::len);
    assert!(jobs < 15, "{jobs}");
    assert_eq!(waited["truncated"], true);
    let waited = server.cli("wait").args(&wait[..4]).run().json();
    assert_eq!(waited.get("truncated"), None);
}
