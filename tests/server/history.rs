//! `history.query`: the views, output in every form it is stored in, and what no statement can do.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{
    Client, Frame, Server, assert_bytes, children, content, emit, is_alive, memory, sha256,
    until_true,
};

const FORBIDDEN: i64 = -32002;
const LIMIT: i64 = -32005;
const INVALID: i64 = -32602;

fn rows(client: &mut Client, sql: &str, params: Value) -> Vec<Vec<Value>> {
    let answer = client.ok("history.query", json!({"sql": sql, "params": params}));
    serde_json::from_value(answer["rows"].clone()).expect("rows")
}

fn one(client: &mut Client, sql: &str, params: Value) -> Value {
    let rows = rows(client, sql, params);
    assert_eq!((rows.len(), rows[0].len()), (1, 1), "{sql}: {rows:?}");
    rows[0][0].clone()
}

/// The bytes of a job as `history_output` has them; their offsets must follow each other.
fn output(client: &mut Client, job: &Value) -> Vec<u8> {
    let sql = "SELECT offset, bytes, data FROM history_output
               WHERE job = ?1 AND offset >= ?2 ORDER BY offset";
    let mut bytes = Vec::new();
    loop {
        let params = json!({"sql": sql, "params": [job["number"], bytes.len()]});
        let answer = client.ok("history.query", params);
        for row in answer["rows"].as_array().expect("rows") {
            assert_eq!(row[0], bytes.len(), "no hole and no piece twice");
            let data = row[2]["base64"].as_str().expect("a BLOB");
            let data = STANDARD.decode(data).expect("base64");
            assert_eq!(row[1], data.len());
            bytes.extend(data);
        }
        if answer["truncated"] == false {
            return bytes;
        }
    }
}

fn queries_of(server: &Server) -> Vec<i32> {
    let is_query = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| words.split(|b| *b == 0).nth(1) == Some(b"query"))
    };
    children(server.pid())
        .into_iter()
        .filter(is_query)
        .collect()
}

#[test]
fn jobs_are_told_as_job_get_tells_them() {
    let server = Server::start();
    let mut client = server.connect();
    let jobs = [
        json!({"shell": "exit 3", "name": "three", "labels": {"team": "a"}, "env": {"S": "secret"}}),
        json!({"shell": "kill -9 $$", "stdin": "äöü", "umask": "027"}),
        json!({"argv": ["no-such-program", "x y"]}),
        json!({"argv": ["true"], "priority": 5, "timeout_s": 1.5, "idempotency_key": "k"}),
        json!({"argv": ["true"], "after": [{"job": 1}], "exclusive": "key"}),
        json!({"argv": ["true"], "expect": [{"contains": "x"}], "delay_s": 0.1,
            "retry": {"max_attempts": 2, "backoff_s": 0}}),
    ];
    for job in jobs {
        let job = client.submit(job);
        let job = client.finished(&job);
        let sql = "SELECT * FROM history_jobs WHERE job = ?";
        let answer = client.ok(
            "history.query",
            json!({"sql": sql, "params": [job["number"]]}),
        );
        let columns = answer["columns"].as_array().expect("columns");
        let row = answer["rows"][0].as_array().expect("a row");
        let mut told = BTreeSet::new();
        for (column, value) in columns.iter().zip(row) {
            let name = column.as_str().expect("a name");
            told.insert(name.to_owned());
            let of_text = |text: &Value| {
                let text = text.as_str().unwrap_or("null");
                serde_json::from_str::<Value>(text).expect("JSON")
            };
            let expected = match name {
                "job" => &job["number"],
                "labels" | "argv" | "survivors" | "env_names" | "spawn_error" | "stop"
                | "after" | "retry" | "expect" | "failed_dependency" | "unmet_expectations"
                | "schedule" => {
                    assert_eq!(of_text(value), job[name], "{name}");
                    continue;
                }
                "output_bytes_max" => &job["output"]["max_bytes"],
                "output_lines_max" => &job["output"]["max_lines"],
                "when_full" => &job["output"]["when_full"],
                "user_s" | "system_s" | "max_rss_bytes" => &job["usage"][name],
                "interactive" => {
                    assert_eq!(*value == 1, job[name] == true);
                    continue;
                }
                "command" | "waited_s" | "duration_s" => continue,
                _ => &job[name],
            };
            let both = (value.as_f64(), expected.as_f64());
            assert!(
                value == expected || matches!(both, (Some(a), Some(b)) if (a - b).abs() < 1e-9),
                "{name}: {value} is not {expected}"
            );
        }
        // Whatever a job has, a column has, but for what is in no view.
        let known = job.as_object().expect("an object").keys().cloned();
        let left: Vec<String> = known.filter(|key| !told.contains(key)).collect();
        let untold = ["limits", "notify", "output", "usage"];
        assert_eq!(left, untold, "no column tells of these");
    }
    let sql = "SELECT command, waited_s >= 0, duration_s >= 0 FROM history_jobs WHERE job < 3";
    let told = rows(&mut client, sql, json!([]));
    assert_eq!(
        told,
        [
            vec![json!("exit 3"), json!(1), json!(1)],
            vec![json!("kill -9 $$"), json!(1), json!(1)],
        ]
    );
}

