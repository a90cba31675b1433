//! `history.search`: lines are found in every form in which output is stored, whatever the calls into
//! which a search is cut; what it refuses; and that it keeps nobody else waiting.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Client, Server, content, emit, memory, until, until_true};

const INVALID: i64 = -32602;
const NOT_FOUND: i64 = -32003;
const LIMIT: i64 = -32005;
const MIB: u64 = 1 << 20;

#[track_caller]
fn search(client: &mut Client, params: Value) -> Value {
    client.ok("history.search", params)
}

#[track_caller]
fn hits(answer: &Value) -> &Vec<Value> {
    answer["hits"].as_array().expect("hits")
}

/// Searches until there is nothing left; all hits, and how many calls that took.
#[track_caller]
fn whole(client: &mut Client, mut params: Value) -> (Vec<Value>, usize) {
    let (mut all, mut calls) = (Vec::new(), 0);
    loop {
        let answer = search(client, params.clone());
        calls += 1;
        all.extend(hits(&answer).iter().cloned());
        assert_eq!(
            answer["truncated"],
            answer["cursor"].is_string(),
            "{answer}"
        );
        match &answer["cursor"] {
            Value::Null => return (all, calls),
            cursor => params["cursor"] = cursor.clone(),
        }
        assert!(calls < 10_000, "a search without an end");
    }
}

/// Number, offset, line.
fn told(hits: &[Value]) -> Vec<(i64, u64, &str)> {
    let told = hits.iter().map(|hit| {
        let number = hit["number"].as_i64().expect("a number");
        let offset = hit["offset"].as_u64().expect("an offset");
        (number, offset, hit["line"].as_str().expect("a line"))
    });
    told.collect()
}

fn ended(client: &mut Client, job: Value) -> Value {
    let job = client.submit(job);
    client.finished(&job)
}

fn echo(client: &mut Client, text: &str) -> Value {
    ended(client, json!({"argv": ["printf", "%s", text]}))
}

/// A job with this much output of the fixture.
fn emitted(client: &mut Client, seed: u64, bytes: u64) -> Value {
    let argv = json!([
        emit(),
        "--seed",
        seed.to_string(),
        "--bytes",
        bytes.to_string(),
        "--chunk",
        "1:65536"
    ]);
    ended(client, json!({"argv": argv}))
}

/// The lines of the fixture with this text: offset, number, line, place of the match.
fn lines_with(bytes: &[u8], text: &str) -> Vec<(u64, u64, String, u64)> {
    let mut offset = 0;
    let mut found = Vec::new();
    for (nth, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8(line.to_vec()).expect("ASCII");
        if let Some(at) = line.find(text) {
            found.push((offset, nth as u64 + 1, line.clone(), offset + at as u64));
        }
        offset += line.len() as u64 + 1;
    }
    found
}

fn as_lines(hits: &[Value]) -> Vec<(u64, u64, String, u64)> {
    let number = |hit: &Value, key: &str| hit[key].as_u64().expect("a number");
    let lines = hits.iter().map(|hit| {
        let line = hit["line"].as_str().expect("a line").to_owned();
        let place = number(hit, "match_offset");
        (
            number(hit, "offset"),
            number(hit, "line_number"),
            line,
            place,
        )
    });
    lines.collect()
}

#[test]
fn a_line_of_a_small_output_is_found_with_its_place() {
    let server = Server::start();
    let mut client = server.connect();
    let job = echo(&mut client, "one\nan error: 5\nanother\nlast error");
    let answer = search(&mut client, json!({"text": "error"}));
    let [first, second] = &hits(&answer)[..] else {
        panic!("{answer}");
    };
    let expected = json!({"job": job["id"], "number": job["number"], "stream": "stdout",
        "offset": 4, "line_number": 2, "match_offset": 7, "match_end": 12,
        "line": "an error: 5", "line_match": [3, 8]});
    assert_eq!(*first, expected);
    assert_eq!(
        (&second["offset"], &second["line"]),
        (&json!(24), &json!("last error"))
    );
    for (key, value) in [
        ("truncated", json!(false)),
        ("jobs_searched", json!(1)),
        ("bytes_searched", json!(34)),
        ("missing_bytes", json!(0)),
    ] {
        assert_eq!(answer[key], value, "{key}");
    }
    assert!(answer["elapsed_ms"].is_u64());
    // What is at the offset is what was found.
    let read = json!({"job": first["job"], "from": first["match_offset"], "max_bytes": 5});
    assert_eq!(client.ok("job.read", read)["chunks"][0]["data"], "error");
    let none = search(&mut client, json!({"text": "nothing like it"}));
    assert_eq!((hits(&none).len(), &none["truncated"]), (0, &json!(false)));
}

