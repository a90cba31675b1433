//! `sql` as a shell calls it: where the query comes from, its values, what it prints.

use std::fs::File;

use serde_json::{Value, json};

use crate::harness::{Finished, Server};

fn sql(server: &Server, words: &[&str]) -> Finished {
    server.cli("sql").args(words).run()
}

/// A server whose history has a job that printed and one that failed.
fn with_jobs() -> Server {
    let server = Server::start();
    let mut client = server.connect();
    for job in [
        json!({"shell": "printf 'a\\nb\\0\\377'", "name": "first"}),
        json!({"shell": "exit 137", "name": "a, \"b\""}),
    ] {
        let job = client.submit(job);
        client.finished(&job);
    }
    server
}

#[test]
fn a_query_prints_a_table_json_or_csv() {
    let server = with_jobs();
    let query = "select number, name, exit_code, signal from history_jobs order by number";
    let table = sql(&server, &[query]);
    assert_eq!(table.code(), 0, "{}", table.err());
    let expected = "number  name    exit_code  signal\n     1  first           0  NULL\n     2  a, \"b\"        137  NULL\n";
    assert_eq!(table.out(), expected);
    assert_eq!(table.err(), "");
    let rows = json!([
        {"number": 1, "name": "first", "exit_code": 0, "signal": null},
        {"number": 2, "name": "a, \"b\"", "exit_code": 137, "signal": null},
    ]);
    for words in [&["--json"][..], &["--format", "json"]] {
        let done = server.cli("sql").args([query]).args(words).run();
        assert_eq!(done.json(), rows);
        assert!(
            done.out().starts_with("[{\"number\":1,\"name\":"),
            "{}",
            done.out()
        );
    }
    let csv = sql(&server, &[query, "--format", "csv"]);
    assert_eq!(
        csv.out(),
        "number,name,exit_code,signal\n1,first,0,\n2,\"a, \"\"b\"\"\",137,\n"
    );
}

#[test]
fn bytes_are_bytes_in_every_format() {
    let server = with_jobs();
    let query = "select data from history_output where job = 1";
    let base64 = "YQpiAP8=";
    assert_eq!(sql(&server, &[query]).out(), "data\nx'610a6200ff'\n");
    assert_eq!(
        sql(&server, &[query, "--json"]).json(),
        json!([{"data": {"base64": base64}}])
    );
    let csv = sql(&server, &[query, "--format", "csv"]).out();
    assert_eq!(csv, format!("data\n{base64}\n"));
    let value = format!("{{\"base64\":\"{base64}\"}}");
    let query = "select job from history_output where data = ?";
    assert_eq!(
        sql(&server, &[query, "--param", &value, "--json"]).json(),
        json!([{"job": 1}])
    );
}

#[test]
fn values_are_given_by_position_and_by_name() {
    let server = Server::start();
    let types = "select typeof(?1) a, typeof(?2) b, typeof(?3) c, typeof(?4) d, ?5 e";
    let words = [
        types, "--json", "--param", "137", "--param", "-0.5", "--param", "\"137\"",
    ];
    let words = [&words[..], &["--param", "null", "--param", "x y"]].concat();
    assert_eq!(
        sql(&server, &words).json(),
        json!([{"a": "integer", "b": "real", "c": "text", "d": "null", "e": "x y"}])
    );
    let words = [
        "select :a as a, @b as b",
        "--named",
        "a=1",
        "--named",
        "@b=x=y",
        "--json",
    ];
    assert_eq!(sql(&server, &words).json(), json!([{"a": 1, "b": "x=y"}]));
}

#[test]
fn a_query_comes_from_stdin_where_there_is_none() {
    let server = Server::start();
    let file = server.scratch("query.sql");
    std::fs::write(&file, "-- a question\nselect 42 as answer;\n").expect("written");
    for words in [&["-", "--json"][..], &["--json"]] {
        let stdin = File::open(&file).expect("a file");
        let done = server.cli("sql").args(words).stdin(stdin).run();
        assert_eq!(done.json(), json!([{"answer": 42}]));
    }
    let empty = sql(&server, &[]);
    assert_eq!(empty.code(), 1);
    assert_eq!(empty.err().lines().count(), 1, "{}", empty.err());
    assert!(empty.err().contains("no query"), "{}", empty.err());
}