#[test]
fn attempts_and_events_tell_how_it_came() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"shell": "echo out; exit 7"}));
    client.finished(&job);
    let number = &job["number"];
    let sql = "SELECT state, exit_code, signal, start_offset, end_offset, output_bytes,
                      started_at <= ended_at, duration_s >= 0 FROM history_attempts WHERE job = ?";
    let attempt = rows(&mut client, sql, json!([number]));
    assert_eq!(json!(attempt), json!([["ended", 7, null, 0, 4, 4, 1, 1]]));
    let sql =
        r#"SELECT attempt, "from", "to", reason FROM history_events WHERE job = ? ORDER BY id"#;
    let events = rows(&mut client, sql, json!([number]));
    assert_eq!(
        json!(events),
        json!([
            [null, null, "queued", null],
            [1, "queued", "running", null],
            [1, "running", "failed", "exit_code"],
        ])
    );
}

/// `stop` of a job and of its attempt, as parsed JSON; they must be the same.
#[track_caller]
fn stop_of(client: &mut Client, job: &Value) -> Value {
    let sql = "SELECT j.stop, a.stop FROM history_jobs j
               LEFT JOIN history_attempts a ON a.job = j.job WHERE j.job = ?";
    let told = rows(client, sql, json!([job["number"]]));
    let parse = |text: &Value| match text {
        Value::String(text) => serde_json::from_str(text).expect("JSON"),
        other => other.clone(),
    };
    let (of_job, of_attempt) = (parse(&told[0][0]), parse(&told[0][1]));
    if job["attempts"] != 0 {
        assert_eq!(of_job, of_attempt);
    }
    of_job
}

/// A stop that is requested, one that is done, one of a job that never ran, and a limit's.
#[test]
fn a_stop_is_told_as_job_get_tells_it() {
    let server = Server::start();
    let mut client = server.connect();
    let stubborn =
        client.submit(json!({"shell": "trap '' TERM; echo on; sleep 1000", "grace_s": 600}));
    let until = json!({"jobs": [stubborn["id"]], "until": {"bytes": 3}, "timeout_s": 60});
    client.ok("job.wait", until);
    assert_eq!(stop_of(&mut client, &stubborn), Value::Null);
    let cancel = json!({"job": stubborn["id"], "action": "cancel", "actor": "a \"b\"\n\u{e9}"});
    client.ok("job.control", cancel);
    let job = client.get(&stubborn);
    assert_eq!(job["stop"]["by"], "a \"b\"\n\u{e9}");
    assert_eq!(stop_of(&mut client, &job), job["stop"], "requested");
    client.control(&stubborn, "kill");
    let job = client.finished(&stubborn);
    assert_eq!(job["stop"]["killed"], true);
    assert_eq!(stop_of(&mut client, &job), job["stop"], "done");

    let slow = client.submit(json!({"argv": ["sleep", "1000"], "timeout_s": 0.2}));
    let job = client.finished(&slow);
    assert_eq!(job["stop"]["cause"], "timeout");
    assert_eq!(stop_of(&mut client, &job), job["stop"], "a limit");

    client.ok("queue.set", json!({"queue": "still", "paused": true}));
    let waits = client.submit(json!({"argv": ["true"], "queue": "still"}));
    client.control(&waits, "cancel");
    let job = client.finished(&waits);
    assert_eq!(stop_of(&mut client, &job), job["stop"], "never ran");
    let sql = "SELECT stop ->> '$.asked_at' FROM history_jobs WHERE stop IS NOT NULL";
    for row in rows(&mut client, sql, json!([])) {
        assert_eq!(
            row[0].as_str().map(str::len),
            Some("2026-11-22T18:41:13.574740Z".len())
        );
    }
}

/// A row comes once, whichever scans of the table find it.
#[test]
fn a_piece_of_output_comes_once() {
    let server = Server::start();
    let mut client = server.connect();
    let shell = "echo one; sleep 0.1; echo two >&2";
    let jobs: Vec<Value> = (0..6)
        .map(|_| client.submit(json!({"shell": shell})))
        .collect();
    for job in &jobs {
        client.finished(job);
    }
    for (sql, expected) in [
        ("SELECT count(*) FROM history_output", json!(12)),
        (
            "SELECT count(*) FROM history_output WHERE job = 1 OR at >= '2000-01-01'",
            json!(12),
        ),
        (
            "SELECT sum(bytes) FROM history_output WHERE job IN (1, 2) OR offset = 0 OR job = 2",
            json!(32),
        ),
        (
            "SELECT count(*) FROM history_output a JOIN history_output b ON a.job = b.job OR a.offset = b.offset",
            json!(84),
        ),
        (
            "SELECT count(*) FROM history_jobs j RIGHT JOIN history_output o ON j.job = o.job",
            json!(12),
        ),
        (
            "SELECT count(*) FROM history_output a FULL JOIN history_output b ON a.job = b.job",
            json!(24),
        ),
        // No spelling of a time loses rows: these sort before every time, or after all.
        (
            "SELECT count(*) FROM history_output WHERE at >= ' 2026-12-1'",
            json!(12),
        ),
        (
            "SELECT count(*) FROM history_output WHERE at >= '+12026-01-01T00:00:00.000000Z'",
            json!(12),
        ),
        (
            "SELECT count(*) FROM history_output WHERE at <= '9'",
            json!(12),
        ),
        (
            "SELECT count(*) FROM history_output WHERE at > NULL OR at < NULL",
            json!(0),
        ),
        (
            "SELECT count(*) FROM history_output WHERE 'x' REGEXP NULL OR at > ago(NULL) OR job = 1",
            json!(2),
        ),
        // Rows that are only counted.
        ("SELECT count(*) FROM history_events", json!(18)),
        ("SELECT count(*) FROM history_attempts", json!(6)),
        ("SELECT count(*) FROM history_jobs", json!(6)),
        (
            "SELECT count(*) FROM (SELECT 1 FROM history_events) e",
            json!(18),
        ),
    ] {
        assert_eq!(one(&mut client, sql, json!([])), expected, "{sql}");
    }
}

