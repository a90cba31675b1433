//! Standard streams that another process has made non-blocking: nothing of what a verb prints is lost, and
//! nothing of what it reads.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::AsFd,
    process::{Command, Stdio},
    thread::{self, JoinHandle},
};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{OFlags, fcntl_setfl};
use serde_json::json;

use crate::harness::{BINARY, Server, assert_bytes, content, emit, state, until, until_true};

/// More than any pipe holds, bytes.
const BYTES: usize = 2_000_000;

fn do_not_wait(end: impl AsFd) {
    fcntl_setfl(end, OFlags::NONBLOCK).expect("set");
}

/// A pipe of one page that does not wait and is full, so that the first write would fail; and how much is
/// in it.
fn full_pipe() -> (PipeReader, PipeWriter, usize) {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    let bytes = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("set") as usize;
    do_not_wait(&writer);
    writer.write_all(&vec![b'.'; bytes]).expect("room");
    (reader, writer, bytes)
}

/// How a call ended whose stdout, stderr and stdin do not wait.
struct Printed {
    out: Vec<u8>,
    err: Vec<u8>,
    code: Option<i32>,
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

/// Calls a verb; the second half of `given` comes when it has read the first.
fn call(server: &Server, words: &[&str], given: &[u8]) -> Printed {
    let (out, stdout) = io::pipe().expect("a pipe");
    let (err, stderr) = io::pipe().expect("a pipe");
    let (stdin, mut input) = io::pipe().expect("a pipe");
    do_not_wait(&stdout);
    do_not_wait(&stderr);
    do_not_wait(&stdin);
    let unread = stdin.try_clone().expect("a descriptor");
    let mut child = Command::new(BINARY)
        .args(words)
        .env("CC_EXECUTOR_DATA_DIR", server.data_dir())
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()
        .expect("the binary starts");
    let (out, err) = (read_all(out), read_all(err));
    let (first, second) = given.split_at(given.len() / 2);
    input.write_all(first).expect("a reader");
    let mut status = None;
    until_true("it to read or to end", || {
        status = child.try_wait().expect("our child");
        status.is_some() || rustix::io::ioctl_fionread(&unread).expect("a pipe") == 0
    });
    drop(unread);
    // An error means that it has ended, which is seen by what it printed.
    let _ = input.write_all(second);
    drop(input);
    let status = until("it to end", || child.try_wait().expect("our child"));
    Printed {
        out: out.join().expect("read"),
        err: err.join().expect("read"),
        code: status.code(),
    }
}

/// What a call prints on streams that wait.
fn usual(server: &Server, words: &[&str]) -> Vec<u8> {
    let done = Command::new(BINARY)
        .args(words)
        .env("CC_EXECUTOR_DATA_DIR", server.data_dir())
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    assert!(done.status.success(), "{words:?}: {done:?}");
    done.stdout
}

#[test]
fn every_byte_reaches_a_pipe_that_does_not_wait() {
    let server = Server::start();
    let mut client = server.connect();
    let bytes = BYTES.to_string();
    let argv = [emit(), "--seed", "21", "--bytes", &bytes];
    let job = client.submit(json!({"argv": argv}));
    let number = client.finished(&job)["number"].to_string();
    let all = content(21, 0, BYTES as u64, false);
    for words in [
        &["tail", &number][..],
        &["export", &number, "--format", "text"],
        &["replay", &number, "--speed", "max"],
    ] {
        let printed = call(&server, words, b"");
        assert_bytes(&printed.out, &all, words[0]);
        assert_eq!(printed.code, Some(0), "{words:?}");
    }
    let line = format!("cat {}", server.scratch("bytes").display());
    std::fs::write(server.scratch("bytes"), &all).expect("a file");
    let printed = call(&server, &["run", "--shell", &line], b"");
    assert_bytes(&printed.out, &all, "run");
    assert_eq!(printed.code, Some(0));
    let select = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) \
                  SELECT i, printf('%0100d', i) FROM n";
    for words in [
        &["export", &number, "--format", "json"][..],
        &["export", &number, "--format", "asciicast"],
        &["tail", &number, "--json"],
        &["tail", &number, "--timestamps", "--utc"],
        &["sql", "--format", "csv", select],
        &["sql", "--format", "json", select],
        &["sql", select],
        &["completions", "bash"],
    ] {
        let expected = usual(&server, words);
        assert!(expected.len() > 65_536, "{words:?}: {}", expected.len());
        let printed = call(&server, words, b"");
        assert_bytes(&printed.out, &expected, &format!("{words:?}"));
        assert_eq!(printed.code, Some(0), "{words:?}");
    }
}

/// Of each there is more than the pipe holds, which is one page here.
#[test]
fn long_texts_reach_a_pipe_of_one_page() {
    let server = Server::start();
    let mut client = server.connect();
    for n in 0..60 {
        let argv = ["true", &format!("{n}{}", "x".repeat(300))];
        let job = client.submit(json!({"argv": argv, "labels": {"n": n.to_string()}}));
        client.finished(&job);
    }
    for words in [
        &["ls", "--all", "--json"][..],
        &["queue", "--json"],
        &["config"],
        &["run", "--help"],
        &["--help"],
        &["audit", "export"],
    ] {
        let expected = usual(&server, words);
        let (mut out, stdout, filled) = full_pipe();
        let mut child = Command::new(BINARY)
            .args(words)
            .env("CC_EXECUTOR_DATA_DIR", server.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::from(stdout))
            .spawn()
            .expect("the binary starts");
        let mut printed = Vec::new();
        out.read_to_end(&mut printed).expect("read");
        let status = child.wait().expect("our child");
        assert_bytes(&printed[filled..], &expected, &format!("{words:?}"));
        assert_eq!(status.code(), Some(0), "{words:?}");
    }
}

#[test]
fn a_refusal_reaches_a_stderr_that_does_not_wait() {
    let server = Server::start();
    // So long that no write takes it whole.
    let (name, option) = ("n".repeat(60_000), format!("--{}", "o".repeat(60_000)));
    for told in [&name, &option] {
        let words = ["show", told];
        let (mut err, stderr, _) = full_pipe();
        let mut child = Command::new(BINARY)
            .args(words)
            .env("CC_EXECUTOR_DATA_DIR", server.data_dir())
            .stdout(Stdio::null())
            .stderr(Stdio::from(stderr))
            .spawn()
            .expect("the binary starts");
        let pid = child.id() as i32;
        until_true("it to wait or to end", || {
            let has_ended = child.try_wait().expect("our child").is_some();
            has_ended || state(pid) == Some('S')
        });
        let mut text = String::new();
        err.read_to_string(&mut text).expect("read");
        assert!(text.contains(told), "{} bytes", text.len());
        assert_ne!(child.wait().expect("our child").code(), Some(0));
    }
}

#[test]
fn what_comes_late_on_a_stdin_that_does_not_wait_is_read() {
    let server = Server::start();
    let printed = call(&server, &["sql", "--format", "csv"], b"SELECT 41 + 1");
    let err = String::from_utf8_lossy(&printed.err).into_owned();
    assert!(
        String::from_utf8_lossy(&printed.out).contains("42"),
        "{err}"
    );
    let jobs: String = (0..200).map(|_| "{\"argv\":[\"true\"]}\n").collect();
    let printed = call(&server, &["submit", "--many", "-"], jobs.as_bytes());
    let lines = printed.out.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines, printed.code), (200, Some(0)));
    let printed = call(&server, &["run", "--stdin-file", "-", "--", "cat"], b"in");
    assert_eq!(
        (printed.out.as_slice(), printed.code),
        (&b"in"[..], Some(0))
    );
}
