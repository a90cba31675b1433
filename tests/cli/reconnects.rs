//! Connections that are made and lost again: a verb pauses longer and longer between two of them until
//! there is progress, and nothing of what it shows is lost.

use std::{
    io::Write,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{
    BINARY, Cli, Fate, Proxy, Server, assert_bytes, content, emit, until, until_true,
};

/// How many connections are lost in a row.
const LOST: usize = 6;
/// The least time that these take, with pauses that double.
const LOST_TAKE: Duration = Duration::from_millis(600);
/// What the jobs write, bytes.
const BYTES: u64 = 400_000;

/// A verb on the server behind a proxy.
fn through(proxy: &Proxy, server: &Server, words: &[&str]) -> Cli {
    // `--server` excludes `--data-dir`.
    let url = format!("ws://{}", proxy.listen);
    Cli::bare(words[0], &server.data_dir())
        .args(["--server", &url, "--token", &server.token()])
        .args(&words[1..])
}

/// How long it took from the connection with this number to the `LOST`th after it.
fn took(accepted: &[Instant], from: usize) -> Duration {
    accepted[from + LOST] - accepted[from]
}

#[test]
fn a_tail_pauses_between_connections_that_bring_nothing() {
    let server = Server::start();
    let gate = server.scratch("gate");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; exec {} --seed 31 --bytes {BYTES}",
        gate.display(),
        emit()
    );
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"shell": line})));
    let number = job["number"].to_string();
    client.started(&job);
    let is_well = Arc::new(AtomicBool::new(false));
    let mut tails = Vec::new();
    for fate in [Fate::Closed, Fate::Deaf, Fate::ReplyLost] {
        let well = is_well.clone();
        let proxy = Proxy::start(server.listen(), move |n| {
            match (n, well.load(Ordering::SeqCst)) {
                (0, _) => Fate::ReplyLost,
                (_, false) => fate,
                (_, true) => Fate::Lives,
            }
        });
        let tail = through(&proxy, &server, &["tail", &number]).spawn();
        tails.push((fate, proxy, tail));
    }
    for (fate, proxy, _) in &tails {
        until_true("connections", || proxy.accepted().len() > LOST);
        let took = took(&proxy.accepted(), 0);
        assert!(took >= LOST_TAKE, "{fate:?}: {took:?}");
    }
    is_well.store(true, Ordering::SeqCst);
    std::fs::write(&gate, "").expect("the gate");
    for (fate, _proxy, tail) in tails {
        let done = tail.finish();
        let all = content(31, 0, BYTES, false);
        assert_bytes(&done.stdout, &all, &format!("{fate:?}"));
        assert_eq!((done.code(), done.err().as_str()), (0, ""), "{fate:?}");
    }
}

/// What a server sends on every connection is no progress: the reply, and that all was sent.
#[test]
fn a_tail_whose_connections_bring_only_the_reply_pauses_too() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"shell": "echo one; exec sleep 1000"})));
    let number = job["number"].to_string();
    client.started(&job);
    for more in [&[][..], &["--json"]] {
        let proxy = Proxy::start(server.listen(), |_| Fate::Brief);
        let words = [&["tail", number.as_str()][..], more].concat();
        let tail = through(&proxy, &server, &words).spawn();
        // The first line may have been progress.
        until_true("connections", || proxy.accepted().len() > LOST + 2);
        let took = took(&proxy.accepted(), 2);
        assert!(took >= LOST_TAKE, "{more:?}: {took:?}");
        tail.signal(Signal::SIGTERM);
        tail.finish();
    }
}

#[test]
fn a_run_loses_nothing_over_connections_that_are_cut() {
    let server = Server::start();
    let proxy = Proxy::start(server.listen(), |n| match n {
        0 => Fate::Cut(100_000),
        n if n <= LOST => Fate::Deaf,
        _ => Fate::Cut(90_000),
    });
    let bytes = BYTES.to_string();
    let words = ["run", "--", emit(), "--seed", "32", "--bytes", &bytes];
    let words = [&words[..], &["--err-bytes", "50000", "--exit", "6"]].concat();
    let done = through(&proxy, &server, &words).run();
    assert_bytes(&done.stdout, &content(32, 0, BYTES, false), "stdout");
    assert_bytes(&done.stderr, &content(32, 1, 50_000, false), "stderr");
    assert_eq!(done.code(), 6);
    let accepted = proxy.accepted();
    assert!(took(&accepted, 0) >= LOST_TAKE, "{:?}", took(&accepted, 0));
    assert!(accepted.len() > LOST + 3, "it was cut again and again");
    let jobs = server.cli("ls").args(["--json"]).run().json();
    assert_eq!(jobs.as_array().map(Vec::len), Some(1), "{jobs}");
}

#[test]
fn waits_and_readers_pause_too() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    let number = job["number"].to_string();
    client.started(&job);
    let mut running = Vec::new();
    let calls = [vec!["wait", &number], vec!["ls"], vec!["show", &number]];
    for words in &calls {
        let proxy = Proxy::start(server.listen(), |n| match n {
            n if n <= LOST => Fate::Deaf,
            _ => Fate::Lives,
        });
        let verb = through(&proxy, &server, words).spawn();
        running.push((words, proxy, verb));
    }
    for (words, proxy, verb) in running {
        until_true("connections", || proxy.accepted().len() > LOST + 1);
        let took = took(&proxy.accepted(), 0);
        assert!(took >= LOST_TAKE, "{words:?}: {took:?}");
        if words[0] == "wait" {
            client.control(&job, "kill");
        }
        let code = verb.finish().code();
        assert_eq!(code, if words[0] == "wait" { 130 } else { 0 }, "{words:?}");
    }
}

/// Each try is two connections: one for the greeting, and the one that is lost.
#[test]
fn the_relay_of_an_agent_pauses_too() {
    let server = Server::start();
    let proxy = Proxy::start(server.listen(), |n| match n {
        n if n < LOST => Fate::Deaf,
        _ => Fate::Lives,
    });
    let url = format!("ws://{}", proxy.listen);
    let mut relay = std::process::Command::new(BINARY)
        .args(["mcp", "--server", &url, "--token", &server.token()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = relay.stdin.take().expect("piped");
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"}});
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    writeln!(stdin, "{open}").expect("a reader");
    let stdout = relay.stdout.take().expect("piped");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    assert!(line.contains("\"result\""), "{line}");
    let accepted = proxy.accepted();
    let pauses = accepted[LOST] - accepted[1];
    assert!(pauses >= Duration::from_millis(200), "{pauses:?}");
    drop(stdin);
    let status = until("its end", || relay.try_wait().expect("our child"));
    assert!(status.success());
}