/// Names of columns are part of an answer, and parts of a statement are part of a message.
#[test]
fn long_names_are_refused_and_not_repeated() {
    let server = Server::start();
    let mut client = server.connect();
    let name = "n".repeat(60_000);
    let few = json!({"sql": format!("SELECT 1 AS \"{name}\", hex(zeroblob(700000))")});
    let error = client.refused(LIMIT, "history.query", few);
    assert_eq!(error["data"]["limit"], "message_bytes_max");
    let one_name = json!({"sql": format!("WITH a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a \
        LIMIT 10000) SELECT hex(zeroblob(60)) AS \"{name}\" FROM a")});
    let answer = client.ok("history.query", one_name);
    assert_eq!(
        (&answer["columns"], &answer["truncated"]),
        (&json!([name]), &json!(true))
    );
    let stars = vec!["*"; 64].join(", ");
    for quote in ["n", "\u{1}", "\u{e9}"] {
        let name = quote.repeat(55_000 / quote.len());
        let sql = format!("SELECT {stars} FROM (SELECT 1 AS \"{name}\", 2 AS b, 3 AS c, 4 AS d)");
        let error = client.refused(LIMIT, "history.query", json!({"sql": sql}));
        assert_eq!(error["data"]["limit"], "message_bytes_max", "{quote:?}");
        for (code, sql) in [
            (INVALID, format!("SELECT \"{name}\".x FROM history_jobs")),
            (INVALID, format!("SELECT 1 FROM \"{name}\"")),
            (INVALID, format!("SELECT \"{name}\"(1)")),
            (INVALID, format!("SELECT x AS \"{name}\"")),
        ] {
            let error = client.refused(code, "history.query", json!({"sql": sql}));
            let message = error["message"].as_str().expect("a message");
            assert!(message.len() < 3000, "{} bytes", message.len());
        }
        let params = json!({"sql": "SELECT :a", "params": {name: 1}});
        let error = client.refused(INVALID, "history.query", params);
        assert!(
            error.to_string().len() < 20_000,
            "{}",
            error.to_string().len()
        );
    }
    client.still_works();
}

#[test]
fn output_is_whole_in_every_form_it_is_stored_in() {
    let server = Server::with(&["--segment-bytes", "65536"], &[]);
    let mut client = server.connect();
    let small = client.submit(json!({"shell": "echo out; echo err >&2"}));
    let argv = json!([emit(), "--seed", "5", "--bytes", "900000", "--raw"]);
    let large = client.submit(json!({"argv": argv}));
    let shell = format!("{} --seed 6 --bytes 300000 --raw; sleep 1000", emit());
    let running = client.submit(json!({"shell": shell}));
    client.finished(&small);
    client.finished(&large);
    client.ok(
        "job.wait",
        json!({"jobs": [running["id"]], "until": {"bytes": 300_000}}),
    );
    let mut streams = rows(
        &mut client,
        "SELECT stream, text, bytes, at >= ?2 FROM history_output WHERE job = ?1 ORDER BY stream",
        json!([small["number"], small["submitted_at"]]),
    );
    streams.sort_by_key(|row| row[0].to_string());
    assert_eq!(
        json!(streams),
        json!([["stderr", "err\n", 4, 1], ["stdout", "out\n", 4, 1]])
    );
    assert_bytes(
        &output(&mut client, &large),
        &content(5, 0, 900_000, true),
        "segments",
    );
    assert_bytes(
        &output(&mut client, &running),
        &content(6, 0, 300_000, true),
        "running",
    );
    // All of them at once, and what no constraint shortens.
    let sql = "SELECT job, sum(bytes) FROM history_output GROUP BY job ORDER BY job";
    let sums = rows(&mut client, sql, json!([]));
    assert_eq!(
        json!(sums),
        json!([
            [small["number"], 8],
            [large["number"], 900_000],
            [running["number"], 300_000]
        ])
    );
    // Around a byte, and since a moment.
    let sql = "SELECT min(offset), max(offset + bytes) FROM history_output
               WHERE job = ? AND offset > 500000 - 65536 AND offset <= 500000";
    let around = rows(&mut client, sql, json!([large["number"]]));
    let (from, to) = (around[0][0].as_u64(), around[0][1].as_u64());
    assert!(from <= Some(500_000) && to > Some(500_000), "{around:?}");
    for (moment, expected) in [("ago('1 hour')", 3), ("ago('-1 hour')", 0)] {
        let sql = format!("SELECT count(DISTINCT job) FROM history_output WHERE at > {moment}");
        assert_eq!(one(&mut client, &sql, json!([])), expected, "{moment}");
    }
    client.control(&running, "kill");
}

