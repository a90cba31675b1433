//! `verify`, `export` and `replay`: what they print and write, how they exit.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::harness::{BINARY, Finished, Server, assert_bytes, content, emit, sha256, until_true};

const MIB: u64 = 1 << 20;

fn call(server: &Server, verb: &str, words: &[&str]) -> Finished {
    server.cli(verb).args(words).run()
}

/// Runs a job to its end.
fn ended(server: &Server, job: Value) -> Value {
    let mut client = server.connect();
    let job = client.submit(server.marked(job));
    client.finished(&job)
}

fn name(job: &Value) -> String {
    job["number"].to_string()
}

/// Output of both streams, and how it was captured: offset, stream, moment, bytes.
fn recorded(server: &Server, job: &Value) -> Vec<Value> {
    let read = json!({"job": job["id"], "from": 0});
    let reply = server.connect().ok("job.read", read);
    assert!(reply["end"].is_object(), "{reply}");
    reply["chunks"].as_array().expect("chunks").clone()
}

const TALKS: &str = "printf 'one\\n'; sleep 0.05; printf 'err\\n' >&2; sleep 0.05; printf 'caf\\303'; \
                     sleep 0.05; printf '\\251\\nlast'";

#[test]
fn an_intact_job_and_true_claims_are_a_success() {
    let server = Server::start();
    let job = ended(&server, json!({"shell": "printf 'hello\\nworld\\n'"}));
    let digest = sha256(b"hello\nworld\n");
    let words = [
        "--contains",
        "lo\nwo",
        "--regex",
        "^wor",
        "--sha256",
        &digest,
    ];
    let done = call(
        &server,
        "verify",
        &[&[name(&job).as_str()], &words[..]].concat(),
    );
    assert_eq!(done.code(), 0, "{}", done.err());
    let out = done.out();
    assert!(out.contains("is intact: 12 bytes"), "{out}");
    assert!(out.contains(&digest), "{out}");
    assert!(
        out.contains("contains lo\\nwo: true, bytes 3 to 8"),
        "{out}"
    );
    assert!(out.contains("regex ^wor: true, bytes 6 to 9"), "{out}");
    let done = call(&server, "verify", &["last", "--json"]);
    assert_eq!(done.json()["intact"], true);
}

/// An agent reports what a command has printed, and nobody has.
#[test]
fn a_transcript_that_was_made_up_is_refused() {
    let server = Server::start();
    let job = ended(
        &server,
        json!({"shell": "echo 'test result: FAILED. 3 passed; 1 failed'; exit 101"}),
    );
    let made_up = "test result: ok. 4 passed; 0 failed\n";
    for claim in [
        ["--contains", made_up.trim()],
        ["--regex", "ok\\. \\d+ passed"],
        ["--sha256", &sha256(made_up.as_bytes())],
    ] {
        let done = call(
            &server,
            "verify",
            &[&[name(&job).as_str()], &claim[..]].concat(),
        );
        assert_eq!(done.code(), 1, "{claim:?}");
        assert!(done.out().contains("is intact"), "{}", done.out());
        assert!(done.out().contains("NOT true"), "{}", done.out());
    }
    let done = call(&server, "verify", &["999"]);
    assert_eq!((done.code(), done.out().as_str()), (1, ""));
    let done = call(&server, "verify", &["last", "--sha256", "abc"]);
    assert_eq!(done.code(), 1);
    assert!(
        done.err().contains("64 hexadecimal digits"),
        "{}",
        done.err()
    );
}

#[test]
fn a_damaged_job_is_no_success_and_the_file_is_named() {
    let mut server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let argv = json!([emit(), "--seed", "3", "--bytes", "3000000"]);
    let job = ended(&server, json!({"argv": argv}));
    let segment = format!("{}.1.0.seg", job["number"]);
    let (status, _) = server.stop();
    assert!(status.success());
    let path = server.data_dir().join("spool").join(&segment);
    let mut bytes = fs::read(&path).expect("the first segment");
    bytes[500_000] ^= 0x20;
    fs::write(&path, bytes).expect("written");
    server.restart();
    let done = call(&server, "verify", &[&name(&job)]);
    assert_eq!(done.code(), 1);
    let out = done.out();
    assert!(
        out.contains("NOT intact") && out.contains(&segment),
        "{out}"
    );
    // What is there is exported, and what is not is told.
    let done = call(&server, "export", &[&name(&job), "--format", "text"]);
    assert_eq!(done.code(), 1);
    assert!(
        done.err().contains("are missing (damaged)"),
        "{}",
        done.err()
    );
}

