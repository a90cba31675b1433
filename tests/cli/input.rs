//! `run -i` and `input`: our stdin, or a text, becomes the job's, byte by byte and once.

use std::{
    fs::{self, File},
    io::Write,
    process::Stdio,
};

use crate::harness::{Finished, Server, assert_bytes, content, until, until_true};
use nix::sys::signal::Signal;

fn file(server: &Server, name: &str, bytes: &[u8]) -> File {
    let path = server.scratch(name);
    fs::write(&path, bytes).expect("a file");
    File::open(path).expect("the file")
}

/// What the newest job has written so far.
fn output(server: &Server) -> Vec<u8> {
    let newest = server.cli("ls").args(["--json"]).run().json();
    match newest[0]["number"].as_i64() {
        Some(number) => {
            let tail = server
                .cli("tail")
                .args(["--no-follow", &number.to_string()]);
            tail.run().stdout
        }
        None => Vec::new(),
    }
}

fn input(server: &Server, words: &[&str]) -> Finished {
    server.cli("input").args(words).run()
}

#[test]
fn ten_megabytes_pass_through_a_job_from_a_file_and_from_a_pipe() {
    let server = Server::start();
    let bytes = content(71, 0, 10_000_000, true);
    let cat = || server.cli("run").args(["-i", "--", "cat"]);
    let done = cat().stdin(file(&server, "bytes", &bytes)).run();
    assert_eq!((done.code(), done.err().as_str()), (0, ""));
    assert_bytes(&done.stdout, &bytes, "from a file");

    let mut running = cat().stdin(Stdio::piped()).spawn();
    let mut stdin = running.child.stdin.take().expect("piped");
    stdin.write_all(&bytes).expect("a reader");
    drop(stdin);
    let done = running.finish();
    assert_eq!(done.code(), 0);
    assert_bytes(&done.stdout, &bytes, "from a pipe");
}

#[test]
fn bytes_arrive_as_they_come_over_a_kill_of_the_server() {
    let mut server = Server::start();
    let line = "while read -r l; do echo \"<$l>\"; done; exit 6";
    let run = server.cli("run").args(["-i", "--shell", line]);
    let mut running = run.stdin(Stdio::piped()).spawn();
    let mut stdin = running.child.stdin.take().expect("piped");
    let mut say = |text: &str| stdin.write_all(text.as_bytes()).expect("a reader");
    say("one\n");
    until_true("an answer", || output(&server) == b"<one>\n");
    say("tw");
    server.kill_9();
    say("o\n");
    server.restart();
    until_true("an answer", || output(&server) == b"<one>\n<two>\n");
    say("three\n");
    drop(stdin);
    let done = running.finish();
    assert_eq!(done.code(), 6);
    assert_eq!(done.out(), "<one>\n<two>\n<three>\n");
}

#[test]
fn a_stream_of_input_survives_one_kill_after_the_other() {
    let mut server = Server::start();
    let bytes = content(72, 0, 6_000_000, true);
    let run = server.cli("run").args(["-i", "--", "cat"]);
    let mut running = run.stdin(Stdio::piped()).spawn();
    let mut stdin = running.child.stdin.take().expect("piped");
    for piece in bytes.chunks(2_000_000) {
        let (first, rest) = piece.split_at(1_000_000);
        stdin.write_all(first).expect("a reader");
        // In the middle of whatever is on its way.
        server.kill_9();
        server.restart();
        stdin.write_all(rest).expect("a reader");
    }
    drop(stdin);
    let done = running.finish();
    assert_eq!(done.code(), 0, "{}", done.err());
    assert_bytes(&done.stdout, &bytes, "through three kills");
}

#[test]
fn a_job_that_reads_late_gets_everything() {
    let server = Server::start();
    let bytes = content(73, 0, 3_000_000, true);
    let run = server.cli("run").args(["-i", "--shell", "sleep 0.5; cat"]);
    let done = run.stdin(file(&server, "bytes", &bytes)).run();
    assert_eq!(done.code(), 0);
    assert_bytes(&done.stdout, &bytes, "read late");
}

