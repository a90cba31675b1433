//! `output.max_lines`: whole lines up to the bound, whatever the chunks they come in, by each of the
//! three policies, alone and beside `max_bytes`.

use serde_json::{Value, json};

use crate::harness::{Client, Server, Transcript, until_true};

fn bounded(line: &str, output: Value) -> Value {
    json!({"shell": line, "output": output})
}

fn whole(client: &mut Client, line: &str, output: Value) -> (Transcript, Value) {
    let job = client.submit(bounded(line, output));
    let transcript = client.whole(&job);
    let end = transcript.end.clone().expect("an end");
    assert_eq!(client.get(&job), end);
    (transcript, end)
}

/// What is stored, the job's reason, and how much was dropped: bytes, lines.
type Ends = (&'static str, Value, (u64, u64));

#[track_caller]
fn ends(client: &mut Client, line: &str, output: Value, (stored, reason, dropped): Ends) {
    let (transcript, end) = whole(client, line, output.clone());
    let text = String::from_utf8_lossy(&transcript.bytes);
    assert_eq!(text, stored, "{line} {output}");
    assert_eq!(end["reason"], reason, "{line} {output}");
    let told = (&end["dropped_bytes"], &end["dropped_lines"]);
    assert_eq!(told, (&json!(dropped.0), &json!(dropped.1)), "{line}");
    assert_eq!(end["output_bytes"], stored.len() as u64 + dropped.0);
    match dropped.0 {
        0 => assert_eq!(transcript.verified()["output_sha256"], end["output_sha256"]),
        _ => {
            assert_eq!(transcript.gaps.len(), 1);
            assert_eq!(transcript.gaps[0]["reason"], "drop_newest");
            assert_eq!(transcript.gaps[0]["from"], stored.len());
        }
    }
}

const OVER: &str = "output_limit";

#[test]
fn a_job_that_writes_more_lines_has_failed_right_after_the_last_one() {
    let server = Server::start();
    let mut client = server.connect();
    let fail = |lines: u64| json!({"max_lines": lines});
    for (line, lines, ends_) in [
        ("printf 'a\\nb\\n'", 2, ("a\nb\n", Value::Null, (0, 0))),
        ("printf 'a\\nb'", 2, ("a\nb", Value::Null, (0, 0))),
        ("printf 'a\\nb'", 1, ("a\n", json!(OVER), (0, 0))),
        ("printf '\\n\\n\\n'", 2, ("\n\n", json!(OVER), (0, 0))),
        (
            "printf 'a\\nb\\nc\\n'; exec sleep 600",
            2,
            ("a\nb\n", json!(OVER), (0, 0)),
        ),
    ] {
        ends(&mut client, line, fail(lines), ends_);
    }
    let (transcript, end) = whole(&mut client, "exec seq 1 1000000", fail(54_321));
    let expected: String = (1..=54_321).map(|n| format!("{n}\n")).collect();
    assert!(transcript.bytes == expected.as_bytes());
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!(OVER))
    );
    assert_eq!(end["stop"]["cause"], OVER);
    assert_eq!(
        end["output"],
        json!({"max_bytes": null, "max_lines": 54_321, "redact": true, "when_full": "fail"})
    );
}

#[test]
fn the_first_lines_are_kept_and_the_others_counted() {
    let server = Server::start();
    let mut client = server.connect();
    let keep = |lines: u64| json!({"max_lines": lines, "when_full": "drop_newest"});
    for (line, lines, ends_) in [
        ("printf 'a\\nb\\n'", 2, ("a\nb\n", Value::Null, (0, 0))),
        ("printf 'a\\nb\\nc'", 2, ("a\nb\n", Value::Null, (1, 0))),
        ("printf 'a\\nb\\nc\\nd'", 2, ("a\nb\n", Value::Null, (3, 1))),
        ("printf 'a\\nb\\nc'", 3, ("a\nb\nc", Value::Null, (0, 0))),
    ] {
        ends(&mut client, line, keep(lines), ends_);
    }
    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let kept: String = (1..=77).map(|n| format!("{n}\n")).collect();
    let (transcript, end) = whole(&mut client, "exec seq 1 200000", keep(77));
    assert!(transcript.bytes == kept.as_bytes());
    assert_eq!(end["state"], "succeeded");
    assert_eq!(end["output_bytes"], all.len());
    assert_eq!(end["dropped_bytes"], all.len() - kept.len());
    assert_eq!(end["dropped_lines"], 200_000 - 77);
}