#[test]
fn text_is_what_the_job_wrote() {
    let server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let job = ended(&server, json!({"shell": TALKS}));
    let all: &[u8] = b"one\nerr\ncaf\xc3\xa9\nlast";
    let export = |words: &[&str]| {
        let name = name(&job);
        call(
            &server,
            "export",
            &[&[name.as_str(), "--format", "text"], words].concat(),
        )
    };
    let done = export(&[]);
    assert_eq!((done.code(), done.err().as_str()), (0, ""));
    assert_bytes(&done.stdout, all, "both streams");
    assert_bytes(
        &export(&["--stream", "stderr"]).stdout,
        b"err\n",
        "one stream",
    );
    let file = server.scratch("out");
    let done = export(&["-o", file.to_str().expect("a path")]);
    assert_eq!((done.code(), done.out().as_str()), (0, ""));
    assert_bytes(&fs::read(&file).expect("the file"), all, "a file");
    let done = export(&["-o", "/nonexistent/out"]);
    assert_eq!(done.code(), 1);
    assert!(done.err().contains("cannot write to /nonexistent/out"));

    let argv = json!([emit(), "--seed", "4", "--bytes", "3000000", "--raw"]);
    let large = ended(&server, json!({"argv": argv}));
    let done = call(&server, "export", &[&name(&large), "--format", "text"]);
    assert_bytes(
        &done.stdout,
        &content(4, 0, 3_000_000, true),
        "several segments",
    );
}

#[test]
fn json_is_one_object_with_every_byte_and_no_secret() {
    let server = Server::start();
    let job = json!({"shell": TALKS, "env": {"PASSWORD": "hunter2"}, "stdin": "correct horse"});
    let job = ended(&server, job);
    let done = call(&server, "export", &[&name(&job), "--format", "json"]);
    let value = done.json();
    assert_eq!(value["job"], job);
    assert_eq!(value["chunks"], json!(recorded(&server, &job)));
    assert_eq!(
        (&value["gaps"], &value["next_offset"]),
        (&json!([]), &job["output_bytes"])
    );
    for format in ["json", "asciicast", "text"] {
        let done = call(&server, "export", &[&name(&job), "--format", format]);
        for secret in ["hunter2", "correct horse"] {
            assert!(!done.out().contains(secret), "{format}");
        }
    }
}

fn cast(server: &Server, job: &Value, words: &[&str]) -> (Value, Vec<(f64, String)>) {
    let name = name(job);
    let done = call(
        server,
        "export",
        &[&[name.as_str(), "--format", "asciicast"], words].concat(),
    );
    assert_eq!(done.code(), 0, "{}", done.err());
    let text = done.out();
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let header = lines.next().expect("a header");
    let events = lines.map(|event| {
        assert_eq!(event[1], "o", "{event}");
        let text = event[2].as_str().expect("text").to_owned();
        (event[0].as_f64().expect("a time"), text)
    });
    (header, events.collect())
}

fn moment(value: &Value) -> chrono::DateTime<chrono::Utc> {
    let text = value.as_str().expect("a moment");
    text.parse().expect("RFC 3339")
}