#[test]
fn all_lines_of_a_large_output_are_found_once_in_one_call_and_in_many() {
    let mut server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let job = emitted(&mut client, 7, 5_000_000);
    let lines = lines_with(&content(7, 0, 5_000_000, false), "7f");
    assert!(lines.len() > 300, "{}", lines.len());
    let params = json!({"text": "7f", "job": job["number"], "limit": 1000});
    let (all, calls) = whole(&mut client, params);
    assert_eq!(as_lines(&all), lines);
    assert_eq!(calls, 1 + lines.len() / 1000);
    let (pieces, calls) = whole(&mut client, json!({"regex": "7f", "limit": 7}));
    assert_eq!(pieces, all);
    assert!(calls > 40, "{calls}");
    // A cursor outlives the server.
    let params = json!({"text": "7f", "limit": 100});
    let first = search(&mut client, params);
    let (status, _) = server.stop();
    assert!(status.success());
    server.restart();
    let mut client = server.connect();
    let params = json!({"text": "7f", "limit": 1000, "cursor": first["cursor"]});
    let (rest, _) = whole(&mut client, params);
    assert_eq!([&hits(&first)[..], &rest[..]].concat(), all);
    // From an offset on, line numbers are unknown.
    let (offset, ..) = lines[200];
    let params = json!({"text": "7f", "job": job["id"], "from": offset, "limit": 1});
    let answer = search(&mut client, params);
    let [hit] = &hits(&answer)[..] else {
        panic!("{answer}");
    };
    assert_eq!(
        (&hit["offset"], &hit["line_number"]),
        (&json!(offset), &Value::Null)
    );
}

#[test]
fn a_running_job_is_searched_as_far_as_it_has_come() {
    let server = Server::start();
    let mut client = server.connect();
    let shell = "echo one; printf 'Password: '; read x; echo; echo \"two $x\"; read x; exit 0";
    let job = client.submit(server.marked(json!({"shell": shell, "interactive": true})));
    until_true("the prompt", || client.get(&job)["output_bytes"] == 14);
    let params = json!({"regex": "^Password: $"});
    let answer = search(&mut client, params);
    assert_eq!(told(hits(&answer)), [(1, 4, "Password: ")]);
    assert_eq!(hits(&answer)[0]["line_number"], 2);
    client.ok("job.input", json!({"job": job["id"], "data": "more\n"}));
    until("the answer", || {
        let answer = search(&mut client, json!({"text": "two", "job": job["number"]}));
        (told(hits(&answer)) == [(1, 15, "two more")]).then_some(())
    });
    client.ok("job.input", json!({"job": job["id"], "data": "\n"}));
    client.finished(&job);
    let answer = search(&mut client, json!({"regex": "^two", "state": "succeeded"}));
    assert_eq!(told(hits(&answer)), [(1, 15, "two more")]);
}

