//! The database's write-ahead log stays short, whatever clients ask for, and nothing that is submitted
//! is refused for it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use serde_json::{Value, json};

use crate::harness::{Client, Server, until_true};

const MIB: u64 = 1 << 20;
const UNAVAILABLE: i64 = -32006;
/// Runs until its time is over, and reads from the database.
const HOSTILE: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n), \
     newest(job) AS (SELECT max(job) FROM history_jobs) SELECT max(n.i + newest.job) FROM n, newest";

fn log(server: &Server) -> PathBuf {
    server.data_dir().join("cc-executor.db-wal")
}

fn log_bytes(server: &Server) -> u64 {
    fs::metadata(log(server)).map_or(0, |meta| meta.len())
}

/// Submits jobs with this much stdin to a queue that starts nothing, until so much was submitted;
/// returns the greatest length of the log.
fn submit_much(server: &Server, client: &mut Client, stdin: usize, bytes: u64) -> u64 {
    client.ok("queue.set", json!({"queue": "held", "paused": true}));
    let job = json!({"argv": ["true"], "queue": "held", "stdin": "x".repeat(stdin)});
    let mut longest = 0;
    for _ in 0..bytes / stdin as u64 {
        client.ok("job.submit", job.clone());
        longest = longest.max(log_bytes(server));
    }
    longest
}

/// Calls until it is told to end; counts the answers of each kind.
struct Counts {
    over: AtomicBool,
    answered: AtomicU64,
    stopped: AtomicU64,
}

impl Counts {
    fn new() -> Self {
        Self {
            over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
        }
    }

    fn call(&self, server: &Server, method: &str, params: &Value) {
        let mut client = server.connect();
        while !self.over.load(SeqCst) {
            match client.call(method, params.clone()) {
                Err(error) if error["code"] == UNAVAILABLE => {
                    let message = error["message"].as_str().unwrap_or_default();
                    assert!(message.contains("again"), "{message}");
                    self.stopped.fetch_add(1, SeqCst);
                }
                Err(error) => {
                    assert_eq!(error["data"]["limit"], "query_timeout_s", "{error}");
                    self.answered.fetch_add(1, SeqCst);
                }
                Ok(_) => drop(self.answered.fetch_add(1, SeqCst)),
            }
        }
    }
}

/// Submits much while `hostile` is called by several clients all the time; the longest log, and how
/// often the calls were answered and stopped.
fn beside(server: &Server, calls: &[(&str, Value)], bytes: u64) -> (u64, u64, u64) {
    let counts = Counts::new();
    let longest = thread::scope(|scope| {
        for (method, params) in calls {
            scope.spawn(|| counts.call(server, method, params));
        }
        let mut client = server.connect();
        let longest = submit_much(server, &mut client, 200_000, bytes);
        counts.over.store(true, SeqCst);
        longest
    });
    let (answered, stopped) = (counts.answered, counts.stopped);
    (longest, answered.into_inner(), stopped.into_inner())
}

#[test]
fn queries_that_never_end_do_not_make_the_log_long() {
    let bound = 8 * MIB;
    // So long that on a slow machine, too, the log reaches its bound before they end by themselves.
    let options = [
        "--wal-bytes-max",
        &bound.to_string(),
        "--query-timeout-s",
        "10",
    ];
    let server = Server::with(&options, &[]);
    let calls = vec![("history.query", json!({"sql": HOSTILE})); 6];
    let (longest, _, stopped) = beside(&server, &calls, 30 * MIB);
    assert!(longest <= bound, "the log had {longest} bytes");
    assert!(stopped > 0, "the log would have been longer");
    let mut client = server.connect();
    let answer = client.ok(
        "history.query",
        json!({"sql": "SELECT count(*) FROM history_jobs"}),
    );
    assert!(answer["rows"][0][0].as_u64() >= Some(30), "{answer}");
}

