//! `on_lost: "retry"`: a job whose attempt is lost runs again, three times at most, and its output
//! stays one sequence over the seam.

use cc_executor::job::{Exit, StopCause, Stream};
use serde_json::{Value, json};

use crate::{
    harness::{Client, Server, Transcript, assert_bytes, content, emit, until_true},
    paper::Paper,
    scene::{Scene, job},
};

/// What may have been shown and was not on disk when the power went: three segments of the default
/// size and one record, bytes.
const UNSYNCED_BYTES: u64 = 3 * (4 << 20) + (4 << 20);

/// A line of shell that tells its attempt and holds.
const HOLDS: &str = "echo attempt $CC_EXECUTOR_ATTEMPT; exec sleep 1000";

/// Submits a job that runs again.
fn submit(server: &Server, client: &mut Client, mut job: Value) -> Value {
    job["on_lost"] = json!("retry");
    let job = client.submit(server.marked(job));
    assert_eq!(job["on_lost"], "retry");
    job
}

/// Follows until there is so much output; there is no end before it.
fn follow_to(client: &mut Client, tail: u64, transcript: &mut Transcript, length: usize) {
    while transcript.bytes.len() < length {
        client.step(tail, transcript);
    }
    assert_eq!(transcript.bytes.len(), length);
}

/// Attempt and text of all chunks.
fn chunks(client: &mut Client, job: &Value) -> Vec<(u64, String)> {
    let read = client.ok("job.read", json!({"job": job["id"], "from": 0}));
    let chunks = read["chunks"].as_array().expect("chunks").iter();
    let text = |chunk: &Value| chunk["data"].as_str().map(str::to_owned);
    chunks
        .filter_map(|chunk| Some((chunk["attempt"].as_u64()?, text(chunk)?)))
        .collect()
}

#[test]
fn a_job_is_run_again_three_times_and_is_lost_then() {
    let server = Server::start();
    let mut client = server.connect();
    let job = submit(&server, &mut client, json!({"shell": HOLDS}));
    let tail = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    for attempt in 1..=4 {
        follow_to(&mut client, tail, &mut transcript, attempt * 10);
        server.kill_shim();
    }
    client.follow(tail, &mut transcript);
    assert_eq!(
        transcript.bytes,
        b"attempt 1\nattempt 2\nattempt 3\nattempt 4\n"
    );
    let end = transcript.verified();
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("failed"), &json!("lost"))
    );
    assert_eq!(end["attempts"], 4);
    assert_eq!(end["survivors"], json!([]));
    let again: Vec<_> = transcript
        .states
        .iter()
        .filter(|state| *state == "queued")
        .collect();
    assert_eq!(again.len(), 3, "{:?}", transcript.states);
    // Whoever comes later sees the same.
    let later = client.whole(&job);
    assert_eq!(later.bytes, transcript.bytes);
    assert_eq!(later.verified(), end);
    let attempts: Vec<_> = chunks(&mut client, &job)
        .into_iter()
        .map(|(attempt, _)| attempt)
        .collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
}

#[test]
fn a_job_that_does_not_want_it_is_lost_at_once() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"shell": HOLDS})));
    assert_eq!(job["on_lost"], "fail");
    until_true("the output", || client.get(&job)["output_bytes"] == 10);
    server.kill_shim();
    let end = client.finished(&job);
    assert_eq!(
        (&end["reason"], &end["attempts"]),
        (&json!("lost"), &json!(1))
    );
}