#[test]
fn filters_choose_the_jobs_and_the_newest_come_first() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "q"}));
    let job = |shell: &str, more: Value| {
        let mut job = json!({"shell": shell});
        let more = more.as_object().expect("keys").clone();
        job.as_object_mut().expect("a job").extend(more);
        job
    };
    let first = ended(&mut client, job("echo hit 1", json!({"name": "a"})));
    let second = ended(
        &mut client,
        job("echo hit 2; exit 1", json!({"queue": "q"})),
    );
    let third = ended(
        &mut client,
        job(
            "echo hit 3; exit 1",
            json!({"labels": {"k": "v", "l": "w"}}),
        ),
    );
    ended(&mut client, job("echo nothing", json!({})));
    let mut numbers = |filter: Value| {
        let mut params = json!({"text": "hit"});
        let filter = filter.as_object().expect("keys").clone();
        params.as_object_mut().expect("keys").extend(filter);
        let answer = search(&mut client, params);
        let numbers = hits(&answer)
            .iter()
            .map(|hit| hit["number"].as_i64().expect("a number"));
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers(json!({})), [3, 2, 1]);
    assert_eq!(numbers(json!({"state": "failed"})), [3, 2]);
    assert_eq!(numbers(json!({"state": ["succeeded", "running"]})), [1]);
    assert_eq!(numbers(json!({"queue": "q"})), [2]);
    assert_eq!(numbers(json!({"labels": {"k": "v"}})), [3]);
    assert_eq!(numbers(json!({"labels": {"k": "w"}})), Vec::<i64>::new());
    assert_eq!(numbers(json!({"name": "a"})), [1]);
    assert_eq!(numbers(json!({"since": second["submitted_at"]})), [3, 2]);
    assert_eq!(numbers(json!({"job": first["id"]})), [1]);
    assert_eq!(numbers(json!({"job": third["number"].to_string()})), [3]);
}

#[test]
fn a_search_over_many_jobs_goes_on_where_it_stopped() {
    let server = Server::start();
    let mut client = server.connect();
    for nth in 0..30 {
        echo(&mut client, &format!("a {nth}\nhit\nb\nhit again {nth}\n"));
    }
    let (all, _) = whole(&mut client, json!({"text": "hit", "limit": 1000}));
    assert_eq!(all.len(), 60);
    let numbers: Vec<_> = all.iter().map(|hit| hit["number"].as_i64()).collect();
    assert!(numbers.is_sorted_by(|a, b| a >= b), "{numbers:?}");
    for limit in [1, 7] {
        let (pieces, calls) = whole(&mut client, json!({"text": "hit", "limit": limit}));
        assert_eq!(pieces, all);
        assert_eq!(calls, 60 / limit + 1, "{limit}");
    }
    let answer = search(&mut client, json!({"text": "hit", "limit": 3}));
    assert_eq!(answer["stopped_by"], "limit");
    assert_eq!(answer["reached"]["number"], 29);
    let default = search(&mut client, json!({"text": "hit"}));
    assert_eq!(hits(&default).len(), 50);
}

#[test]
fn a_job_that_is_deleted_meanwhile_is_passed_over() {
    let server = Server::start();
    let mut client = server.connect();
    let jobs = [0; 4].map(|_| echo(&mut client, "hit\nhit\n"));
    let first = search(&mut client, json!({"text": "hit", "limit": 3}));
    let one = search(&mut client, json!({"text": "hit", "job": 3, "limit": 1}));
    client.ok("job.delete", json!({"job": jobs[2]["id"]}));
    client.ok("job.delete", json!({"job": jobs[1]["id"]}));
    let params = json!({"text": "hit", "cursor": first["cursor"]});
    let rest = search(&mut client, params);
    assert_eq!(told(hits(&rest)), [(1, 0, "hit"), (1, 4, "hit")]);
    assert!(rest.get("unreadable").is_none(), "{rest}");
    let params = json!({"text": "hit", "job": 3, "cursor": one["cursor"]});
    client.refused(NOT_FOUND, "history.search", params);
}