/// What a ring has dropped is not there; what it kept is.
#[test]
fn what_was_dropped_is_no_output() {
    let server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let output = json!({"max_bytes": 16 << 20, "when_full": "drop_oldest"});
    for end in ["exit 0", "sleep 1000"] {
        let shell = format!("yes 0123456 | head -c 40000000; {end}");
        let job = client.submit(json!({"shell": shell, "output": output}));
        let job = match end {
            "exit 0" => client.finished(&job),
            _ => {
                let until = json!({"bytes": 40_000_000});
                client.ok("job.wait", json!({"jobs": [job["id"]], "until": until}));
                client.get(&job)
            }
        };
        let sql = "SELECT sum(bytes) FROM history_output WHERE job = ?";
        let kept = one(&mut client, sql, json!([job["number"]]));
        let dropped = job["dropped_bytes"].as_u64().expect("bytes");
        assert!(dropped > 0);
        assert_eq!(kept.as_u64(), Some(40_000_000 - dropped), "{end}");
        if end != "exit 0" {
            client.control(&job, "kill");
        }
    }
}

/// A job that ends while a query runs takes its segments away.
#[test]
fn jobs_that_end_during_a_query_lose_nothing() {
    let server = Server::start();
    let (mut client, mut asking) = (server.connect(), server.connect());
    let jobs = vec![json!({"shell": "head -c 1000 /dev/zero; sleep 0.02"}); 300];
    client.ok("job.submit_many", json!({"jobs": jobs}));
    loop {
        let left = one(
            &mut client,
            "SELECT count(*) FROM history_jobs WHERE finished_at IS NULL",
            json!([]),
        );
        // Any job that has ended before the query begins is whole in it.
        let ended: Vec<u64> = rows(
            &mut client,
            "SELECT job FROM history_jobs WHERE finished_at IS NOT NULL",
            json!([]),
        )
        .iter()
        .map(|row| row[0].as_u64().expect("a number"))
        .collect();
        let sql = "SELECT job, sum(bytes) FROM history_output GROUP BY job";
        let sums = rows(&mut asking, sql, json!([]));
        let whole: BTreeSet<u64> = sums
            .iter()
            .filter(|row| row[1] == 1000)
            .filter_map(|row| row[0].as_u64())
            .collect();
        assert!(
            sums.iter().all(|row| row[1] == 1000),
            "never a part, never twice: {sums:?}"
        );
        let missing: Vec<_> = ended.iter().filter(|job| !whole.contains(job)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        if left == 0 {
            return;
        }
    }
}

#[test]
fn parameters_rows_and_values() {
    let server = Server::start();
    let mut client = server.connect();
    let answer = client.ok(
        "history.query",
        json!({
            "sql": "SELECT :a AS a, :b, :c, :d, 1e999, -7",
            "params": {"a": "x", "b": 1.5, "c": null, "d": {"base64": "AP8="}},
        }),
    );
    assert_eq!(
        answer["columns"],
        json!(["a", ":b", ":c", ":d", "1e999", "-7"])
    );
    assert_eq!(
        answer["rows"],
        json!([["x", 1.5, null, {"base64": "AP8="}, null, -7]])
    );
    assert_eq!(answer["truncated"], false);
    assert!(answer["elapsed_ms"].is_u64());
    let many =
        "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a LIMIT ?) SELECT x FROM a";
    let answer = client.ok(
        "history.query",
        json!({"sql": many, "params": [9], "max_rows": 9}),
    );
    assert_eq!(answer["truncated"], false);
    let answer = client.ok(
        "history.query",
        json!({"sql": many, "params": [10], "max_rows": 9}),
    );
    assert_eq!(
        (
            answer["rows"].as_array().map(Vec::len),
            &answer["truncated"]
        ),
        (Some(9), &json!(true))
    );
    let answer = client.ok("history.query", json!({"sql": many, "params": [20_000]}));
    assert_eq!(
        (
            answer["rows"].as_array().map(Vec::len),
            &answer["truncated"]
        ),
        (Some(10_000), &json!(true))
    );
    // As many rows as fit into a message.
    let long = format!(
        "SELECT hex(zeroblob(1000)) FROM ({})",
        many.replace('?', "?1")
    );
    let answer = client.ok("history.query", json!({"sql": long, "params": [5000]}));
    let told = answer["rows"].as_array().expect("rows").len();
    assert!(
        (300..600).contains(&told) && answer["truncated"] == true,
        "{told}"
    );
    let error = client.refused(
        LIMIT,
        "history.query",
        json!({"sql": "SELECT hex(zeroblob(1000000))"}),
    );
    assert_eq!(error["data"]["limit"], "message_bytes_max");
    for (sql, params) in [
        ("SELECT ?", json!([])),
        ("SELECT 1", json!([1])),
        ("SELECT :a", json!({"b": 1})),
        ("SELECT ?", json!([[1]])),
        ("SELEC 1", json!([])),
        ("SELECT nothing", json!([])),
        ("SELECT 1; SELECT 2", json!([])),
        ("", json!([])),
        ("-- nothing", json!([])),
    ] {
        client.refused(
            INVALID,
            "history.query",
            json!({"sql": sql, "params": params}),
        );
    }
}

/// Each is refused for its reason, at once, and leaves nothing behind.
#[test]
fn statements_that_would_do_more_than_read_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({
        "argv": ["true"], "env": {"TOKEN": "hunter2"}, "stdin": "hunter2",
    }));
    client.finished(&job);
    let list = || {
        let mut names: Vec<_> = fs::read_dir(server.data_dir())
            .expect("the data directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        names
    };
    let before = list();
    let digest = || sha256(&fs::read(server.data_dir().join("cc-executor.db")).expect("readable"));
    let bytes = digest();
    let path = server.data_dir().join("mine.db");
    let path = path.display();
    for (sql, rule) in [
        (format!("ATTACH '{path}' AS mine"), "read_only"),
        ("DETACH main".to_owned(), "read_only"),
        ("PRAGMA journal_mode = DELETE".to_owned(), "read_only"),
        ("PRAGMA writable_schema = 1".to_owned(), "read_only"),
        ("PRAGMA table_info(jobs)".to_owned(), "read_only"),
        ("BEGIN IMMEDIATE".to_owned(), "read_only"),
        ("SAVEPOINT a".to_owned(), "read_only"),
        ("DELETE FROM jobs".to_owned(), "read_only"),
        ("UPDATE history_jobs SET state = 'succeeded'".to_owned(), ""),
        (
            "INSERT INTO events (job) VALUES (1)".to_owned(),
            "read_only",
        ),
        ("DROP VIEW history_jobs".to_owned(), "read_only"),
        ("DROP TABLE temp.history_output".to_owned(), "read_only"),
        ("CREATE TEMP TABLE t (x)".to_owned(), "read_only"),
        ("CREATE TEMP VIEW v AS SELECT 1".to_owned(), "read_only"),
        (
            "CREATE VIRTUAL TABLE temp.f USING fts5(x)".to_owned(),
            "read_only",
        ),
        ("REINDEX".to_owned(), "read_only"),
        ("ANALYZE".to_owned(), "read_only"),
        ("SELECT load_extension('/tmp/x.so')".to_owned(), "functions"),
        ("SELECT readfile('/etc/passwd')".to_owned(), ""),
        ("SELECT writefile('/tmp/x', 'y')".to_owned(), ""),
        // Not compiled in.
        ("SELECT fts3_tokenizer('simple')".to_owned(), ""),
        (
            "SELECT * FROM pragma_database_list".to_owned(),
            "views_only",
        ),
        ("SELECT * FROM dbstat".to_owned(), "views_only"),
        ("SELECT * FROM sqlite_master".to_owned(), "views_only"),
        ("SELECT * FROM jobs".to_owned(), "views_only"),
        ("SELECT env FROM environments".to_owned(), "views_only"),
        ("SELECT data FROM inputs".to_owned(), "views_only"),
        ("SELECT count(*) FROM nodes".to_owned(), "views_only"),
        // A subquery may carry the name of a view.
        (
            "WITH history_jobs AS (SELECT env FROM environments) SELECT * FROM history_jobs"
                .to_owned(),
            "views_only",
        ),
        (
            "WITH history_jobs AS (SELECT stdin FROM jobs) SELECT * FROM history_jobs".to_owned(),
            "views_only",
        ),
        (
            "SELECT * FROM (SELECT hash_state FROM attempts) history_attempts".to_owned(),
            "views_only",
        ),
        // And what the view itself reads is not what everybody may read under its name.
        (
            "WITH history_jobs AS (SELECT hash FROM environments) SELECT hex(hash) FROM history_jobs"
                .to_owned(),
            "views_only",
        ),
        (
            "WITH \"history_jobs\"(a) AS MATERIALIZED (SELECT names FROM environments) \
             SELECT a FROM history_jobs"
                .to_owned(),
            "views_only",
        ),
        (
            "WITH RECURSIVE history_events AS (SELECT number AS n FROM jobs UNION ALL \
             SELECT n + 1 FROM history_events LIMIT 5) SELECT n FROM history_events"
                .to_owned(),
            "views_only",
        ),
        (
            "SELECT (WITH history_attempts AS (SELECT spec FROM jobs) \
             SELECT spec FROM history_attempts)"
                .to_owned(),
            "views_only",
        ),
        (
            "SELECT count(*) FROM (SELECT 1 FROM environments) AS history_jobs".to_owned(),
            "views_only",
        ),
        (
            "WITH history_jobs AS (SELECT count(*) FROM environments) SELECT * FROM history_jobs"
                .to_owned(),
            "views_only",
        ),
        ("SELECT key FROM digest_key".to_owned(), "views_only"),
        ("SELECT key FROM shim_key".to_owned(), "views_only"),
        ("SELECT count(*) FROM mcp_sessions".to_owned(), "views_only"),
        ("SELECT count(*) FROM mcp_answered".to_owned(), "views_only"),
        (
            "SELECT name FROM temp.sqlite_master".to_owned(),
            "views_only",
        ),
        (
            "CREATE VIRTUAL TABLE temp.r USING rtree(a, b, c)".to_owned(),
            "read_only",
        ),
    ] {
        let code = if rule.is_empty() { INVALID } else { FORBIDDEN };
        let error = client.refused(code, "history.query", json!({"sql": sql}));
        if code == FORBIDDEN {
            assert_eq!(error["data"]["rule"], rule, "{sql}");
        }
    }
    for sql in [
        "VACUUM",
        &format!("VACUUM INTO '{path}'"),
        &format!("VACUUM main INTO '{path}'"),
    ] {
        client.refused(INVALID, "history.query", json!({"sql": sql}));
    }
    assert_eq!((list(), digest()), (before, bytes));
    // Nothing of what a job may keep to itself is in any view.
    for view in [
        "history_jobs",
        "history_attempts",
        "history_events",
        "history_output",
    ] {
        let answer = client.ok(
            "history.query",
            json!({"sql": format!("SELECT * FROM {view}")}),
        );
        assert!(!answer.to_string().contains("hunter2"), "{view}");
    }
}