#[test]
fn a_second_attempt_ends_the_job_as_it_ends() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "echo one; echo err >&2; [ $CC_EXECUTOR_ATTEMPT = 2 ] || exec sleep 1000; exit 3";
    let job = submit(&server, &mut client, json!({"shell": line}));
    let first = client.started(&job);
    until_true("the output", || client.get(&job)["output_bytes"] == 8);
    server.kill_shim();
    let transcript = client.whole(&job);
    let end = transcript.verified();
    assert_eq!(
        (&end["reason"], &end["exit_code"]),
        (&json!("exit_code"), &json!(3))
    );
    assert_eq!(
        (&end["attempts"], &end["signal"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(
        end["started_at"], first["started_at"],
        "the first start counts"
    );
    assert_eq!(transcript.bytes.len(), 16);
    assert_eq!(transcript.streams[0], b"one\none\n");
}

#[test]
fn a_paused_job_is_paused_again_after_its_loss() {
    let server = Server::start();
    let mut client = server.connect();
    let job = submit(&server, &mut client, json!({"shell": HOLDS}));
    until_true("the output", || client.get(&job)["output_bytes"] == 10);
    let pause = |client: &mut Client, action: &str| {
        client.ok("job.control", json!({"job": job["id"], "action": action}))
    };
    assert_eq!(pause(&mut client, "pause")["state"], "paused");
    server.kill_shim();
    let paused_again = |job: &Value| job["attempts"] == 2 && job["state"] == "paused";
    until_true("the next pause", || paused_again(&client.get(&job)));
    assert_eq!(pause(&mut client, "resume")["state"], "running");
    server.kill_shim();
    let runs = |job: &Value| job["attempts"] == 3 && job["state"] == "running";
    until_true("the third attempt", || runs(&client.get(&job)));
}

#[test]
fn large_outputs_of_both_attempts_are_one_sequence() {
    let server = Server::with(
        &["--segment-bytes", "65536", "--inline-bytes-max", "1000"],
        &[],
    );
    let mut client = server.connect();
    let emits = |seed: u32, more: &str| format!("{} --seed {seed} --bytes 300000 {more}", emit());
    let line = format!(
        "if [ $CC_EXECUTOR_ATTEMPT = 1 ]; then {}; else {}; fi",
        emits(61, "--hold 1000"),
        emits(62, "")
    );
    let job = submit(&server, &mut client, json!({"shell": line}));
    let tail = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    follow_to(&mut client, tail, &mut transcript, 300_000);
    server.kill_shim();
    client.follow(tail, &mut transcript);
    let mut expected = content(61, 0, 300_000, false);
    expected.extend(content(62, 0, 300_000, false));
    assert_bytes(&transcript.bytes, &expected, "over the seam");
    assert_eq!(transcript.verified()["state"], "succeeded");
    assert_bytes(&client.download(&job, 500_000), &expected, "job.read");
}

#[test]
fn a_kill_of_the_shim_with_its_server_is_as_good() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = submit(&server, &mut client, json!({"shell": HOLDS}));
    let mut transcript = Transcript::default();
    for attempt in 1..=4 {
        transcript.resume();
        let from = json!({"job": job["id"], "from": transcript.next_offset});
        let tail = client.tail(from);
        follow_to(&mut client, tail, &mut transcript, attempt * 10);
        server.kill_9();
        server.kill_shim();
        server.restart();
        client = server.connect();
    }
    let whole = client.whole(&job);
    assert!(whole.bytes.starts_with(&transcript.bytes));
    assert_eq!(whole.bytes.len(), 40);
    let end = whole.verified();
    assert_eq!(
        (&end["reason"], &end["attempts"]),
        (&json!("lost"), &json!(4))
    );
}

#[test]
fn after_a_power_loss_it_runs_again_behind_the_gap() {
    let mut scene = Scene::new();
    let claim = scene.claimed_again("s1", "echo again");
    let mut paper = Paper::started(&scene, &claim);
    paper.output(Stream::Stdout, b"on disk");
    let nothing = scene.claimed_again("s2", "echo again");
    scene.set_boot_ids();
    let mut client = scene.start();
    for (claim, before) in [(&claim, "on disk"), (&nothing, "")] {
        let job = job(claim);
        let end = client.finished(&job);
        assert_eq!(
            (&end["state"], &end["attempts"]),
            (&json!("succeeded"), &json!(2))
        );
        assert_eq!(end["output_sha256"], Value::Null, "there is a gap");
        let transcript = client.whole(&job);
        assert_eq!(transcript.bytes, format!("{before}again\n").into_bytes());
        let from = before.len() as u64;
        assert_eq!(transcript.gaps.len(), 1);
        let gap = &transcript.gaps[0];
        assert_eq!(
            (&gap["from"], &gap["reason"]),
            (&json!(from), &json!("power_loss"))
        );
        assert_eq!(end["output_bytes"], from + UNSYNCED_BYTES + 6);
    }
    assert_eq!(scene.attempts(), "1.1:lost 1.2:ended 2.1:lost 2.2:ended");
}

#[test]
fn a_gap_takes_nothing_of_the_bound() {
    let mut scene = Scene::new();
    let claim = scene.claimed_again("s1", "printf 0123456789");
    scene.execute("UPDATE jobs SET spec = json_set(spec, '$.output.max_bytes', 10)");
    let mut paper = Paper::started(&scene, &claim);
    paper.output(Stream::Stdout, b"abcd");
    scene.set_boot_ids();
    let mut client = scene.start();
    let transcript = client.whole(&job(&claim));
    assert_eq!(transcript.bytes, b"abcd012345");
    let end = transcript.end.expect("an end");
    assert_eq!(end["reason"], "output_limit");
    assert_eq!(end["output_bytes"], UNSYNCED_BYTES + 10);
}

#[test]
fn the_bound_of_the_output_is_that_of_all_attempts() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "printf 0123456789; [ $CC_EXECUTOR_ATTEMPT = 2 ] || exec sleep 1000";
    for (when_full, reason, length) in [
        ("fail", json!("output_limit"), 15),
        ("drop_newest", Value::Null, 20),
    ] {
        let output = json!({"max_bytes": 15, "when_full": when_full});
        let job = submit(
            &server,
            &mut client,
            json!({"shell": line, "output": output}),
        );
        until_true("the output", || client.get(&job)["output_bytes"] == 10);
        server.kill_shim();
        let end = client.finished(&job);
        assert_eq!(
            (&end["reason"], &end["attempts"]),
            (&reason, &json!(2)),
            "{when_full}"
        );
        assert_eq!(end["output_bytes"], length);
        assert_eq!(end["dropped_bytes"], length - 15);
        assert_eq!(client.whole(&job).bytes, b"012345678901234");
    }
}