#[test]
fn what_cannot_be_searched_for_is_refused_with_what_would_be_right() {
    let server = Server::start();
    let mut client = server.connect();
    echo(&mut client, "x");
    for (params, says) in [
        (json!({}), "give text or regex"),
        (json!({"text": "a", "regex": "a"}), "not both"),
        (json!({"regex": "(unclosed"}), "unclosed group"),
        (json!({"regex": "a\\nb"}), "a line end is never found"),
        (json!({"text": "two\nlines"}), "a line end is never found"),
        (json!({"regex": "((a{100}){100}){100}"}), "too large"),
        (json!({"text": ""}), "must not be empty"),
        (
            json!({"text": "x", "colour": 1}),
            "known keys are text, regex",
        ),
        (
            json!({"text": "x", "job": 1, "state": "failed"}),
            "state: leave it out",
        ),
        (
            json!({"text": "x", "state": "done"}),
            "must be one or several of",
        ),
        (json!({"text": "x", "job": 1, "from": 2}), "beyond the end"),
        (
            json!({"text": "x", "cursor": "7"}),
            "cursor of an earlier search",
        ),
        (
            json!({"text": "x", "job": 1, "cursor": "2.0.0.0.0.0"}),
            "cursor is of a search in job 2",
        ),
    ] {
        let error = client.refused(INVALID, "history.search", params.clone());
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(says), "{params}: {message}");
    }
    client.refused(NOT_FOUND, "history.search", json!({"text": "x", "job": 9}));
    let long = json!({"text": "x".repeat(4097)});
    let error = client.refused(LIMIT, "history.search", long);
    assert_eq!(error["data"]["limit"], "pattern_bytes_max");
    // A cursor that no search has given leads nowhere, and does no harm.
    for cursor in [
        "9.0.0.0.0.0",
        "1.1.7.1_0_1.1.1",
        "1.0.-.0.0.9223372036854775807",
    ] {
        let answer = client.call("history.search", json!({"text": "y", "cursor": cursor}));
        assert!(answer.is_ok(), "{cursor}: {answer:?}");
    }
    client.still_works();
}

