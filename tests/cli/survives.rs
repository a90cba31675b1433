//! `run` and `tail` over the ends of their servers: every byte once, the right exit code, and nothing
//! said about it, whoever starts the next one; and a binary that is replaced under running jobs.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::harness::{
    BINARY, Cli, Server, assert_bytes, content, emit, is_alive, parent, until, until_true,
    with_word,
};

/// What each part of the job writes to stdout and to stderr, bytes.
const BYTES: u64 = 150_000;
const ERR_BYTES: u64 = 5_000;
/// How many parts there are.
const PARTS: u64 = 4;

/// A line of shell that writes its parts, each when its gate is there, and ends with code 6.
fn line(place: &Server, seed: u64) -> String {
    let parts = (0..PARTS).map(|nth| {
        format!(
            "while [ ! -e {} ]; do sleep 0.02; done; {} --seed {} --bytes {BYTES} \
             --err-bytes {ERR_BYTES} --chunk 1:4000 --pause-us 4000; ",
            gate(place, nth).display(),
            emit(),
            seed + nth
        )
    });
    parts.collect::<String>() + "exit 6"
}

fn gate(place: &Server, nth: u64) -> PathBuf {
    place.scratch(&format!("gate.{nth}"))
}

/// All that the job writes to a stream.
fn all(seed: u64, stream: u64, length: u64) -> Vec<u8> {
    (0..PARTS)
        .flat_map(|nth| content(seed + nth, stream, length, false))
        .collect()
}

/// How much the job has written.
fn written(place: &Server) -> Option<u64> {
    let shown = place.cli("show").args(["--json", "it"]).run();
    let job: Value = serde_json::from_slice(&shown.stdout).ok()?;
    job["output_bytes"].as_u64()
}

fn open_gate(place: &Server, nth: u64) {
    fs::write(gate(place, nth), "").expect("a gate");
}

/// Waits until the part before this one is written, and lets it begin.
fn begin_part(place: &Server, nth: u64) {
    let before = nth * (BYTES + ERR_BYTES);
    until_true("the part before", || written(place) >= Some(before));
    open_gate(place, nth);
}

/// A `run` and a `tail` of the same job; in each part but the first something happens.
fn goes_on_over(place: &mut Server, mut happens: impl FnMut(&mut Server)) {
    let line = line(place, 81);
    let running = place
        .cli("run")
        .args(["--name", "it", "--shell", &line])
        .spawn();
    begin_part(place, 0);
    let tail = place.cli("tail").args(["it", "--stream", "stdout"]).spawn();
    for nth in 1..PARTS {
        begin_part(place, nth);
        happens(place);
    }
    let (done, tail) = (running.finish(), tail.finish());
    assert_bytes(&done.stdout, &all(81, 0, BYTES), "run's stdout");
    assert_bytes(
        &done.stderr,
        &all(81, 1, ERR_BYTES),
        "run's stderr, and nothing else",
    );
    assert_eq!(done.code(), 6);
    assert_bytes(&tail.stdout, &all(81, 0, BYTES), "tail's stdout");
    assert_eq!((tail.err().as_str(), tail.code()), ("", 0));
    let job = place.cli("show").args(["--json", "it"]).run().json();
    assert_eq!(job["attempts"], 1, "{job}");
}

#[test]
fn kills_of_a_server_that_somebody_else_starts_again() {
    let mut server = Server::start();
    goes_on_over(&mut server, |server| {
        server.kill_9();
        server.restart();
    });
}

#[test]
fn planned_stops_of_a_server_that_somebody_else_starts_again() {
    let mut server = Server::start();
    goes_on_over(&mut server, |server| {
        assert!(server.stop().0.success());
        server.restart();
    });
}

#[test]
fn kills_of_a_server_that_nobody_starts_again_but_they() {
    let mut place = Server::stopped(&[], &[]);
    goes_on_over(&mut place, |place| {
        let pid = server_of(place);
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the server");
        until_true("it is gone", || !is_alive(pid));
    });
}

#[test]
fn restarts_by_the_verb() {
    let mut place = Server::stopped(&[], &[]);
    goes_on_over(&mut place, |place| {
        let before = server_of(place);
        let done = place.cli("restart").run();
        assert_eq!(done.code(), 0, "{}", done.err());
        assert_ne!(server_of(place), before);
    });
}