/// The most private memory that a process has had, bytes: its peak without the pages of files and
/// shared memory, which belong to everybody (how much of a debug build is in memory varies).
fn private_peak(pid: i32) -> u64 {
    let shared = memory(pid, "RssFile") + memory(pid, "RssShmem");
    memory(pid, "VmHWM").saturating_sub(shared)
}

/// What takes too long or too much is stopped, and the process is gone; the figures are printed.
#[test]
fn statements_that_take_too_much_are_stopped() {
    let server = Server::with(
        &[
            "--query-timeout-s",
            "2",
            "--query-memory-bytes",
            "134217728",
        ],
        &[],
    );
    let mut client = server.connect();
    let forever = "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a) ";
    for (name, sql, limits) in [
        (
            "an infinite CTE",
            format!("{forever} SELECT max(x) FROM a"),
            "query_timeout_s",
        ),
        (
            "one that keeps its rows",
            format!("{forever} SELECT x FROM a ORDER BY -x"),
            "query_memory_bytes query_timeout_s",
        ),
        (
            "distinct random values",
            format!("{forever} SELECT count(DISTINCT hex(randomblob(1000))) FROM a"),
            "query_memory_bytes query_timeout_s",
        ),
        (
            "a zeroblob bomb",
            "SELECT length(hex(zeroblob(2000000000)))".to_owned(),
            "query_value_bytes_max",
        ),
        (
            "blobs in a list",
            format!("{forever} SELECT length(group_concat(hex(zeroblob(500000)))) FROM a"),
            "query_value_bytes_max query_memory_bytes query_timeout_s",
        ),
        (
            "a sort of blobs",
            format!(
                "SELECT length(x) FROM (SELECT randomblob(1000000) x FROM ({forever} SELECT x FROM a LIMIT 10000) ORDER BY 1) LIMIT 1"
            ),
            "query_memory_bytes query_timeout_s",
        ),
        (
            "a quadratic trim",
            "SELECT trim(hex(zeroblob(7000000)), \
             substr(replace(hex(zeroblob(50000)), '0', '1'), 1, 99999) || '0')"
                .to_owned(),
            "query_timeout_s",
        ),
        (
            "a quadratic REGEXP",
            "SELECT hex(zeroblob(7000000)) REGEXP '(0*)*1'".to_owned(),
            "query_timeout_s",
        ),
        (
            "a long statement",
            format!("SELECT '{}'", "x".repeat(100_000)),
            "query_value_bytes_max",
        ),
    ] {
        let began = Instant::now();
        client.begin("history.query", json!({"sql": sql}));
        let mut most = 0;
        let reply = loop {
            for pid in queries_of(&server) {
                most = most.max(private_peak(pid));
            }
            if let Some(Frame::Json(reply)) = client.frame_within(Duration::from_millis(20)) {
                break reply;
            }
        };
        let took = began.elapsed();
        let error = &reply["error"];
        assert_eq!(error["code"], LIMIT, "{name}: {error}");
        let limit = error["data"]["limit"].as_str().expect("a limit").to_owned();
        assert!(limits.split(' ').any(|one| one == limit), "{name}: {error}");
        eprintln!(
            "{name}: {limit} after {:.2} s at {:.0} MB",
            took.as_secs_f64(),
            most as f64 / 1e6
        );
        assert!(most < 134_217_728 + (4 << 20), "{name}: {most} bytes");
        until_true("its process to be gone", || queries_of(&server).is_empty());
    }
    client.still_works();
}