#[test]
fn a_text_is_not_a_pattern_and_a_line_may_have_any_bytes() {
    let server = Server::start();
    let mut client = server.connect();
    let shell = r#"printf 'a.*[b]$ "q" \\\ntab\there\n\303\251t\303\251 \360\237\216\211\n\377\376 broken\nnul\000 byte\n\033[31mred\033[0m\r\nCASE\n'"#;
    ended(&mut client, json!({"shell": shell}));
    let mut found = |params: Value| {
        let answer = search(&mut client, params);
        let lines = hits(&answer)
            .iter()
            .map(|hit| hit["line"].as_str().expect("text").to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(
        found(json!({"text": ".*[b]$ \"q\" \\"})),
        ["a.*[b]$ \"q\" \\"]
    );
    assert_eq!(found(json!({"text": "tab\there"})), ["tab\there"]);
    assert_eq!(found(json!({"text": "té 🎉"})), ["été 🎉"]);
    assert_eq!(
        found(json!({"text": "broken"})),
        ["\u{fffd}\u{fffd} broken"]
    );
    assert_eq!(
        found(json!({"regex": r"\xff\xfe"})),
        ["\u{fffd}\u{fffd} broken"]
    );
    assert_eq!(found(json!({"text": "\0 b"})), ["nul\0 byte"]);
    assert_eq!(
        found(json!({"text": "red\u{1b}"})),
        ["\u{1b}[31mred\u{1b}[0m\r"]
    );
    assert_eq!(found(json!({"text": "case"})), Vec::<String>::new());
    assert_eq!(
        found(json!({"text": "case", "ignore_case": true})),
        ["CASE"]
    );
    assert_eq!(
        found(json!({"regex": "^c.s", "ignore_case": true})),
        ["CASE"]
    );
    assert_eq!(found(json!({"regex": "(?u:[é])t"})), ["été 🎉"]);
}

#[test]
fn a_line_is_of_one_stream_and_whole_whatever_is_written_in_between() {
    let server = Server::start();
    let mut client = server.connect();
    // Each in a chunk of its own: the next one is written when this one was captured.
    let shell = "for part in o:NEE e:'err\n' o:'DLE\n' e:NEE o:'x\n' e:'DLE\n'; do
        case $part in o:*) printf '%s' \"${part#o:}\";; e:*) printf '%s' \"${part#e:}\" >&2;; esac
        read go; done";
    let job = client.submit(server.marked(json!({"shell": shell, "interactive": true})));
    for bytes in [3, 7, 11, 14, 16, 20] {
        until_true("a part", || client.get(&job)["output_bytes"] == bytes);
        client.ok("job.input", json!({"job": job["id"], "data": "\n"}));
    }
    client.finished(&job);
    let answer = search(&mut client, json!({"text": "NEEDLE"}));
    let places: Vec<_> = hits(&answer)
        .iter()
        .map(|hit| {
            (
                hit["stream"].as_str(),
                hit["offset"].as_u64(),
                hit["match_end"].as_u64(),
            )
        })
        .collect();
    let stdout = (Some("stdout"), Some(0), Some(10));
    let stderr = (Some("stderr"), Some(11), Some(19));
    assert_eq!(places, [stdout, stderr]);
    let answer = search(
        &mut client,
        json!({"text": "NEEDLE", "streams": ["stderr"]}),
    );
    assert_eq!(hits(&answer).len(), 1);
    let answer = search(&mut client, json!({"text": "err", "streams": ["stdout"]}));
    assert_eq!(hits(&answer).len(), 0);
    let (pieces, _) = whole(&mut client, json!({"text": "NEEDLE", "limit": 1}));
    assert_eq!(pieces.len(), 2);
}

#[test]
fn what_is_missing_is_counted_and_ends_a_line() {
    let server = Server::start();
    let mut client = server.connect();
    let dropping = |when_full: &str, max_bytes: u64| {
        let argv = [
            emit(),
            "--seed",
            "3",
            "--bytes",
            "60000000",
            "--chunk",
            "65536:65536",
        ];
        json!({"argv": argv, "output": {"max_bytes": max_bytes, "when_full": when_full}})
    };
    let job = ended(&mut client, dropping("drop_oldest", 16 * MIB));
    let lines = lines_with(&content(3, 0, 60_000_000, false), "7f");
    let (all, _) = whole(
        &mut client,
        json!({"text": "7f", "job": job["id"], "limit": 1000}),
    );
    let answer = search(&mut client, json!({"text": "not there", "job": job["id"]}));
    assert_eq!(answer["missing_bytes"], job["dropped_bytes"]);
    let kept = json!(60_000_000 - job["dropped_bytes"].as_u64().expect("a number"));
    assert_eq!(answer["bytes_searched"], kept);
    let known = all
        .iter()
        .take_while(|hit| hit["line_number"].is_u64())
        .count();
    assert!(known > 0 && known < all.len());
    assert_eq!(as_lines(&all[..known]), lines[..known]);
    let last = all.last().expect("hits");
    let (offset, _, line, _) = lines.last().expect("lines");
    assert_eq!(
        (&last["offset"], &last["line"]),
        (&json!(offset), &json!(line))
    );
    assert!(all[known..].iter().all(|hit| hit["line_number"].is_null()));
}

#[test]
fn the_output_of_all_attempts_is_searched() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "echo attempt $CC_EXECUTOR_ATTEMPT; [ $CC_EXECUTOR_ATTEMPT = 2 ] || exec sleep 1000";
    let job = client.submit(server.marked(json!({"shell": line, "on_lost": "retry"})));
    until_true("the output", || client.get(&job)["output_bytes"] == 10);
    server.kill_shim();
    client.finished(&job);
    let answer = search(&mut client, json!({"text": "attempt"}));
    assert_eq!(
        told(hits(&answer)),
        [(1, 0, "attempt 1"), (1, 10, "attempt 2")]
    );
}