fn server_of(place: &Server) -> i32 {
    let status = place.cli("status").args(["--json"]).run().json();
    status["pid"].as_i64().expect("a pid") as i32
}

/// Device and inode of the image that a process runs, also where its file is gone.
fn image(pid: i32) -> (u64, u64) {
    file(Path::new(&format!("/proc/{pid}/exe")))
}

fn file(path: &Path) -> (u64, u64) {
    let meta = fs::metadata(path).expect("there");
    (meta.dev(), meta.ino())
}

/// Puts a fresh copy of the binary in its place, as a package manager does.
fn install(program: &PathBuf) {
    let draft = program.with_extension("new");
    // A child between fork and exec may still hold a file that this process wrote open.
    let copied = Command::new("cp").arg(BINARY).arg(&draft).status();
    assert!(copied.expect("cp").success());
    fs::rename(&draft, program).expect("in its place");
}

/// The shim of the job whose leader has this in its command line.
fn shim_of(place: &Server, words: &str) -> i32 {
    until("the leader", || {
        let named = with_word(words);
        let jobs = place.job_processes();
        jobs.into_iter()
            .find(|pid| named.contains(pid))
            .and_then(parent)
    })
}

#[test]
fn a_binary_is_replaced_under_running_jobs() {
    let place = Server::stopped(&[], &[]);
    fs::create_dir(place.scratch("bin")).expect("a directory");
    let program = place.scratch("bin/cc-executor");
    let cli = |verb: &str| Cli::of(&program, &place.data_dir(), verb);
    install(&program);
    let old = file(&program);
    let line = line(&place, 91);
    let running = cli("run").args(["--name", "it", "--shell", &line]).spawn();
    begin_part(&place, 0);
    begin_part(&place, 1);
    let (server, shim) = (server_of(&place), shim_of(&place, "gate.3"));
    assert_eq!((image(server), image(shim)), (old, old));

    install(&program);
    let new = file(&program);
    assert_ne!(old, new);
    let done = cli("restart").run();
    assert_eq!(done.code(), 0, "{}", done.err());
    assert_eq!(image(server_of(&place)), new, "the server is the new one");
    assert_eq!(image(shim), old, "the job's shim is the one that it had");

    // New jobs get shims of the new binary: those that had nothing to do have left.
    let id = cli("submit").args(["--", "sleep", "1000"]).run().out();
    assert_eq!(image(shim_of(&place, "sleep\x001000")), new);
    let killed = cli("kill").args([id.trim()]).run();
    assert_eq!(killed.code(), 0, "{}", killed.err());
    (2..PARTS).for_each(|nth| open_gate(&place, nth));
    let done = running.finish();
    assert_bytes(&done.stdout, &all(91, 0, BYTES), "stdout");
    assert_eq!(done.code(), 6, "{}", done.err());
    let jobs = cli("ls").args(["--json"]).run().json();
    let attempts: Vec<&Value> = jobs
        .as_array()
        .expect("jobs")
        .iter()
        .map(|job| &job["attempts"])
        .collect();
    assert_eq!(attempts, [1, 1]);
}

/// A `run` once brought its own old image back to life, which knew nothing of the new database.
#[test]
fn a_server_that_is_brought_back_is_the_binary_that_is_there_now() {
    let place = Server::stopped(&[], &[]);
    fs::create_dir(place.scratch("bin")).expect("a directory");
    let program = place.scratch("bin/cc-executor");
    install(&program);
    let line = line(&place, 95);
    let running = Cli::of(&program, &place.data_dir(), "run")
        .args(["--name", "it", "--shell", &line])
        .spawn();
    begin_part(&place, 0);
    begin_part(&place, 1);
    let pid = server_of(&place);
    assert_eq!(image(pid), file(&program));
    install(&program);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the server");
    let socket = place.data_dir().join("server.sock");
    let revived = until("another server", || {
        let stream = std::os::unix::net::UnixStream::connect(&socket).ok()?;
        let peer =
            nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
        peer.ok().map(|peer| peer.pid()).filter(|peer| *peer != pid)
    });
    assert_eq!(image(revived), file(&program));
    (2..PARTS).for_each(|nth| open_gate(&place, nth));
    let done = running.finish();
    assert_bytes(&done.stdout, &all(95, 0, BYTES), "stdout");
    assert_eq!(done.code(), 6, "{}", done.err());
}