#[test]
fn a_line_may_come_in_pieces_and_from_both_streams() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "printf a; sleep 0.2; printf 'b\\nc'; sleep 0.2; printf 'd'; sleep 0.2; \
                printf '\\ne'; sleep 0.2; printf 'f\\n'";
    let keep = |lines: u64| json!({"max_lines": lines, "when_full": "drop_newest"});
    ends(
        &mut client,
        line,
        keep(2),
        ("ab\ncd\n", Value::Null, (3, 1)),
    );
    let both = "echo out; sleep 0.2; echo err >&2; sleep 0.2; printf 'half'; sleep 0.2; \
                printf 'more\\nrest' >&2; sleep 0.2; echo last";
    let ends_ = ("out\nerr\nhalfmore\n", Value::Null, (9, 1));
    ends(&mut client, both, keep(3), ends_);
    let fail = json!({"max_lines": 2});
    ends(&mut client, both, fail, ("out\nerr\n", json!(OVER), (0, 0)));
}

#[test]
fn a_very_long_line_is_one_line() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "head -c 3000000 /dev/zero; echo; printf 'next\\n'";
    for (when_full, reason, dropped) in [("fail", json!(OVER), 0), ("drop_newest", Value::Null, 5)]
    {
        let output = json!({"max_lines": 1, "when_full": when_full});
        let (transcript, end) = whole(&mut client, line, output);
        assert_eq!(transcript.bytes.len(), 3_000_001, "{when_full}");
        assert_eq!(transcript.bytes.last(), Some(&b'\n'));
        assert_eq!(end["reason"], reason);
        assert_eq!(end["dropped_bytes"], dropped);
    }
}

#[test]
fn of_two_bounds_the_one_that_is_met_first_counts() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "printf 'a\\nbb\\nccc\\ndddd\\n'";
    let both = |bytes: u64, lines: u64, when_full: &str| json!({"max_bytes": bytes, "max_lines": lines, "when_full": when_full});
    let null = || Value::Null;
    for (output, ends_) in [
        (both(4, 3, "fail"), ("a\nbb", json!(OVER), (0, 0))),
        (both(100, 2, "fail"), ("a\nbb\n", json!(OVER), (0, 0))),
        (both(5, 2, "fail"), ("a\nbb\n", json!(OVER), (0, 0))),
        (both(14, 4, "fail"), ("a\nbb\nccc\ndddd\n", null(), (0, 0))),
        (both(4, 3, "drop_newest"), ("a\nbb", null(), (10, 3))),
        (both(100, 2, "drop_newest"), ("a\nbb\n", null(), (9, 2))),
    ] {
        ends(&mut client, line, output, ends_);
    }
}

/// Bytes and lines of the output before its gap, in the gap, and after it.
#[track_caller]
fn around_the_gap(transcript: &Transcript, end: &Value, all: &[u8]) -> [usize; 3] {
    let [gap] = &transcript.gaps[..] else {
        panic!("one gap: {:?}", transcript.gaps)
    };
    assert_eq!(gap["reason"], "drop_oldest");
    let [from, to] = ["from", "to"].map(|key| gap[key].as_u64().expect("an offset") as usize);
    let kept = [&all[..from], &all[to..]].concat();
    assert!(transcript.bytes == kept, "what is kept is right");
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(end["dropped_bytes"], to - from);
    assert_eq!(end["dropped_lines"], lines(&all[from..to]));
    [
        lines(&all[..from]),
        lines(&all[from..to]),
        lines(&all[to..]),
    ]
}

/// The same once it is final: a live tail may meet more than one gap.
fn once_final(client: &mut Client, line: &str, output: Value) -> (Transcript, Value) {
    let job = client.submit(bounded(line, output));
    let end = client.finished(&job);
    (client.whole(&job), end)
}

