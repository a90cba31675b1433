//! docs/protocol.md against the server: its examples run, and its tables have what the server has, no more and no less.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
};

use serde_json::{Value, json};

use crate::harness::{Client, Frame, Server};

fn page() -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md"));
    page.expect("the page")
}

/// The code blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let page = page();
    let begin = format!("```{language}\n");
    let blocks = page.split(&begin).skip(1);
    let blocks: Vec<String> = blocks
        .map(|rest| rest.split("```").next().expect("a block").to_owned())
        .collect();
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

/// The cells of a section's table, below its heading row.
fn table(section: &str, heading: &str) -> Vec<Vec<String>> {
    let page = page();
    let lines = page.lines().skip_while(|line| *line != section);
    let rows = lines.skip_while(|line| *line != heading).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .map(|cells: Vec<String>| cells[1..cells.len() - 1].to_vec())
        .collect();
    assert!(!rows.is_empty(), "no table below {heading}");
    rows
}

/// What stands between backticks.
fn code_spans(text: &str) -> Vec<String> {
    let parts = text.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// An example as JSON: the marks for what is left out are taken away.
fn example(text: &str) -> Value {
    let text = text
        .replace(",…}", "}")
        .replace("{…}", "{}")
        .replace("[…]", "[]");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether a message is as the example says. Ids and moments differ each time; a text with … is a beginning.
fn agrees(key: &str, example: &Value, seen: &Value) -> bool {
    match (example, seen) {
        (Value::Object(example), Value::Object(seen)) => example
            .iter()
            .all(|(key, value)| seen.get(key).is_some_and(|other| agrees(key, value, other))),
        (Value::String(_), Value::String(seen)) if key == "at" => {
            seen.ends_with('Z') && seen.len() == "2026-11-22T12:27:13.086381Z".len()
        }
        (Value::String(_), Value::String(_)) if ["id", "job", "session_id"].contains(&key) => true,
        (Value::String(example), Value::String(seen)) => match example.split_once('…') {
            Some((begin, _)) => seen.starts_with(begin),
            None => example == seen,
        },
        _ => example == seen,
    }
}

/// Waits for the message of an example; others, which may come in between, are kept for later.
#[track_caller]
fn expect(client: &mut Client, kept: &mut VecDeque<Value>, wanted: &Value) {
    if let Some(at) = kept.iter().position(|seen| agrees("", wanted, seen)) {
        kept.remove(at);
        return;
    }
    loop {
        let Some(Frame::Json(seen)) = client.frame_within(crate::harness::CEILING) else {
            panic!("{wanted} did not come, but {kept:?}")
        };
        if agrees("", wanted, &seen) {
            return;
        }
        kept.push_back(seen);
    }
}

#[test]
fn the_session_runs_as_it_is_shown() {
    let server = Server::start();
    let connect = || Client::tcp(server.listen(), Some(&server.token()));
    // The job starts only when its tail has begun.
    let mut operator = connect();
    operator.ok("queue.set", json!({"queue": "default", "paused": true}));
    let session = blocks("text").remove(0);
    let (mut client, mut kept) = (None, VecDeque::new());
    let mut messages = 0;
    for line in session.lines() {
        let greets = line.contains("server.hello");
        match (line.get(..2), &mut client) {
            (Some("< "), _) if greets => {
                let greeted = client.insert(connect());
                kept.clear();
                let wanted = example(&line[2..]);
                assert!(agrees("", &wanted, &greeted.hello), "{}", greeted.hello);
            }
            (Some("> "), Some(client)) => client.send(&line[2..]),
            (Some("< "), Some(client)) => {
                expect(client, &mut kept, &example(&line[2..]));
                if line.contains("job.caught_up") {
                    operator.ok("queue.set", json!({"queue": "default", "paused": false}));
                }
            }
            _ => continue,
        }
        messages += 1;
    }
    assert!(messages > 15, "{messages}");
}

/// Whether what the server sent has every key of the example, with a value of the same type.
fn has_shape(example: &Value, seen: &Value) -> bool {
    match (example, seen) {
        (Value::Object(example), Value::Object(seen)) => example
            .iter()
            .all(|(key, value)| seen.get(key).is_some_and(|seen| has_shape(value, seen))),
        (Value::Array(example), Value::Array(seen)) => match (example.first(), seen.first()) {
            (Some(example), Some(seen)) => has_shape(example, seen),
            _ => true,
        },
        // A digest is null where bytes are missing, an error where there is none.
        (_, Value::Null) | (Value::Null, _) => true,
        _ => std::mem::discriminant(example) == std::mem::discriminant(seen),
    }
}

/// The 42 jobs that the examples are about; the last one has all that they look for.
fn submit_what_the_examples_name(client: &mut Client) {
    let last =
        r#"printf '%0127d>>> \nok\n' 0; printf 'error[E0308]: x\nerror[E0309]: y\n' >&2; exit 101"#;
    let mut jobs = vec![json!({"argv": ["/bin/true"], "queue": "builds"}); 41];
    jobs.push(json!({"shell": last, "queue": "builds"}));
    client.ok("queue.set", json!({"queue": "builds"}));
    client.ok("job.submit_many", json!({"jobs": jobs}));
    let all: Vec<u64> = (1..=42).collect();
    let waited = client.ok("job.wait", json!({"jobs": all, "mode": "all"}));
    assert_eq!(waited["met"], true, "{waited}");
}

#[test]
fn the_other_examples_run() {
    let server = Server::start();
    let mut client = server.connect();
    submit_what_the_examples_name(&mut client);
    let mut replies = 0;
    for block in blocks("json") {
        // A value may have several lines, and a block several values.
        let lines: Vec<&str> = block.lines().collect();
        let values = match lines.iter().all(|line| line.starts_with('{')) {
            true => lines.iter().map(|line| example(line)).collect(),
            false => vec![example(&block)],
        };
        let mut asked = None;
        for value in values {
            if value["method"] == "server.hello" {
                assert!(has_shape(&value, &client.hello), "{}", client.hello);
            } else if value.get("method").is_some() {
                client.send(value.to_string());
                let reply = client.reply_to(&value["id"]);
                asked = Some(reply.unwrap_or_else(|error| panic!("{value}: {error}")));
            } else if let Some(result) = value.get("result") {
                let seen = asked.take().expect("a reply follows its request");
                assert!(
                    has_shape(result, &seen),
                    "{result} is shown, {seen} is sent"
                );
                replies += 1;
            }
        }
    }
    assert!(replies >= 4, "{replies}");
}

/// The names of parameters in a signature such as `{job, from? (0) or last_bytes}`.
fn parameters(signature: &str) -> BTreeSet<String> {
    let (mut plain, mut depth, mut quoted) = (String::new(), 0, false);
    for letter in signature.chars() {
        quoted ^= letter == '"';
        depth -= i32::from(matches!(letter, '}' | ']' | ')'));
        let is_name = letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if depth == 1 && !quoted {
            plain.push(if is_name { letter } else { ' ' });
        }
        depth += i32::from(matches!(letter, '{' | '[' | '('));
    }
    let names = plain.split_whitespace();
    let names = names.filter(|name| !["or", "and"].contains(name));
    names.map(str::to_owned).collect()
}

/// The keys that the server says that a method knows.
fn known_keys(client: &mut Client, method: &str) -> BTreeSet<String> {
    let error = client.refused(-32602, method, json!({"no such key": 1}));
    let message = error["message"].as_str().expect("a message");
    match message.split_once("known keys are ") {
        Some((_, keys)) => keys.split(", ").map(str::to_owned).collect(),
        None => {
            assert!(message.ends_with("there are no parameters"), "{message}");
            BTreeSet::new()
        }
    }
}

#[test]
fn every_method_has_the_parameters_that_are_told() {
    let server = Server::start();
    let mut client = server.connect();
    for row in table("## Methods", "| method | parameters → result |") {
        let method = row[0].trim_matches('`').to_owned();
        let (signature, _) = row[1].split_once('→').expect("a result");
        // The keys of a new job have a table of their own.
        if method == "job.submit" {
            continue;
        }
        let told: BTreeSet<String> = code_spans(signature)
            .iter()
            .filter(|span| span.starts_with('{'))
            .flat_map(|span| parameters(span))
            .collect();
        assert_eq!(told, known_keys(&mut client, &method), "{method}");
    }
}

/// The names in the first column of a table of keys.
fn keys(section: &str, heading: &str) -> BTreeSet<String> {
    let rows = table(section, heading).into_iter();
    rows.flat_map(|row| code_spans(&row[0])).collect()
}

#[test]
fn a_job_has_the_keys_that_are_told() {
    let server = Server::start();
    let mut client = server.connect();
    let new_job = keys("## NewJob", "| key | type | default |");
    let told = keys("## Job", "| key | meaning |");
    let job = client.submit(json!({"argv": ["/bin/true"], "env": {"A": "b"}}));
    let job = client.finished(&job);
    let has: BTreeSet<String> = job.as_object().expect("a job").keys().cloned().collect();
    let of_both: BTreeSet<String> = new_job.union(&told).cloned().collect();
    let untold: Vec<_> = has
        .difference(&of_both)
        .filter(|key| !["env_names", "stdin_bytes"].contains(&key.as_str()))
        .collect();
    assert!(untold.is_empty(), "the page does not have {untold:?}");
    // There is no policy here.
    let missing: Vec<_> = told
        .difference(&has)
        .filter(|key| *key != "policy")
        .collect();
    assert!(missing.is_empty(), "a job does not have {missing:?}");
    // Each key of a new job is known: with null it is the same as left out.
    for key in &new_job {
        let mut job = json!({"argv": ["/bin/true"]});
        job.as_object_mut()
            .expect("an object")
            .entry(key)
            .or_insert(Value::Null);
        let submitted = client.call("job.submit", job);
        assert!(submitted.is_ok(), "{key}: {submitted:?}");
    }
}

/// The numbers in a cell of the table of limits, in the unit of the limit: bytes, or as they are.
fn numbers(cell: &str) -> Vec<u64> {
    let words: Vec<String> = cell
        .split([' ', ';', ':'])
        .map(|word| word.trim_end_matches(',').replace(',', ""))
        .collect();
    let unit = |at: usize| match words.get(at).map(String::as_str) {
        Some("KiB") => 1 << 10,
        Some("MiB") => 1 << 20,
        Some("GiB") => 1 << 30,
        _ => 1,
    };
    let numbers = words.iter().enumerate();
    numbers
        .filter_map(|(at, word)| Some(word.parse::<u64>().ok()? * unit(at + 1)))
        .collect()
}

#[test]
fn the_limits_have_the_defaults_that_are_told() {
    let server = Server::start();
    let limits = server.connect().ok("server.info", json!({}))["limits"].clone();
    for row in table("## Limits", "| limit | default | beyond it |") {
        let told = numbers(&row[1]);
        // Numbers that explain may stand between the defaults, which have the order of the names.
        let mut left = told.iter();
        for name in code_spans(&row[0]) {
            let limit = limits[&name].as_u64();
            let limit = limit.unwrap_or_else(|| panic!("the server has no limit {name}"));
            assert!(
                left.any(|number| *number == limit),
                "{name}: {limit} {told:?}"
            );
        }
    }
}

#[test]
fn limits_that_depend_on_the_disk_are_told_as_they_hold() {
    let server = Server::start();
    let limits = server.connect().ok("server.info", json!({}))["limits"].clone();
    for (name, most) in [("free_bytes_min", 256 << 20), ("ballast_bytes", 8 << 20)] {
        let bytes = limits[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {limits}"));
        assert!(bytes > 0 && bytes <= most, "{name}: {bytes}");
    }
    let set = ["--free-bytes-min", "1048576", "--ballast-bytes", "65536"];
    let server = Server::with(&set, &[]);
    let limits = server.connect().ok("server.info", json!({}))["limits"].clone();
    assert_eq!(limits["free_bytes_min"], 1 << 20);
    assert_eq!(limits["ballast_bytes"], 65_536);
}

/// The table of errors as code and kind.
#[test]
fn the_errors_are_told() {
    let server = Server::start();
    let mut client = server.connect();
    let told: BTreeMap<String, String> = table("### Errors", "| code | kind | when |")
        .into_iter()
        .map(|row| (row[1].trim_matches('`').to_owned(), row[0].clone()))
        .collect();
    let asked = [
        ("no.method", json!({})),
        ("job.get", json!({})),
        ("job.get", json!({"job": 77})),
        ("queue.delete", json!({"queue": "default"})),
        ("history.query", json!({"sql": "DELETE FROM history_jobs"})),
        (
            "transcript.verify",
            json!({"job": 77, "claims": vec![json!({"contains": "x"}); 65]}),
        ),
    ];
    for (method, params) in asked {
        let error = client.call(method, params).expect_err(method);
        let kind = error["data"]["kind"].as_str().expect("a kind");
        assert_eq!(told[kind], error["code"].to_string(), "{error}");
    }
}