/// SQLite's own `instr` would take minutes.
#[test]
fn an_instr_over_two_long_texts_is_answered() {
    let server = Server::start();
    let mut client = server.connect();
    let sql = "SELECT instr(hex(zeroblob(7000000)), hex(zeroblob(3500000)) || '1')";
    assert_eq!(one(&mut client, sql, json!([])), 0);
}

#[test]
fn a_printf_bomb_is_only_null() {
    let server = Server::start();
    let mut client = server.connect();
    let bomb = one(
        &mut client,
        "SELECT printf('%.*c', 2000000000, 'x')",
        json!([]),
    );
    assert_eq!(bomb, Value::Null);
}

#[test]
fn a_few_run_a_few_wait_and_the_rest_is_refused() {
    let args = [
        "--queries-max",
        "1",
        "--queries-waiting-max",
        "1",
        "--query-timeout-s",
        "60",
    ];
    let server = Server::with(&args, &[]);
    let mut client = server.connect();
    let forever =
        "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a) SELECT max(x) FROM a";
    for _ in 0..3 {
        client.begin("history.query", json!({"sql": forever}));
    }
    until_true("the first to run", || queries_of(&server).len() == 1);
    // They are taken in no order: one runs, one waits, and whichever is the third is refused.
    let Some(Frame::Json(reply)) = client.frame_within(Duration::from_secs(30)) else {
        panic!("no refusal");
    };
    let error = &reply["error"];
    assert_eq!(
        (&error["code"], &error["data"]["limit"]),
        (&json!(LIMIT), &json!("queries_waiting_max"))
    );
    client.still_works();
    // The session ends, and its queries with it.
    drop(client);
    until_true("no query to run", || queries_of(&server).is_empty());
    assert_eq!(one(&mut server.connect(), "SELECT 1", json!([])), 1);
}