#[test]
fn what_is_not_read_keeps_nobody() {
    let server = Server::start();
    let run = |line: &str| server.cli("run").args(["-i", "--shell", line]);
    // Nobody writes to our stdin, and nobody closes it.
    let mut running = run("exit 3").stdin(Stdio::piped()).spawn();
    let stdin = running.child.stdin.take();
    assert_eq!(running.finish().code(), 3);
    drop(stdin);
    // The job reads less than there is, or closes its stdin and goes on.
    let much = content(74, 0, 5_000_000, true);
    let done = run("head -c 5").stdin(file(&server, "a", &much)).run();
    assert_eq!((done.code(), done.stdout.as_slice()), (0, &much[..5]));
    let line = "exec 0<&-; sleep 0.3; echo done";
    let done = run(line).stdin(file(&server, "b", &much)).run();
    assert_eq!((done.code(), done.out().as_str()), (0, "done\n"));
    assert_eq!(done.err(), "");
    // There is nothing at all.
    let done = run("cat; echo end").run();
    assert_eq!((done.code(), done.out().as_str()), (0, "end\n"));
}

#[test]
fn an_interrupt_cancels_although_stdin_is_open() {
    let server = Server::start();
    let run = server
        .cli("run")
        .args(["-i", "--shell", "echo up; exec cat"]);
    let mut running = run.stdin(Stdio::piped()).spawn();
    let stdin = running.child.stdin.take();
    until_true("the job runs", || output(&server) == b"up\n");
    running.signal(Signal::SIGINT);
    assert_eq!(running.finish().code(), 130);
    drop(stdin);
}

#[test]
fn text_and_stdin_are_sent_to_a_job() {
    let server = Server::start();
    let submit = ["-i", "--name", "cat", "--", "cat"];
    assert_eq!(server.cli("submit").args(submit).run().code(), 0);
    assert_eq!(input(&server, &["cat", "two", "words"]).code(), 0);
    assert_eq!(input(&server, &["cat", "-n", "no newline"]).code(), 0);
    let bytes = content(75, 0, 200_000, true);
    let piped = server.cli("input").args(["1"]);
    let done = piped.stdin(file(&server, "bytes", &bytes)).run();
    assert_eq!(
        (done.code(), done.out(), done.err()),
        (0, String::new(), String::new())
    );
    assert_eq!(input(&server, &["last", "end", "--eof"]).code(), 0);
    let expected = [b"two words\nno newline", &bytes[..], b"end\n"].concat();
    until("the end", || {
        let job = server.cli("show").args(["--json", "1"]).run().json();
        (job["state"] == "succeeded").then_some(())
    });
    assert_bytes(&output(&server), &expected, "what was sent");
    let late = input(&server, &["1", "late"]);
    assert_eq!(late.code(), 1);
    assert!(late.err().contains("succeeded"), "{}", late.err());
}

#[test]
fn who_takes_no_input_is_told_so() {
    let server = Server::start();
    assert_eq!(server.cli("run").args(["--", "true"]).run().code(), 0);
    for words in [&["1", "x"][..], &["77", "x"], &["nobody", "x"]] {
        let done = input(&server, words);
        assert_eq!(done.code(), 1);
        assert_eq!(done.err().lines().count(), 1, "{}", done.err());
    }
    assert_eq!(input(&server, &["1", "-n"]).code(), 2, "nothing to send");
}

/// A message has at most 1 MiB, of which base64 leaves three quarters.
#[test]
fn a_text_that_is_longer_than_a_message_is_sent_in_pieces() {
    let server = Server::start();
    let words = ["--detach", "-i", "--", "cat"];
    let id = server.cli("run").args(words).run().out();
    let text: Vec<String> = (0..9)
        .map(|n| format!("{n}{}", "x".repeat(100_000)))
        .collect();
    let sent = server
        .cli("input")
        .args(["--eof", id.trim()])
        .args(&text)
        .run();
    assert_eq!((sent.code(), sent.err().as_str()), (0, ""));
    let done = server.cli("tail").args([id.trim()]).run();
    assert_bytes(
        &done.stdout,
        (text.join(" ") + "\n").as_bytes(),
        "what cat has read",
    );
    let nothing = server.cli("run").args(words).run().out();
    let sent = input(&server, &["--eof", "-n", nothing.trim(), ""]);
    assert_eq!(sent.code(), 0, "{}", sent.err());
    assert_eq!(server.cli("tail").args([nothing.trim()]).run().out(), "");
}