#[test]
fn columns_of_one_name_lose_no_value() {
    let server = Server::start();
    let done = sql(&server, &["select 1 as a, 2 as a, 3 as b", "--json"]);
    assert_eq!(done.json(), json!([{"a": 1, "a:2": 2, "b": 3}]));
}

#[test]
fn what_is_left_out_is_said_on_stderr() {
    let server = Server::start();
    let query =
        "with recursive n(i) as (select 1 union all select i + 1 from n limit 50) select i from n";
    let cut = sql(&server, &[query, "--max-rows", "3", "--json"]);
    assert_eq!(cut.json(), json!([{"i": 1}, {"i": 2}, {"i": 3}]));
    assert_eq!(cut.err().lines().count(), 1, "{}", cut.err());
    assert!(cut.err().contains("first 3 rows"), "{}", cut.err());
    let whole = sql(&server, &[query, "--max-rows", "50", "--json"]);
    assert_eq!(whole.json().as_array().map(Vec::len), Some(50));
    assert_eq!(whole.err(), "");
}

#[test]
fn mistakes_are_one_line_that_names_them() {
    let server = Server::start();
    for (words, expected) in [
        (&["selec 1"][..], "syntax error"),
        (&["select missing from history_jobs"], "no such column"),
        (&["select 1; select 2"], ""),
        (&["drop table jobs"], "not allowed"),
        (&["attach 'x' as y"], "not allowed"),
        (&["select load_extension('x')"], "load_extension"),
        (&["select ?1, ?2", "--param", "1"], ""),
        (&["select :a", "--named", "b=1"], ""),
        (&["select 1", "--named", "a=1", "--named", "a=2"], "twice"),
    ] {
        let done = sql(&server, words);
        assert_eq!(done.code(), 1, "{words:?}: {}", done.out());
        assert_eq!(done.out(), "", "{words:?}");
        assert_eq!(done.err().lines().count(), 1, "{words:?}: {}", done.err());
        assert!(done.err().contains(expected), "{words:?}: {}", done.err());
    }
    let left: Vec<_> = ["x", "y"]
        .iter()
        .filter(|name| server.scratch(name).exists())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let server = Server::start();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let query = "with recursive n(i) as (select 1 union all select i + 1 from n limit 9000) select i from n";
    let status = std::process::Command::new(crate::harness::BINARY)
        .args(["sql", "--data-dir"])
        .arg(server.data_dir())
        .arg(query)
        .stdin(std::process::Stdio::null())
        .stdout(writer)
        .output()
        .expect("the binary starts");
    assert_eq!(status.status.code(), Some(141));
    assert_eq!(status.stderr, b"");
}

#[test]
fn without_a_server_one_is_started_for_the_question() {
    let server = Server::stopped(&[], &[]);
    let done = server
        .cli("sql")
        .args(["select count(*) as n from history_jobs", "--json"])
        .run();
    assert_eq!(done.json(), json!([{"n": 0}]));
    let stopped = server.cli("stop").run();
    assert_eq!(stopped.code(), 0, "{}", stopped.err());
}

#[test]
fn the_views_that_the_prompt_names_are_those_of_the_file() {
    let server = Server::start();
    let words = ["select 1", "--json"];
    assert_eq!(sql(&server, &words).json(), json!([{"1": 1}]));
    let database = server.data_dir().join("cc-executor.db");
    let listed = std::process::Command::new("sqlite3")
        .arg("-readonly")
        .arg(database)
        .arg("select json_group_array(name) from sqlite_master where type = 'view'")
        .output()
        .expect("sqlite3 is installed");
    let views: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let mut views: Vec<_> = views
        .as_array()
        .expect("names")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    views.sort_unstable();
    assert_eq!(
        views,
        [
            "history_attempts",
            "history_events",
            "history_jobs",
            "history_output"
        ]
    );
    for view in views {
        let done = sql(&server, &[&format!("select * from {view} limit 0")]);
        assert_eq!(done.code(), 0, "{}", done.err());
        assert!(include_str!("../../src/cli/sql/names.rs").contains(&format!("\"{view}\"")));
    }
}