#[test]
fn the_bound_in_lines_is_that_of_all_attempts() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "printf 'a\\nb\\nc'; [ $CC_EXECUTOR_ATTEMPT = 2 ] || exec sleep 1000";
    for (when_full, lines, reason, stored, dropped) in [
        ("fail", 3, json!("output_limit"), "a\nb\nca\n", 0),
        ("fail", 2, json!("output_limit"), "a\nb\n", 0),
        ("fail", 4, json!("output_limit"), "a\nb\nca\nb\n", 0),
        ("drop_newest", 3, Value::Null, "a\nb\nca\n", 3),
        ("drop_newest", 9, Value::Null, "a\nb\nca\nb\nc", 0),
    ] {
        let output = json!({"max_lines": lines, "when_full": when_full});
        let job = submit(
            &server,
            &mut client,
            json!({"shell": line, "output": output}),
        );
        // What is over the bound of two lines ends the first attempt.
        let begun = if lines == 2 { 4 } else { 5 };
        until_true("the output", || client.get(&job)["output_bytes"] == begun);
        if lines > 2 {
            server.kill_shim();
        }
        let end = client.finished(&job);
        assert_eq!(end["reason"], reason, "{when_full} {lines}");
        assert_eq!(end["attempts"], if lines > 2 { 2 } else { 1 });
        assert_eq!(end["dropped_bytes"], dropped);
        assert_eq!(client.whole(&job).bytes, stored.as_bytes(), "{lines}");
    }
}

#[test]
fn a_job_that_is_to_be_stopped_is_not_run_again() {
    let mut scene = Scene::new();
    let id = scene.submit_again("echo begun; exec sleep 1000");
    let claim = scene.claim("s1");
    assert_eq!(claim.id, id);
    let spec = scene.spec(&claim);
    let (mut server, _) = scene.start_shim("s1").hello(1);
    server.run(spec);
    server.started();
    scene.wish(&claim, StopCause::Cancel, 10_000);
    scene.kill_shim("s1");
    let mut client = scene.start();
    let end = client.finished(&job(&claim));
    assert_eq!(
        (&end["state"], &end["reason"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert_eq!(
        (&end["attempts"], &end["exit_code"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(end["stop"]["by"], "test");
    assert_eq!(end["stop"]["signals"], json!([]));
    client.whole(&job(&claim)).verified();
    assert_eq!(scene.attempts(), "1.1:lost");
}

#[test]
fn between_two_attempts_it_waits_like_any_other_and_can_be_cancelled() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "held"}));
    let job = submit(
        &server,
        &mut client,
        json!({"shell": HOLDS, "queue": "held"}),
    );
    until_true("the output", || client.get(&job)["output_bytes"] == 10);
    client.ok("queue.set", json!({"queue": "held", "paused": true}));
    server.kill_shim();
    until_true("the loss", || client.get(&job)["state"] == "queued");
    let waiting = client.get(&job);
    assert_eq!(
        (&waiting["attempts"], &waiting["reason"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(
        (&waiting["finished_at"], &waiting["output_sha256"]),
        (&Value::Null, &Value::Null)
    );
    // It has started, so it is what it is.
    client.refused(
        -32004,
        "job.update",
        json!({"job": job["id"], "priority": 5}),
    );
    assert_eq!(client.control(&job, "cancel")["state"], "cancelled");
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"attempt 1\n");
    assert_eq!(transcript.verified()["stop"]["cause"], "cancel");
}

#[test]
fn what_was_kept_for_the_start_is_fed_to_every_attempt() {
    let server = Server::start();
    let mut client = server.connect();
    client.ok("queue.set", json!({"queue": "held", "paused": true}));
    let new = json!({"argv": ["cat"], "interactive": true, "stdin": "own ", "queue": "held"});
    let job = submit(&server, &mut client, new);
    let input = |client: &mut Client, data: &str| {
        client.ok(
            "job.input",
            json!({"job": job["id"], "data": data, "write_id": data}),
        );
    };
    input(&mut client, "kept ");
    client.ok("queue.set", json!({"queue": "held", "paused": false}));
    until_true("the output", || client.get(&job)["output_bytes"] == 9);
    input(&mut client, "taken ");
    until_true("the output", || client.get(&job)["output_bytes"] == 15);
    server.kill_shim();
    until_true("the second attempt", || {
        client.get(&job)["output_bytes"] == 24
    });
    // The process that had taken it is gone, and with it what was known of it.
    input(&mut client, "taken ");
    client.ok(
        "job.input",
        json!({"job": job["id"], "data": "", "eof": true}),
    );
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"own kept taken own kept taken ");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn an_end_on_paper_is_believed_and_nothing_runs_again() {
    let mut scene = Scene::new();
    let claim = scene.claimed_again("s1", "echo never");
    let mut paper = Paper::started(&scene, &claim);
    paper.output(Stream::Stdout, b"all").exit(Exit::Signal(9));
    let mut client = scene.start();
    let end = client.finished(&job(&claim));
    assert_eq!(
        (&end["reason"], &end["attempts"]),
        (&json!("signal"), &json!(1))
    );
    assert_eq!(scene.attempts(), "1.1:ended");
}