#[test]
fn a_line_without_an_end_is_searched_in_little_memory() {
    let server = Server::start();
    let mut client = server.connect();
    let shell = "head -c 100000000 /dev/zero | tr '\\0' x; printf NEEDLE; \
                 head -c 100000000 /dev/zero | tr '\\0' y; echo; echo NEEDLE";
    let job = ended(&mut client, json!({"shell": shell}));
    let before = memory(server.pid(), "VmRSS");
    let answer = search(&mut client, json!({"text": "NEEDLE"}));
    assert_eq!(answer["truncated"], false, "{}", answer["stopped_by"]);
    let [first, second] = &hits(&answer)[..] else {
        panic!("{} hits", hits(&answer).len());
    };
    assert_eq!(
        (&first["offset"], &first["match_offset"]),
        (&json!(0), &json!(100_000_000))
    );
    let line = first["line"].as_str().expect("text");
    assert!(
        line.contains("xNEEDLEy") && line.len() <= 4096,
        "{}",
        line.len()
    );
    let from = first["line_from"].as_u64().expect("cut");
    let place = line.find("NEEDLE").expect("in the text") as u64;
    assert_eq!(from + place, 100_000_000);
    let begin = 200_000_007;
    assert_eq!(
        (&second["offset"], &second["line_number"]),
        (&json!(begin), &json!(2))
    );
    assert_eq!(first["line_goes_on"], true);
    for key in ["line_from", "line_goes_on"] {
        assert!(second.get(key).is_none(), "{second}");
    }
    let grown = memory(server.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < 40 * MIB, "{} MiB", grown / MIB);
    let answer = search(&mut client, json!({"regex": "^N", "job": job["id"]}));
    assert_eq!(told(hits(&answer)), [(1, begin, "NEEDLE")]);
}

#[test]
fn a_search_stops_at_its_bound_of_bytes_and_can_go_on() {
    let args = ["--search-bytes-max", "16777216"];
    let server = Server::with(&args, &[]);
    let mut client = server.connect();
    let job = emitted(&mut client, 4, 40_000_000);
    echo(&mut client, "7f");
    let lines = lines_with(&content(4, 0, 40_000_000, false), "7f?");
    let answer = search(&mut client, json!({"text": "7f?", "limit": 1000}));
    assert_eq!(answer["stopped_by"], "search_bytes_max");
    let read = answer["bytes_searched"].as_u64().expect("bytes");
    assert!((16 * MIB..17 * MIB).contains(&read), "{read}");
    assert_eq!(answer["reached"]["number"], job["number"]);
    let (all, calls) = whole(&mut client, json!({"text": "7f?", "limit": 1000}));
    assert_eq!((as_lines(&all), calls), (lines, 3));
}

/// Several megabytes of one long line or of many short ones, in which that pattern begins to match
/// everywhere: minutes of work.
const HARD: &str = "(?:a?){900}a{900}b";

fn letters(client: &mut Client) -> Value {
    let line = "head -c 6000000 /dev/zero | tr '\\0' a | fold -w 2000; echo end";
    ended(client, json!({"shell": line}))
}

#[test]
fn a_hard_search_stops_at_its_bound_of_time_and_comes_on_with_each_call() {
    let server = Server::with(&["--search-timeout-s", "1"], &[]);
    let mut client = server.connect();
    letters(&mut client);
    let mut params = json!({"regex": HARD});
    let mut reached = 0;
    for _ in 0..3 {
        let answer = search(&mut client, params.clone());
        assert_eq!(answer["stopped_by"], "search_timeout_s", "{answer}");
        assert!(answer["elapsed_ms"].as_u64() < Some(20_000), "{answer}");
        let now = answer["reached"]["offset"].as_u64().expect("an offset");
        assert!(now > reached, "{answer}");
        reached = now;
        params["cursor"] = answer["cursor"].clone();
    }
    // A job that goes under a search.
    let mut other = server.connect();
    let asked = client.begin("history.search", params);
    other.ok("job.delete", json!({"job": 1}));
    let answer = client.reply(asked).expect("an answer");
    assert_eq!(hits(&answer).len(), 0);
    client.still_works();
}

#[test]
fn hard_searches_keep_nobody_else_waiting() {
    let server = Server::with(&["--search-timeout-s", "60"], &[]);
    let mut client = server.connect();
    letters(&mut client);
    let small = echo(&mut client, "small\n");
    let mut hard: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut hard {
        for _ in 0..8 {
            client.begin("history.search", json!({"regex": HARD, "job": 1}));
        }
    }
    let began = Instant::now();
    let answer = search(&mut client, json!({"text": "small", "job": small["id"]}));
    assert_eq!(hits(&answer).len(), 1);
    let wait = json!({"jobs": [small["id"]], "until": {"regex": "small"}, "timeout_s": 60});
    assert_eq!(client.ok("job.wait", wait)["met"], true);
    let verdict = client.ok("transcript.verify", json!({"job": small["id"]}));
    assert_eq!(verdict["intact"], true);
    // A session that searches still does everything else.
    let job = hard[0].submit(json!({"argv": ["echo", "live"]}));
    assert_eq!(hard[0].whole(&job).verified()["state"], "succeeded");
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "{:?}",
        began.elapsed()
    );
    drop(hard);
    // Their places are free.
    search(&mut client, json!({"text": "small"}));
}