/// A query that ends in time is answered, however much is written: it waits for others to end, and
/// none is stopped for it.
#[test]
fn queries_that_end_are_answered_beside_many_writes() {
    let server = Server::start();
    let sql = HOSTILE.replace("FROM n)", "FROM n WHERE i < 300000)");
    let mut calls = vec![("history.query", json!({"sql": sql})); 4];
    calls.push(("job.list", json!({"limit": 100})));
    calls.push(("job.list", json!({"limit": 100, "labels": {"no": "such"}})));
    calls.push(("history.search", json!({"text": "no such line"})));
    let (longest, answered, stopped) = beside(&server, &calls, 30 * MIB);
    assert!(longest <= 64 * MIB, "the log had {longest} bytes");
    assert!(answered > 0);
    assert_eq!(stopped, 0);
}

#[test]
fn lists_one_after_the_other_do_not_make_the_log_long() {
    let bound = 8 * MIB;
    let server = Server::with(&["--wal-bytes-max", &bound.to_string()], &[]);
    let list = ("job.list", json!({"limit": 1000, "labels": {"no": "such"}}));
    let (longest, answered, _) = beside(&server, &vec![list; 8], 16 * MIB);
    assert!(longest <= bound, "the log had {longest} bytes");
    assert!(answered > 0);
}

/// Large submits that arrive together are committed in transactions of a few megabytes.
#[test]
fn large_submits_do_not_make_the_log_long() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "held", "paused": true}));
    let job = json!({"argv": ["true"], "queue": "held", "stdin": "x".repeat(1_000_000)});
    let mut longest = 0;
    for _ in 0..3 {
        let all: Vec<_> = (0..14)
            .map(|_| client.begin("job.submit", job.clone()))
            .collect();
        for id in all {
            client.reply(id).expect("submitted");
            longest = longest.max(log_bytes(&server));
        }
    }
    assert!(longest <= 12 * MIB, "the log had {longest} bytes");
}

/// A `sqlite3` in a read transaction.
fn reader(server: &Server) -> Child {
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); \
         db.execute('BEGIN'); db.execute('SELECT count(*) FROM jobs').fetchall(); \
         print('reads', flush=True); sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(server.data_dir().join("cc-executor.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let stdout = child.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(stdout, &mut [0; 5]).expect("it reads");
    child
}

#[test]
fn another_program_that_reads_for_long_is_named_and_the_server_goes_on() {
    let bound = 8 * MIB;
    let server = Server::with(&["--wal-bytes-max", &bound.to_string()], &[]);
    let mut client = server.connect();
    let mut reader = reader(&server);
    submit_much(&server, &mut client, 200_000, 12 * MIB);
    let query = json!({"sql": "SELECT count(*) FROM history_jobs"});
    client.ok("history.query", query.clone());
    until_true("a line in the log", || {
        server.said().contains("another program (such as sqlite3)")
    });
    drop(reader.stdin.take());
    reader.wait().expect("it has ended");
    let longest = submit_much(&server, &mut client, 200_000, 12 * MIB);
    assert!(log_bytes(&server) <= bound, "{longest}");
    client.ok("history.query", query);
}

/// A backup is a long read: it is made beside writes, and the log begins again after it.
#[test]
fn a_backup_is_made_beside_queries_that_never_end() {
    let server = Server::with(&["--wal-bytes-max", &(8 * MIB).to_string()], &[]);
    let counts = Counts::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| counts.call(&server, "history.query", &json!({"sql": HOSTILE})));
        }
        let mut client = server.connect();
        for round in 0..2 {
            submit_much(&server, &mut client, 200_000, 6 * MIB);
            let to = server.scratch(&format!("backup{round}"));
            client.ok("server.backup", json!({"to": to}));
        }
        submit_much(&server, &mut client, 200_000, 10 * MIB);
        counts.over.store(true, SeqCst);
    });
    assert!(log_bytes(&server) <= 8 * MIB);
}