/// Whoever asks may be killed, and the server too: no query outlives its time.
#[test]
fn a_query_ends_without_its_server() {
    let mut server = Server::with(&["--query-timeout-s", "1"], &[]);
    let mut client = server.connect();
    let forever =
        "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a) SELECT max(x) FROM a";
    client.begin("history.query", json!({"sql": forever}));
    let mut found = Vec::new();
    until_true("the query to run", || {
        found = queries_of(&server);
        !found.is_empty()
    });
    server.kill_9();
    until_true("the query to be gone", || {
        found.iter().all(|pid| !is_alive(*pid))
    });
    server.restart();
}

/// A long query leaves the processors to others: to jobs, and to the server's own work.
#[test]
fn a_long_query_gets_only_the_time_that_nobody_else_wants() {
    let server = Server::with(&["--query-timeout-s", "60"], &[]);
    let mut client = server.connect();
    let forever =
        "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a) SELECT max(x) FROM a";
    client.begin("history.query", json!({"sql": forever}));
    until_true("the query to be one of the idle class", || {
        let pids = queries_of(&server);
        pids.iter()
            .any(|pid| scheduling_policy(*pid) == Some(libc::SCHED_IDLE))
    });
}

/// The policy of a process: field 41 of its line (proc_pid_stat(5)).
fn scheduling_policy(pid: i32) -> Option<i32> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = line.rsplit_once(')')?;
    fields.split_whitespace().nth(41 - 3)?.parse().ok()
}