#[test]
fn more_searches_than_may_wait_are_refused() {
    let args = [
        "--searches-max",
        "1",
        "--searches-waiting-max",
        "0",
        "--search-timeout-s",
        "60",
    ];
    let server = Server::with(&args, &[]);
    let mut client = server.connect();
    letters(&mut client);
    let mut other = server.connect();
    until("a refusal", || {
        // The other one may have been faster, and this one was refused: a small one is over soon.
        client.begin("history.search", json!({"regex": HARD, "job": 1}));
        let asked = other.call("history.search", json!({"text": "end", "job": 1}));
        let error = asked.err()?;
        assert_eq!(error["data"]["limit"], "searches_waiting_max", "{error}");
        Some(())
    });
    drop(client);
    until("the place", || {
        let asked = other.call("history.search", json!({"text": "end", "job": 1}));
        asked.ok()
    });
}

/// Answers of nearly a mebibyte for a client that reads none of them.
#[test]
fn a_client_that_does_not_read_its_answers_stops_nobody_and_costs_little() {
    let server = Server::start();
    let mut client = server.connect();
    let shell = "for i in $(seq 400); do head -c 4000 /dev/zero | tr '\\0' x; echo; done";
    let job = ended(&mut client, json!({"shell": shell}));
    let params = json!({"text": "x", "limit": 1000});
    let answer = search(&mut client, params.clone());
    assert_eq!(answer["stopped_by"], "message_bytes_max");
    assert!(answer.to_string().len() > 700_000);
    let (all, calls) = whole(&mut client, params.clone());
    assert_eq!((all.len(), calls), (400, 3));
    let before = memory(server.pid(), "VmRSS");
    let mut stalled: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut stalled {
        for _ in 0..60 {
            client.begin("history.search", params.clone());
        }
    }
    for _ in 0..5 {
        assert_eq!(
            hits(&search(&mut client, json!({"text": "x", "limit": 1}))).len(),
            1
        );
        let small = echo(&mut client, "on");
        assert_eq!(small["state"], "succeeded");
    }
    let grown = memory(server.pid(), "VmRSS").saturating_sub(before);
    assert!(grown < 80 * MIB, "{} MiB", grown / MIB);
    drop(stalled);
    assert_eq!(client.get(&job)["state"], "succeeded");
}

/// Searches of much output beside a job that writes: each line arrives, and soon.
#[test]
fn a_search_of_much_output_does_not_slow_a_live_tail() {
    let server = Server::start();
    let mut client = server.connect();
    for seed in 0..4 {
        emitted(&mut client, seed, 50_000_000);
    }
    let searching: Vec<_> = (0..4)
        .map(|_| {
            let mut client = server.connect();
            thread::spawn(move || {
                let params = json!({"regex": "never (seen|heard)"});
                let answer = search(&mut client, params);
                assert_eq!(answer["bytes_searched"], 200_000_000);
                assert_eq!(answer["truncated"], false);
            })
        })
        .collect();
    let shell = "for i in $(seq 20); do echo line $i; read go; done";
    let job = client.submit(server.marked(json!({"shell": shell, "interactive": true})));
    let subscription = client.tail(json!({"job": job["id"], "from": 0}));
    let mut slowest = Duration::ZERO;
    let mut seen = 0;
    let mut asked = Instant::now();
    while seen < 20 {
        let notification = client.notification();
        if notification["method"] == "job.output" {
            assert_eq!(notification["params"]["subscription"], subscription);
            seen += 1;
            slowest = slowest.max(asked.elapsed());
            asked = Instant::now();
            client.ok("job.input", json!({"job": job["id"], "data": "\n"}));
        }
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    for one in searching {
        one.join().expect("a search");
    }
}