#[test]
fn the_oldest_segments_go_and_at_least_so_many_lines_stay() {
    let server = Server::with(&["--segment-bytes", "65536"], &[]);
    let mut client = server.connect();
    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let output = json!({"max_lines": 30_000, "when_full": "drop_oldest"});
    let (transcript, end) = once_final(&mut client, "exec seq 1 200000", output);
    assert_eq!(end["state"], "succeeded");
    let [first, gone, last] = around_the_gap(&transcript, &end, all.as_bytes());
    assert_eq!(first + gone + last, 200_000);
    assert!(first > 0, "the beginning stays");
    // At the end one segment is being written, and one may have been on its way out: 65536 bytes
    // and a record are up to 22,000 lines.
    let stayed = first + last;
    assert!((30_000..30_000 + 66_000).contains(&stayed), "{stayed}");

    let few = json!({"max_lines": 200_000, "when_full": "drop_oldest"});
    let (transcript, end) = once_final(&mut client, "exec seq 1 200000", few);
    assert!(transcript.bytes == all.as_bytes());
    assert_eq!(transcript.verified()["dropped_lines"], end["dropped_lines"]);
    assert_eq!(end["dropped_lines"], 0);

    // Bytes go although too few lines stay.
    let line = "head -c 40000000 /dev/zero | tr '\\0' x";
    let output = json!({"max_bytes": 16 << 20, "max_lines": 1, "when_full": "drop_oldest"});
    let (transcript, end) = once_final(&mut client, line, output);
    assert!(transcript.bytes.len() <= 16 << 20, "{end}");
    around_the_gap(&transcript, &end, &vec![b'x'; 40_000_000]);
}

#[test]
fn the_bound_holds_over_a_kill_of_the_server() {
    let mut server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "echo one; while [ ! -e {} ]; do sleep 0.02; done; printf 'two\\nthree\\nfour'",
        gate.display()
    );
    let jobs = ["fail", "drop_newest"].map(|when_full| {
        let output = json!({"max_lines": 2, "when_full": when_full});
        let job = client.submit(server.marked(bounded(&line, output)));
        until_true("a line", || client.get(&job)["output_bytes"] == 4);
        job
    });
    server.kill_9();
    server.restart();
    std::fs::write(&gate, "").expect("the gate");
    let mut client = server.connect();
    for (job, reason) in jobs.iter().zip([json!(OVER), Value::Null]) {
        let transcript = client.whole(job);
        assert_eq!(transcript.bytes, b"one\ntwo\n");
        assert_eq!(transcript.end.expect("an end")["reason"], reason);
    }
}

#[test]
fn the_bound_is_shown_compared_and_checked() {
    let server = Server::start();
    let mut client = server.connect();
    let job = |max_lines: Value| {
        let mut job = bounded("echo a; echo b", json!({"max_lines": max_lines}));
        job["idempotency_key"] = json!("k");
        job
    };
    let first = client.ok("job.submit", job(json!(5)));
    let again = client.ok("job.submit", job(json!(5)));
    assert_eq!(
        (&again["created"], &again["job"]["id"]),
        (&json!(false), &first["job"]["id"])
    );
    for other in [json!(6), json!(null)] {
        client.refused(-32004, "job.submit", job(other));
    }
    let end = client.finished(&first["job"]);
    assert_eq!(
        (&end["state"], &end["output"]["max_lines"]),
        (&json!("succeeded"), &json!(5))
    );
    let sql =
        "SELECT output_lines_max, output_bytes_max, typeof(output_lines_max) FROM history_jobs";
    let told = client.ok("history.query", json!({"sql": sql}));
    assert_eq!(told["rows"], json!([[5, null, "integer"]]));
    for wrong in [
        json!(0),
        json!(-1),
        json!(1.5),
        json!("7"),
        json!(1u64 << 63),
        json!([1]),
    ] {
        let error = client.refused(-32602, "job.submit", job(wrong));
        assert_eq!(error["data"]["key"], "output.max_lines", "{error}");
    }
    let small = json!({"max_bytes": 5, "max_lines": 5, "when_full": "drop_oldest"});
    let error = client.refused(-32602, "job.submit", bounded("true", small));
    assert_eq!(error["data"]["key"], "output.max_bytes");
    let defaults = json!({"queue": "short", "defaults": {"output": {"max_lines": 1}}});
    client.ok("queue.set", defaults);
    let job = client.submit(json!({"shell": "echo a; echo b", "queue": "short"}));
    assert_eq!(client.finished(&job)["reason"], OVER);
    let again = client.ok("job.retry", json!({"job": job["id"]}));
    assert_eq!(client.finished(&again)["output"]["max_lines"], 1);
}
