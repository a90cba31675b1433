//! What must hold once everything is over: the jobs' own ledger, the database, the files.
//! Does not know what was struck.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::runtime::Builder;

use crate::harness::{Server, until_true};

/// How often a job noted its start and its end.
pub fn noted(ledger: &Path, seed: u64) -> (usize, usize) {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    let count = |what: &str| {
        let begin = format!("{what} {seed} ");
        text.lines().filter(|line| line.starts_with(&begin)).count()
    };
    (count("start"), count("end"))
}

/// Which process noted its start.
pub fn noted_pid(ledger: &Path, seed: u64) -> Option<i32> {
    let text = fs::read_to_string(ledger).ok()?;
    let begin = format!("start {seed} ");
    let pid = text.lines().find_map(|line| line.strip_prefix(&begin))?;
    pid.split(' ').next()?.parse().ok()
}

/// The data directory of a stopped server, whose jobs are all final: nothing is left over.
///
/// What a planned stop may leave to the next start: a segment whose bytes have become rows just
/// before, and the mark of a void attempt, by which a late shim would have failed.
#[track_caller]
pub fn assert_tidy(server: &mut Server) {
    let data = server.data_dir();
    assert_eq!(ask(&data, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(ask(&data, "PRAGMA foreign_key_check"), [""; 0]);
    let rows = "SELECT job || '.' || attempt || '.' || first_offset || '.seg' FROM segments";
    let rows: BTreeSet<_> = ask(&data, rows).into_iter().collect();
    let without = "SELECT job || '.' || attempt || '.' || start_offset || '.seg' FROM attempts
                   WHERE (job, attempt) NOT IN (SELECT job, attempt FROM segments)";
    let without: BTreeSet<_> = ask(&data, without).into_iter().collect();
    let spool = data.join("spool");
    if !names(&spool).is_disjoint(&without) {
        server.restart();
        until_true("the spool to be tidied", || {
            names(&spool).is_disjoint(&without)
        });
        stop(server);
    }
    assert_eq!(names(&spool), rows, "segments, and their rows");
    let shims = names(&data.join("shims"));
    assert_eq!(shims, BTreeSet::new(), "shims are gone");
    let known = [
        "cc-executor.ballast",
        "cc-executor.db",
        "lock",
        "server.start",
        "shims",
        "shims.log",
        "spool",
        "token",
        "token.key",
    ];
    let left = names(&data);
    let mut stray = left.iter().filter(|name| !known.contains(&name.as_str()));
    assert_eq!(stray.next(), None, "left in the data directory");
}

/// Stops a server; its idle shims leave.
#[track_caller]
pub fn stop(server: &mut Server) {
    let (status, _) = server.stop();
    assert!(status.success(), "{status}");
    until_true("idle shims to leave", || server.shims().is_empty());
}

/// The states of a job as they followed each other, each with the one that it left.
#[track_caller]
pub fn assert_legal(server: &Server, job: &Value) {
    let number = &job["number"];
    let query = format!(
        "SELECT coalesce(from_state, '') || '>' || to_state FROM events WHERE job = {number} ORDER BY id"
    );
    let steps = ask(&server.data_dir(), &query);
    let end = job["state"].as_str().expect("a state");
    let mut state = "";
    for step in &steps {
        let (from, to) = step.split_once('>').expect("two states");
        assert_eq!(from, state, "{steps:?}");
        let legal = match from {
            "" => to == "queued",
            "queued" => to == "running",
            // An attempt that was void, or the end.
            "running" => to == "queued" || to == end,
            _ => false,
        };
        assert!(legal, "{from} to {to} in {steps:?}");
        state = to;
    }
    assert_eq!(state, end, "{steps:?}");
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The answer's first column as text. Asked of the SQLite that the server has: older ones think
/// that a `CHECK (json_valid(…))` forbids NULL.
fn ask(data: &Path, query: &str) -> Vec<String> {
    let options = SqliteConnectOptions::new()
        .filename(data.join("cc-executor.db"))
        .create_if_missing(false);
    let runtime = Builder::new_current_thread().enable_all().build();
    let answer: Result<Vec<String>, sqlx::Error> = runtime.expect("a runtime").block_on(async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let rows = sqlx::query(AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        rows.iter().map(|row| row.try_get_unchecked(0)).collect()
    });
    answer.unwrap_or_else(|error| panic!("{query}: {error}"))
}
