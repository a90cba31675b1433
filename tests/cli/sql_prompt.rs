//! The prompt of `sql`, on a terminal of its own: keys and what is shown.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::harness::{Server, Terminal, children, until_true};

/// What stands before the cursor.
const PROMPT: &str = "sql> ";
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";
const ENTER: &str = "\r";
const TAB: &str = "\t";
const UP: &str = "\u{1b}[A";

/// A query that ends only when somebody ends it.
const ENDLESS: &str =
    "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n;";

fn prompt(server: &Server) -> Terminal {
    let mut terminal = call(server, &[]);
    terminal.sees(PROMPT);
    terminal
}

fn call(server: &Server, words: &[&str]) -> Terminal {
    // A pager would wait for keys.
    Terminal::call(&server.data_dir(), "sql", words, &[("PAGER", "cat")])
}

/// The processes that run queries.
fn queries(server: &Server) -> Vec<i32> {
    let is_query = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"query")
    };
    let mut found = children(server.pid());
    found.retain(is_query);
    found
}

#[test]
fn statements_of_several_lines_are_asked_and_control_d_leaves() {
    let server = Server::start();
    let mut terminal = prompt(&server);
    terminal.keys("select 6 * 7 as answer,\r 'a;b' as text;\r");
    let shown = terminal.sees("(1 row)");
    assert!(shown.contains("answer  text"), "{shown}");
    assert!(shown.contains("    42  a;b"), "{shown}");
    terminal.sees(PROMPT);
    terminal.keys("select 1 as first; select 2 as second;\r");
    let shown = terminal.sees("(1 row)") + &terminal.sees("(1 row)");
    assert!(shown.contains("first\r\n"), "{shown}");
    assert!(shown.contains("second\r\n"), "{shown}");
    terminal.sees(PROMPT);
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn commands_describe_and_set_the_format() {
    let server = Server::start();
    let mut terminal = prompt(&server);
    terminal.keys("\\d\r");
    let shown = terminal.sees(PROMPT);
    for view in [
        "history_jobs",
        "history_attempts",
        "history_events",
        "history_output",
    ] {
        assert!(shown.contains(view), "{shown}");
    }
    terminal.keys("\\d history_output\r");
    let shown = terminal.sees(PROMPT);
    assert!(shown.contains("offset\r\n"), "{shown}");
    for (keys, expected) in [
        ("\\format csv\rselect 1 as a, 'x' as b;\r", "a,b\r\n1,x\r\n"),
        ("\\format json\rselect 1 as a;\r", "[{\"a\":1}]\r\n"),
        ("\\timing\rselect 2 as a;\r", " ms)\r\n"),
        ("\\nonsense\r", "\\? lists them"),
        ("\\d nothing\r", "there is no view nothing"),
        ("\\?\r", "Ctrl-C ends a running query"),
    ] {
        terminal.keys(keys);
        terminal.sees(expected);
        terminal.sees(PROMPT);
    }
    terminal.keys("\\q\r");
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn a_mistake_is_one_line_and_the_prompt_goes_on() {
    let server = Server::start();
    let mut terminal = prompt(&server);
    terminal.keys("selec 1; select 2;\r");
    let shown = terminal.sees(PROMPT);
    assert!(shown.contains("cc-executor: "), "{shown}");
    assert!(shown.contains("syntax error"), "{shown}");
    assert!(
        !shown.contains("(1 row)"),
        "what follows is not asked: {shown}"
    );
    terminal.keys("drop view history_jobs;\r");
    let shown = terminal.sees(PROMPT);
    assert!(shown.contains("cc-executor: "), "{shown}");
    terminal.keys("select 3 as three;\r");
    terminal.sees("three");
    terminal.sees(PROMPT);
    terminal.keys("quit\r");
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn control_c_clears_the_line_and_ends_a_query_but_never_the_prompt() {
    // It does not end by itself before the test does.
    let server = Server::with(&[], &[("CC_EXECUTOR_QUERY_TIMEOUT_S", "600")]);
    let mut terminal = prompt(&server);
    terminal.keys("select 'half");
    terminal.sees("half");
    terminal.keys(CTRL_C);
    terminal.sees(PROMPT);
    terminal.keys(ENDLESS);
    terminal.keys(ENTER);
    until_true("the query to run", || !queries(&server).is_empty());
    terminal.keys(CTRL_C);
    terminal.sees("the query was ended");
    terminal.sees(PROMPT);
    until_true("the query to be gone", || queries(&server).is_empty());
    terminal.keys("select 4 as four;\r");
    terminal.sees("four");
    terminal.sees(PROMPT);
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn names_and_words_are_completed() {
    let server = Server::start();
    let mut terminal = prompt(&server);
    for (typed, expected) in [
        ("select count(*) from history_e", "history_events"),
        ("select exit_c", "exit_code"),
        ("select group_c", "group_concat("),
    ] {
        terminal.keys(typed);
        terminal.sees(typed);
        terminal.keys(TAB);
        let rest = &expected[typed.split(' ').next_back().expect("a word").len()..];
        terminal.sees(rest);
        terminal.keys(CTRL_C);
        terminal.sees(PROMPT);
    }
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn the_history_comes_back_and_is_ours_alone() {
    let server = Server::start();
    let mut terminal = prompt(&server);
    terminal.keys("select 5 as remembered;\r");
    terminal.sees("(1 row)");
    terminal.sees(PROMPT);
    // A kill forgets nothing.
    drop(terminal);
    let file = server.data_dir().join("sql_history");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut terminal = prompt(&server);
    terminal.keys(UP);
    terminal.sees("remembered");
    terminal.keys(ENTER);
    terminal.sees("(1 row)");
    terminal.sees(PROMPT);
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn the_prompt_survives_a_kill_of_the_server() {
    let mut server = Server::start();
    let mut terminal = prompt(&server);
    server.kill_9();
    server.restart();
    terminal.keys("select 6 as still_here;\r");
    terminal.sees("still_here");
    terminal.sees("(1 row)");
    terminal.sees(PROMPT);
    terminal.keys(CTRL_D);
    assert_eq!(terminal.ends().0, 0);
}

#[test]
fn a_terminal_gets_lines_that_fit_and_nothing_that_it_acts_on() {
    let server = Server::start();
    let mut client = server.connect();
    let name = "evil\u{1b}[2J\u{7}".repeat(20);
    let job = client.submit(json!({"argv": ["true"], "name": name}));
    client.finished(&job);
    for format in ["table", "json", "csv"] {
        let words = [
            "select name, 1 as one from history_jobs",
            "--format",
            format,
        ];
        let (code, shown) = call(&server, &words).ends();
        assert_eq!(code, 0, "{shown}");
        assert!(shown.contains("evil"), "{shown}");
        let acts = |c: char| c.is_control() && !['\r', '\n'].contains(&c);
        assert!(!shown.contains(acts), "{shown:?}");
    }
    let (_, shown) = call(&server, &["select name, 1 as one from history_jobs"]).ends();
    assert!(shown.contains('…'), "{shown}");
    assert!(
        shown.lines().all(|line| line.chars().count() <= 100),
        "{shown}"
    );
}

#[test]
fn a_pager_may_be_missing_or_left_early() {
    let server = Server::start();
    let data_dir = server.data_dir();
    let long = "with recursive n(i) as (select 1 union all select i + 1 from n limit 9000) \
                select i as number_of from n";
    let with = |pager: &str, words: &[&str]| {
        Terminal::call(&data_dir, "sql", words, &[("PAGER", pager)]).ends()
    };
    let (code, shown) = with("no-such-pager -x", &[long]);
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("9000") && !shown.contains("not found"),
        "{shown}"
    );
    let (code, shown) = with("head -n 1", &[long]);
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("number_of") && !shown.contains("9000"),
        "{shown}"
    );
    let (code, shown) = with("head -n 1", &[long, "--no-pager"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("9000"), "{shown}");
}