/// Each of these questions goes through an index.
#[test]
fn common_questions_have_an_index() {
    let server = Server::start();
    let mut client = server.connect();
    for (sql, index) in [
        (
            "SELECT job FROM history_jobs WHERE finished_at > ago('1 day') ORDER BY finished_at",
            "jobs_finished",
        ),
        (
            "SELECT * FROM history_jobs ORDER BY finished_at DESC LIMIT 20",
            "jobs_finished",
        ),
        (
            "SELECT job FROM history_jobs WHERE exit_code = 137",
            "jobs_exit_code",
        ),
        (
            "SELECT job FROM history_jobs WHERE state = 'failed' ORDER BY job DESC",
            "jobs_state",
        ),
        (
            "SELECT * FROM history_jobs WHERE id = 'x'",
            "sqlite_autoindex_jobs_1",
        ),
        ("SELECT * FROM history_jobs WHERE job = 5", "PRIMARY KEY"),
        (
            "SELECT * FROM history_jobs WHERE submitted_at >= ago('1 day')",
            "jobs_submitted_text",
        ),
        (
            "SELECT * FROM history_jobs ORDER BY started_at DESC LIMIT 9",
            "jobs_started_text",
        ),
        (
            "SELECT * FROM history_jobs WHERE name = 'a' ORDER BY number DESC",
            "jobs_name",
        ),
        (
            "SELECT * FROM history_jobs WHERE queue = 'a' ORDER BY number DESC",
            "jobs_queue",
        ),
        (
            "SELECT * FROM history_jobs WHERE reason = 'timeout' ORDER BY number",
            "jobs_reason",
        ),
        (
            "SELECT * FROM history_jobs WHERE signal = 'SIGKILL' ORDER BY number",
            "jobs_signal",
        ),
        (
            "SELECT * FROM history_jobs WHERE retry_of = 'x'",
            "jobs_retry_of",
        ),
        (
            "SELECT * FROM history_jobs WHERE idempotency_key = 'x'",
            "jobs_idempotency",
        ),
        (
            "SELECT * FROM history_jobs WHERE duration_s > 100",
            "jobs_duration",
        ),
        (
            "SELECT * FROM history_jobs ORDER BY waited_s DESC LIMIT 9",
            "jobs_waited",
        ),
        (
            "SELECT * FROM history_jobs ORDER BY output_bytes DESC LIMIT 9",
            "jobs_output_bytes",
        ),
        ("SELECT max(duration_s) FROM history_jobs", "jobs_duration"),
        (
            "SELECT * FROM history_jobs WHERE state IN ('failed', 'cancelled') \
             AND finished_at >= ago('1 day')",
            "jobs_ended",
        ),
        (
            "SELECT * FROM history_jobs WHERE state = 'failed' ORDER BY finished_at DESC",
            "jobs_ended",
        ),
        (
            "SELECT * FROM history_events WHERE at >= ago('1 hour')",
            "events_at",
        ),
        (
            "SELECT * FROM history_attempts WHERE claimed_at >= ago('1 hour')",
            "attempts_claimed_text",
        ),
        (
            "SELECT * FROM history_attempts WHERE started_at >= ago('1 hour')",
            "attempts_started_text",
        ),
        (
            "SELECT * FROM history_attempts ORDER BY ended_at DESC LIMIT 9",
            "attempts_ended_text",
        ),
        (
            "SELECT * FROM history_attempts WHERE state = 'lost'",
            "attempts_lost",
        ),
        (
            "SELECT text FROM history_output WHERE at BETWEEN '2026-11-22' AND '2026-11-23'",
            "INDEX 1:tu",
        ),
        ("SELECT * FROM history_events WHERE job = 5", "events_job"),
        (
            "SELECT * FROM history_attempts WHERE job = 5",
            "PRIMARY KEY",
        ),
        (
            "SELECT text FROM history_output WHERE job = 5 AND offset <= 7",
            "INDEX 1:j<",
        ),
        (
            "SELECT o.text FROM history_jobs j JOIN history_output o ON o.job = j.job WHERE j.exit_code = 1",
            "INDEX 1:j",
        ),
        // A job is looked up for each piece of the hour, and not an hour for each job.
        (
            "SELECT o.job, j.name FROM history_output o JOIN history_jobs j ON j.number = o.job \
             WHERE o.at >= ago('1 hour')",
            "INDEX 0:t",
        ),
        (
            "SELECT DISTINCT job FROM history_output WHERE at > ago('1 hour')",
            "INDEX 0:t",
        ),
    ] {
        let plan = rows(&mut client, &format!("EXPLAIN QUERY PLAN {sql}"), json!([]));
        let plan = json!(plan).to_string();
        assert!(plan.contains(index), "{sql}: {plan}");
    }
}

/// A plain `sqlite3` that may only read sees the same, and the output that is stored in rows.
#[test]
fn a_plain_sqlite3_reads_the_views() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"shell": "echo hello; exit 4"}));
    client.finished(&job);
    let file = server.data_dir().join("cc-executor.db");
    let ask = |sql: &str| {
        let asked = Command::new("sqlite3")
            .arg("-readonly")
            .arg(&file)
            .arg(sql)
            .output();
        let asked = asked.expect("sqlite3 is installed (scripts/test does it)");
        assert!(
            asked.status.success(),
            "{}",
            String::from_utf8_lossy(&asked.stderr)
        );
        String::from_utf8(asked.stdout).expect("text")
    };
    assert_eq!(
        ask("SELECT state, exit_code, text FROM history_jobs JOIN history_output USING (job)"),
        "failed|4|hello\n\n"
    );
    assert_eq!(ask("SELECT count(*) FROM history_events"), "3\n");
    assert_eq!(ask("SELECT exit_code FROM history_attempts"), "4\n");
    for view in [
        "history_jobs",
        "history_attempts",
        "history_events",
        "history_output",
    ] {
        let sql = format!("SELECT * FROM {view} LIMIT 0");
        let answer = client.ok("history.query", json!({"sql": sql}));
        let columns = ask(&format!("SELECT name FROM pragma_table_info('{view}')"));
        let columns: Vec<&str> = columns.lines().collect();
        assert_eq!(answer["columns"], json!(columns), "{view}");
    }
}

/// A reader that never ends keeps the write-ahead log from starting anew only as long as it may run.
#[test]
fn slow_queries_do_not_make_the_log_grow() {
    let server = Server::with(&["--query-timeout-s", "1"], &[]);
    let (mut writing, mut asking) = (server.connect(), server.connect());
    let wal = server.data_dir().join("cc-executor.db-wal");
    let slow = thread::spawn(move || {
        let sql = "WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a)
                   SELECT max(x + (SELECT count(*) FROM history_jobs)) FROM a";
        for _ in 0..3 {
            asking.refused(LIMIT, "history.query", json!({"sql": sql}));
        }
    });
    let mut most = 0;
    while !slow.is_finished() {
        let jobs = vec![json!({"argv": ["true"], "queue": "default"}); 100];
        writing.ok("job.submit_many", json!({"jobs": jobs}));
        most = most.max(fs::metadata(&wal).map_or(0, |meta| meta.len()));
    }
    slow.join().expect("no panic");
    let list = rows(&mut writing, "SELECT count(*) FROM history_jobs", json!([]));
    eprintln!(
        "the log had at most {:.1} MB while {} jobs came",
        most as f64 / 1e6,
        list[0][0]
    );
    assert!(most < 256 << 20, "{most} bytes");
}
