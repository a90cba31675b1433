//! Tails: every byte once, in order, to one end; whoever else reads.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Frame, Server, Transcript, assert_bytes, content, emit, sha256};

#[test]
fn both_streams_arrive_with_one_end_and_its_digest() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "1",
        "--bytes",
        "300000",
        "--err-bytes",
        "200000"
    ]);
    let job = client.submit(json!({"argv": argv}));
    let transcript = client.whole(&job);
    assert_bytes(
        &transcript.streams[0],
        &content(1, 0, 300_000, false),
        "stdout",
    );
    assert_bytes(
        &transcript.streams[1],
        &content(1, 1, 200_000, false),
        "stderr",
    );
    let end = transcript.verified();
    assert_eq!(end["state"], "succeeded");
    assert_eq!(end["exit_code"], 0);
    assert_eq!(end["output_bytes"], 500_000);
    assert_eq!(*end, client.get(&job));
}

#[test]
fn a_job_without_output_ends_with_the_digest_of_nothing() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    let transcript = client.whole(&job);
    assert_eq!(transcript.verified()["output_sha256"], sha256(b""));
}

#[test]
fn submit_can_begin_the_tail() {
    let server = Server::start();
    let mut client = server.connect();
    let reply = client.ok(
        "job.submit",
        json!({"argv": ["echo", "hello"], "tail": {"from": 0}}),
    );
    let subscription = reply["subscription"].as_u64().expect("a subscription");
    let mut transcript = Transcript::default();
    client.follow(subscription, &mut transcript);
    assert_eq!(transcript.bytes, b"hello\n");
    transcript.verified();
}

#[test]
fn a_live_tail_catches_up_once_and_then_follows() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "printf one; while [ ! -e {} ]; do sleep 0.05; done; printf two",
        gate.display()
    );
    let job = client.submit(json!({"shell": line}));
    let subscription = client.tail(json!({"job": job["number"]}));
    let mut transcript = Transcript::default();
    while transcript.bytes != b"one" || transcript.caught_up.is_none() {
        client.step(subscription, &mut transcript);
    }
    std::fs::write(&gate, "").expect("the gate");
    client.follow(subscription, &mut transcript);
    assert_eq!(transcript.bytes, b"onetwo");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn states_are_told_as_they_change() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    client.started(&job);
    let subscription = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    for (action, state) in [("pause", "paused"), ("resume", "running")] {
        client.control(&job, action);
        while transcript.states.last().map(String::as_str) != Some(state) {
            client.step(subscription, &mut transcript);
        }
    }
    client.control(&job, "kill");
    client.follow(subscription, &mut transcript);
    assert_eq!(transcript.states, ["paused", "running"]);
    assert_eq!(transcript.verified()["state"], "cancelled");
}

#[test]
fn without_follow_the_tail_of_a_running_job_ends_with_caught_up() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"shell": "echo here; exec sleep 1000"})));
    let read = json!({"job": job["id"], "from": 0, "wait_ms": 60_000});
    assert_eq!(client.ok("job.read", read)["next_offset"], 5);
    let subscription = client.tail(json!({"job": job["id"], "follow": false}));
    let mut transcript = Transcript::default();
    while transcript.caught_up.is_none() {
        client.step(subscription, &mut transcript);
    }
    assert_eq!(transcript.bytes, b"here\n");
    client.control(&job, "kill");
    client.finished(&job);
    let nothing = client.frame_within(Duration::from_millis(300));
    assert_eq!(nothing, None, "nothing follows the last notification");
}

#[test]
fn without_follow_the_tail_of_a_final_job_ends_with_its_end() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["echo", "x"]}));
    client.finished(&job);
    let subscription = client.tail(json!({"job": job["id"], "follow": false}));
    let mut transcript = Transcript::default();
    client.follow(subscription, &mut transcript);
    assert_eq!(transcript.bytes, b"x\n");
}