#[test]
fn an_asciicast_has_the_recorded_times_and_whole_characters() {
    let server = Server::start();
    let job = ended(&server, json!({"shell": TALKS, "name": "talk"}));
    let (header, events) = cast(&server, &job, &[]);
    assert_eq!(
        (&header["version"], &header["title"]),
        (&json!(2), &json!("talk"))
    );
    let text: String = events.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(text, "one\r\nerr\r\ncafé\r\nlast");
    let began = moment(&job["started_at"]);
    let chunks = recorded(&server, &job);
    let times: Vec<f64> = chunks
        .iter()
        .map(|chunk| {
            let at = moment(&chunk["at"]) - began;
            at.num_microseconds().expect("a short time").max(0) as f64 / 1e6
        })
        .collect();
    assert!(
        events.is_sorted_by_key(|(seconds, _)| *seconds),
        "{events:?}"
    );
    for (seconds, text) in &events {
        let is_one = times.iter().any(|at| (at - seconds).abs() < 1e-5);
        assert!(is_one, "{text:?} at {seconds}, of {times:?}");
    }
    let (_, events) = cast(&server, &job, &["--idle-limit", "1ms"]);
    let last = events.last().expect("events").0;
    assert!(last <= 0.004 + 1e-9, "{events:?}");
}

#[test]
fn what_was_dropped_is_told_and_is_no_success() {
    let server = Server::start();
    let argv = json!([emit(), "--seed", "6", "--bytes", "3000000"]);
    let output = json!({"max_bytes": MIB, "when_full": "drop_newest"});
    let job = ended(&server, json!({"argv": argv, "output": output}));
    let name = name(&job);
    for (verb, words) in [
        ("export", &["--format", "text"][..]),
        ("replay", &["--speed", "max"]),
    ] {
        let done = call(&server, verb, &[&[name.as_str()], words].concat());
        assert_eq!(done.code(), 1, "{verb}");
        assert_bytes(&done.stdout, &content(6, 0, MIB, false), verb);
        let said = "cc-executor: bytes 1048576 to 3000000 are missing (drop_newest)\n";
        assert_eq!(done.err(), said, "{verb}");
    }
    let done = call(&server, "export", &[&name, "--format", "json"]);
    assert_eq!((done.code(), done.err().as_str()), (1, ""));
    let value: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let gap = json!([{"from": MIB, "to": 3_000_000, "reason": "drop_newest"}]);
    assert_eq!(value["gaps"], gap);
}

#[test]
fn a_replay_keeps_the_streams_apart_and_all_attempts_in_order() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "echo out $CC_EXECUTOR_ATTEMPT; echo err >&2; [ $CC_EXECUTOR_ATTEMPT = 2 ] || exec sleep 1000";
    let job = client.submit(server.marked(json!({"shell": line, "on_lost": "retry"})));
    until_true("the output", || client.get(&job)["output_bytes"] == 10);
    // While it runs: as far as it has come.
    let done = call(&server, "replay", &["last", "--speed", "max"]);
    assert_eq!(
        (done.out().as_str(), done.err().as_str()),
        ("out 1\n", "err\n")
    );
    let done = call(&server, "export", &["last", "--format", "text"]);
    assert_eq!((done.code(), done.stdout.len()), (0, 10));
    server.kill_shim();
    client.finished(&job);
    let done = call(&server, "replay", &["last", "--speed", "max"]);
    assert_eq!(done.code(), 0);
    assert_eq!(
        (done.out().as_str(), done.err().as_str()),
        ("out 1\nout 2\n", "err\nerr\n")
    );
    let done = call(&server, "replay", &["last", "--speed", "fast"]);
    assert_ne!(done.code(), 0);
    assert!(done.err().contains("or max"), "{}", done.err());
}

#[test]
fn ctrl_c_ends_a_replay_and_not_the_job() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "echo first; sleep 0.5; echo second; exec sleep 1000";
    let job = client.submit(server.marked(json!({"shell": line})));
    until_true("the output", || client.get(&job)["output_bytes"] == 13);
    // What was half a second is almost a minute.
    let mut child = Command::new(BINARY)
        .arg("replay")
        .arg("--data-dir")
        .arg(server.data_dir())
        .args(["last", "--speed", "0.01"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary");
    let stdout = child.stdout.take().expect("piped");
    // Kept: a replay whose reader leaves ends as well.
    let mut lines = BufReader::new(stdout).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "first");
    kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        Signal::SIGINT,
    )
    .expect("our child");
    let status = child.wait().expect("our child");
    drop(lines);
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{status:?}");
    assert_eq!(client.get(&job)["state"], "running");
}
