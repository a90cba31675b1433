//! How SQLite executes the statements: none may read a table from end to end.
//!
//! (An UPDATE once went through the whole queue for every claim.)

use std::{fs, path::Path};

use sqlx::{AssertSqlSafe, Row};

use crate::ledger::*;

/// Tables that grow with the number of jobs, and what a plan calls them in our statements.
const LARGE: [&str; 14] = [
    "jobs",
    "j",
    "c",
    "n",
    "attempts",
    "a",
    "p",
    "events",
    "output_chunks",
    "segments",
    "s",
    "l",
    "notices",
    "d",
];

/// Scans that are meant, by how their statement begins.
const MEANT: [(&str, &str); 6] = [
    // Counting all jobs, once at the opening, reads the narrowest index there is.
    (
        "SELECT state AS",
        "SCAN jobs USING COVERING INDEX jobs_state",
    ),
    // The same for live jobs by queue: these indexes hold no others.
    (
        "SELECT queue AS",
        "SCAN jobs USING COVERING INDEX jobs_queued",
    ),
    (
        "SELECT queue AS",
        "SCAN jobs USING COVERING INDEX jobs_waiting_for_key",
    ),
    (
        "SELECT queue AS",
        "SCAN jobs USING COVERING INDEX jobs_active",
    ),
    // That index holds open attempts alone.
    (
        "SELECT job AS \"job!: i64\", attempt AS",
        "SCAN attempts USING INDEX attempts_shim",
    ),
    // Counting all jobs, once in a backup.
    (
        "SELECT count(*) AS",
        "SCAN jobs USING COVERING INDEX jobs_submitted",
    ),
];

/// Indexes that hold everything of one state, so that a walk along one key of theirs can be as long as a
/// queue.
const LONG: [&str; 2] = ["jobs_state (state=?)", "notices_state (state=?)"];

/// Statements that may use them, by how they begin.
const SHORT: [&str; 6] = [
    // Once, at the opening.
    "SELECT (SELECT count(*) FROM notices",
    "SELECT queue AS",
    "SELECT DISTINCT d.on_job",
    // Jobs that run are few.
    "SELECT id AS \"id!: String\", number AS \"number!: i64\", name",
    "SELECT j.number AS \"number!: i64\", j.id AS \"id!: String\", j.state AS",
    // Those that are delivered or given up are bounded.
    "DELETE FROM notices",
];

#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    let ledger = Ledger::new().await;
    let mut raw = ledger.raw().await;
    let mut seen = 0;
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx")).unwrap() {
        let data = fs::read(file.unwrap().path()).unwrap();
        let data: serde_json::Value = serde_json::from_slice(&data).unwrap();
        let query = data["query"].as_str().unwrap();
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}")))
            .fetch_all(&mut raw)
            .await
            .unwrap();
        for step in plan {
            let step: String = step.get("detail");
            let meant = MEANT
                .iter()
                .any(|(start, scan)| query.starts_with(start) && step == *scan);
            assert!(meant || !is_long(query, &step), "{step}\nin {query}");
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} steps: are these all statements?");
}

fn is_long(query: &str, step: &str) -> bool {
    let scans = LARGE.iter().any(|table| {
        let scan = format!("SCAN {table}");
        step == scan || step.starts_with(&format!("{scan} USING"))
    });
    let is_long = LONG.iter().any(|index| step.ends_with(index));
    scans || (is_long && !SHORT.iter().any(|start| query.starts_with(start)))
}