#[test]
fn one_stream_alone_jumps_over_the_other_and_resumes_exactly() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "5",
        "--bytes",
        "90000",
        "--err-bytes",
        "70000"
    ]);
    let job = client.submit(json!({"argv": argv}));
    client.finished(&job);
    for (number, stream) in ["stdout", "stderr"].into_iter().enumerate() {
        let mut transcript = Transcript {
            jumps: true,
            ..Transcript::default()
        };
        let options = json!({"job": job["id"], "streams": [stream]});
        let subscription = client.tail(options);
        client.follow(subscription, &mut transcript);
        let length = [90_000, 70_000][number];
        assert_bytes(
            &transcript.bytes,
            &content(5, number as u64, length, false),
            stream,
        );
        assert_eq!(transcript.streams[1 - number], b"");
    }
    let mut transcript = Transcript {
        jumps: true,
        ..Transcript::default()
    };
    let first = client.tail(json!({"job": job["id"], "streams": ["stdout"]}));
    while transcript.bytes.len() < 20_000 {
        client.step(first, &mut transcript);
    }
    client.ok("job.untail", json!({"subscription": first}));
    let mut again = server.connect();
    transcript.resume();
    let second = again.tail(json!({"job": job["id"], "streams": ["stdout"],
                                   "from": transcript.next_offset}));
    again.follow(second, &mut transcript);
    assert_bytes(&transcript.bytes, &content(5, 0, 90_000, false), "resumed");
}

#[test]
fn a_tail_begins_at_any_offset() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "3", "--bytes", "100000"]);
    let job = client.submit(json!({"argv": argv}));
    client.finished(&job);
    let all = content(3, 0, 100_000, false);
    for from in [0, 1, 4095, 4096, 65_535, 65_536, 99_999, 100_000] {
        let subscription = client.tail(json!({"job": job["id"], "from": from}));
        let mut transcript = Transcript::from(from);
        client.follow(subscription, &mut transcript);
        assert_bytes(&transcript.bytes, &all[from as usize..], "the rest");
    }
}

#[test]
fn a_tail_begins_so_many_bytes_or_lines_before_the_end() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"shell": "printf 'one\\ntwo\\nthree\\nfour'"}));
    client.finished(&job);
    for (key, count, text) in [
        ("last_bytes", 0, ""),
        ("last_bytes", 4, "four"),
        ("last_bytes", 1000, "one\ntwo\nthree\nfour"),
        ("last_lines", 1, "four"),
        ("last_lines", 2, "three\nfour"),
        ("last_lines", 1000, "one\ntwo\nthree\nfour"),
    ] {
        let reply = client.ok("job.tail", json!({"job": job["id"], key: count}));
        let from = reply["from"].as_u64().expect("from");
        assert_eq!(from, 18 - text.len() as u64, "{key} {count}");
        let mut transcript = Transcript::from(from);
        client.follow(
            reply["subscription"].as_u64().expect("an integer"),
            &mut transcript,
        );
        assert_eq!(
            String::from_utf8_lossy(&transcript.bytes),
            text,
            "{key} {count}"
        );
    }
    let with_newline = client.submit(json!({"shell": "printf 'one\\ntwo\\n'"}));
    client.finished(&with_newline);
    let reply = client.ok(
        "job.tail",
        json!({"job": with_newline["id"], "last_lines": 1}),
    );
    assert_eq!(reply["from"], 4, "a final newline ends the last line");
}

#[test]
fn an_offset_beyond_the_end_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["printf", "12345"]}));
    client.finished(&job);
    for from in [json!(6), json!(i64::MAX)] {
        for method in ["job.tail", "job.read"] {
            let error = client.refused(-32602, method, json!({"job": job["id"], "from": from}));
            assert_eq!(error["data"]["output_bytes"], 5, "{error}");
        }
    }
    for from in [
        json!(-1),
        json!(1.5),
        json!("0"),
        json!(9_223_372_036_854_775_808_u64),
    ] {
        client.refused(-32602, "job.tail", json!({"job": job["id"], "from": from}));
    }
}

#[test]
fn options_that_nobody_knows_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    for (key, value) in [
        ("colour", json!(1)),
        ("streams", json!(["stdlog"])),
        ("streams", json!("stdout")),
        ("follow", json!("yes")),
        ("encoding", json!("morse")),
        ("last_bytes", json!(-1)),
        ("last_lines", json!(-1)),
    ] {
        let mut params = json!({"job": job["id"]});
        params[key] = value;
        client.refused(-32602, "job.tail", params);
    }
    let both = json!({"job": job["id"], "from": 0, "last_bytes": 1});
    client.refused(-32602, "job.tail", both);
    client.refused(-32003, "job.tail", json!({"job": 999_999}));
    client.still_works();
}

#[test]
fn binary_frames_carry_the_same_bytes() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "8",
        "--bytes",
        "200000",
        "--err-bytes",
        "9000",
        "--raw"
    ]);
    let job = client.submit(json!({"argv": argv}));
    let subscription = client.tail(json!({"job": job["id"], "encoding": "binary"}));
    let mut transcript = Transcript::default();
    while transcript.end.is_none() {
        match client.frame() {
            Frame::Binary(frame) => {
                assert_eq!(u64::from(frame.subscription), subscription);
                assert_eq!(frame.attempt, 1);
                assert!(frame.at_us > 1_600_000_000_000_000, "{}", frame.at_us);
                transcript.take_binary(&frame);
            }
            Frame::Json(value) => {
                assert_ne!(value["method"], "job.output", "output comes as binary");
                transcript.take(&value);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_bytes(
        &transcript.streams[0],
        &content(8, 0, 200_000, true),
        "stdout",
    );
    assert_bytes(&transcript.streams[1], &content(8, 1, 9000, true), "stderr");
    transcript.verified();
}

#[test]
fn nothing_follows_the_reply_to_untail() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--bytes", "3000000", "--pause-us", "200"]);
    let job = client.submit(server.marked(json!({"argv": argv})));
    let subscription = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    while transcript.bytes.is_empty() {
        client.step(subscription, &mut transcript);
    }
    let reply = client.ok("job.untail", json!({"subscription": subscription}));
    assert_eq!(reply, json!({}));
    // What had been sent before the reply was kept; behind it nothing may come.
    let id = client.begin("job.wait", json!({"jobs": [job["id"]]}));
    while let Some(Frame::Json(value)) = client.frame_within(Duration::from_secs(60)) {
        if value["id"] == id {
            break;
        }
        assert!(
            value["params"]["next_offset"].as_u64() <= Some(3_000_000),
            "{value}"
        );
        transcript.take(&value);
    }
    assert!(transcript.end.is_none(), "the tail went on");
    let again = client.ok("job.untail", json!({"subscription": subscription}));
    assert_eq!(again, json!({}), "an ended one too");
}

#[test]
fn one_reader_that_never_reads_delays_nobody() {
    let server = Server::start();
    let mut deaf = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "4",
        "--bytes",
        "20000000",
        "--chunk",
        "4096:65536"
    ]);
    let job = deaf.submit(json!({"argv": argv}));
    for _ in 0..3 {
        deaf.begin("job.tail", json!({"job": job["id"]}));
    }
    let mut client = server.connect();
    let transcript = client.whole(&job);
    assert_bytes(
        &transcript.bytes,
        &content(4, 0, 20_000_000, false),
        "the other reader",
    );
    transcript.verified();
}

#[test]
fn two_tails_of_one_session_each_get_everything() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "6", "--bytes", "150000"]);
    let job = client.submit(json!({"argv": argv}));
    let first = client.tail(json!({"job": job["id"]}));
    let second = client.tail(json!({"job": job["id"]}));
    assert_ne!(first, second);
    let mut transcripts = [Transcript::default(), Transcript::default()];
    while transcripts.iter().any(|t| t.end.is_none()) {
        let value = client.notification();
        let which = usize::from(value["params"]["subscription"] == second);
        transcripts[which].take(&value);
    }
    for transcript in transcripts {
        assert_bytes(&transcript.bytes, &content(6, 0, 150_000, false), "a tail");
        transcript.verified();
    }
}

/// With one turn at a time, a tail that only looks for its stream gives up its turn after each piece.
#[test]
fn a_tail_that_has_far_to_go_does_not_hold_up_the_others() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "7", "--err-bytes", "64000000"]);
    let long = client.submit(json!({"argv": argv}));
    let short = client.submit(json!({"argv": ["printf", "short"]}));
    client.finished(&long);
    client.finished(&short);
    let far = client.begin(
        "job.tail",
        json!({"job": long["id"], "streams": ["stdout"], "follow": false}),
    );
    let near = client.begin("job.tail", json!({"job": short["id"]}));
    let far = client.reply(far).expect("a tail")["subscription"].clone();
    let near = client.reply(near).expect("a tail")["subscription"].clone();
    let mut ends = Vec::new();
    while ends.len() < 2 {
        let told = client.notification();
        if told["method"] == "job.end" {
            ends.push(told["params"]["subscription"].clone());
        }
    }
    assert_eq!(ends, [near, far]);
}
