//! `transcript.verify`: what is stored as it was recorded is intact, whatever form it has; each kind
//! of damage is found and named; claims are answered with their places.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    damaged::{flip, segments},
    harness::{Client, Server, content, emit, sha256, until, until_true},
};

const MIB: u64 = 1 << 20;

fn verify(client: &mut Client, job: &Value) -> Value {
    client.ok("transcript.verify", json!({"job": job["id"]}))
}

#[track_caller]
fn intact(client: &mut Client, job: &Value) -> Value {
    let verdict = verify(client, job);
    assert_eq!(verdict["intact"], true, "{verdict}");
    assert_eq!(verdict["problems"], json!([]));
    assert_eq!(verdict["job"], job["number"]);
    assert_eq!(verdict["state"], client.get(job)["state"]);
    verdict
}

/// The problems of a job that is not intact.
#[track_caller]
fn problems(server: &Server, job: &Value) -> Vec<Value> {
    let verdict = verify(&mut server.connect(), job);
    assert_eq!(verdict["intact"], false, "{verdict}");
    let problems = verdict["problems"].as_array().expect("problems");
    for problem in problems {
        assert!(problem["message"].is_string(), "{problem}");
    }
    problems.clone()
}

#[track_caller]
fn kinds(problems: &[Value]) -> Vec<&str> {
    let kinds = problems.iter().map(|problem| problem["what"].as_str());
    kinds.map(|what| what.expect("a kind")).collect()
}

/// A server with jobs whose outputs lie in rows and in several segments, stopped.
struct Used {
    server: Server,
    /// One row.
    small: Value,
    /// Rows of two attempts.
    twice: Value,
    /// Five segments.
    large: Value,
}

fn used() -> Used {
    let mut server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let small = client.submit(json!({"argv": ["echo", "small"]}));
    let line = "echo attempt $CC_EXECUTOR_ATTEMPT; [ $CC_EXECUTOR_ATTEMPT = 2 ] || exec sleep 1000";
    let twice = client.submit(server.marked(json!({"shell": line, "on_lost": "retry"})));
    until_true("the output", || client.get(&twice)["output_bytes"] == 10);
    server.kill_shim();
    let argv = json!([
        emit(),
        "--seed",
        "7",
        "--bytes",
        "5000000",
        "--chunk",
        "65536:65536"
    ]);
    let large = client.submit(json!({"argv": argv}));
    let [small, twice, large] = [small, twice, large].map(|job| client.finished(&job));
    for job in [&small, &twice, &large] {
        let verdict = intact(&mut client, job);
        assert_eq!(verdict["output_sha256"], job["output_sha256"]);
        assert_eq!(verdict["output_bytes"], job["output_bytes"]);
    }
    let (status, _) = server.stop();
    assert!(status.success());
    Used {
        server,
        small,
        twice,
        large,
    }
}

fn database(server: &Server) -> PathBuf {
    server.data_dir().join("cc-executor.db")
}

/// Changes the database of a stopped server by a plain `sqlite3`.
#[track_caller]
fn sql(server: &Server, sql: &str) {
    let mut command = Command::new("sqlite3");
    let asked = command.arg("-bail").arg(database(server)).arg(sql).output();
    let output = asked.expect("sqlite3 is installed (scripts/test does it)");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{sql}: {said}");
}

#[test]
fn jobs_of_every_form_are_intact() {
    let server = Server::start();
    let mut client = server.connect();
    let never = client.submit(json!({"argv": ["true"], "queue": "default"}));
    client.finished(&never);
    client.ok("queue.set", json!({"queue": "q", "paused": true}));
    let waits = client.submit(json!({"argv": ["true"], "queue": "q"}));
    intact(&mut client, &waits);
    client.control(&waits, "cancel");
    let silent = client.submit(json!({"argv": ["/nonexistent"]}));
    let dropping = |seed: &str, bytes: &str, when_full: &str, max_bytes: u64| {
        let argv = [
            emit(),
            "--seed",
            seed,
            "--bytes",
            bytes,
            "--chunk",
            "1:65536",
        ];
        json!({"argv": argv, "output": {"max_bytes": max_bytes, "when_full": when_full}})
    };
    let oldest = client.submit(dropping("1", "60000000", "drop_oldest", 16 * MIB));
    let newest = client.submit(dropping("2", "3000000", "drop_newest", MIB));
    let few = client.submit(dropping("3", "3000000", "drop_newest", 1000));
    let full = client.submit(dropping("4", "3000000", "fail", MIB));
    let paused = client.submit(json!({"shell": "read x; echo $x", "interactive": true}));
    client.started(&paused);
    client.control(&paused, "pause");
    client.control(&paused, "resume");
    client.ok("job.input", json!({"job": paused["id"], "data": "on\n"}));
    for job in [&never, &waits, &silent, &full, &paused] {
        let end = client.finished(job);
        let verdict = intact(&mut client, job);
        assert_eq!(verdict["output_sha256"], end["output_sha256"], "{end}");
        assert_eq!(verdict["output_bytes"], end["output_bytes"]);
        assert_eq!(verdict["gaps"], json!([]));
    }
    for (job, reason) in [
        (oldest, "drop_oldest"),
        (newest, "drop_newest"),
        (few, "drop_newest"),
    ] {
        let end = client.finished(&job);
        let verdict = intact(&mut client, &job);
        assert_eq!(verdict["output_sha256"], Value::Null);
        assert_eq!(verdict["output_bytes"], end["output_bytes"]);
        let [gap] = &verdict["gaps"].as_array().expect("gaps")[..] else {
            panic!("{verdict}");
        };
        assert_eq!(gap["reason"], reason);
        let length = gap["to"].as_u64().zip(gap["from"].as_u64());
        let length = length.map(|(to, from)| to - from);
        assert_eq!(length, end["dropped_bytes"].as_u64());
    }
}

#[test]
fn a_running_job_is_verified_as_far_as_it_has_come() {
    let server = Server::with(&["--segment-bytes", "1048576"], &[]);
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "{} --seed 5 --bytes 3500000 --chunk 65536:65536; while [ ! -e {} ]; do sleep 0.02; done; echo end",
        emit(),
        gate.display()
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    until_true("its output", || {
        client.get(&job)["output_bytes"] == 3_500_000
    });
    let so_far = sha256(&content(5, 0, 3_500_000, false));
    let claims = json!([{"sha256": so_far}, {"contains": "end\n"}]);
    let params = json!({"job": job["number"], "claims": claims});
    let verdict = client.ok("transcript.verify", params.clone());
    assert_eq!(
        (&verdict["intact"], &verdict["state"]),
        (&json!(true), &json!("running"))
    );
    assert_eq!(verdict["output_bytes"], 3_500_000);
    assert_eq!(verdict["output_sha256"], so_far);
    assert_eq!(
        verdict["claims"],
        json!([{"found": true}, {"found": false}])
    );
    // A file that goes under a running job is missed at once.
    let (at, second) = segments(&server, &job)[1].clone();
    let bytes = fs::read(&second).expect("a segment");
    fs::remove_file(&second).expect("removed");
    let found = problems(&server, &job);
    assert_eq!(found[0]["from"], at, "{found:?}");
    fs::write(&second, bytes).expect("written");
    fs::write(&gate, "").expect("the gate");
    let end = client.finished(&job);
    let verdict = client.ok("transcript.verify", params);
    assert_eq!(verdict["output_sha256"], end["output_sha256"]);
    assert_eq!(
        verdict["claims"],
        json!([{"found": false}, {"found": true, "offset": 3_500_000, "end": 3_500_004}])
    );
}

#[test]
fn a_flipped_byte_in_any_segment_is_found_and_named() {
    let Used {
        mut server, large, ..
    } = used();
    let segments = segments(&server, &large);
    assert_eq!(segments.len(), 5);
    let name = |path: &Path| {
        path.file_name()
            .expect("a name")
            .to_str()
            .map(str::to_owned)
    };
    server.restart();
    for nth in 0..segments.len() {
        let (first, path) = &segments[nth];
        let ends = segments.get(nth + 1).map_or(5_000_000, |next| next.0);
        let good = fs::read(path).expect("a segment");
        // In the file's header, in an output record, and in the last record, a seal or an exit.
        for (at, lost) in [(3, true), (300_000, true), (good.len() - 1, false)] {
            flip(path, at);
            let found = problems(&server, &large);
            let [problem] = &found[..] else {
                panic!("one problem: {found:?}");
            };
            assert_eq!(problem["what"], "damaged", "{problem}");
            assert_eq!(problem["segment"].as_str().map(str::to_owned), name(path));
            assert_eq!(problem["to"], ends, "{problem}");
            let from = problem["from"].as_u64().expect("an offset");
            assert!((*first..=ends).contains(&from), "{problem}");
            assert_eq!(from < ends, lost, "{problem}");
            let record = problem["byte"].as_u64().expect("a place");
            assert!(record <= at as u64, "{problem}");
            fs::write(path, &good).expect("written");
        }
    }
    intact(&mut server.connect(), &large);
}

#[test]
fn a_segment_that_is_gone_or_cut_off_is_named_and_the_others_are_still_checked() {
    let Used {
        mut server, large, ..
    } = used();
    let segments = segments(&server, &large);
    let (second, fourth) = (&segments[1], &segments[3]);
    let whole = fs::read(&second.1).expect("a segment");
    server.restart();
    let cut = |length: usize| fs::write(&second.1, &whole[..length]).expect("cut");
    for (damage, what) in [
        (
            &|| fs::remove_file(&second.1).expect("removed") as (),
            "missing",
        ),
        (&|| cut(0), "damaged"),
        (&|| cut(300_000), "damaged"),
        (&|| cut(whole.len() - 1), "damaged"),
    ] as [(&dyn Fn(), &str); 4]
    {
        damage();
        flip(&fourth.1, 100_000);
        let found = problems(&server, &large);
        assert_eq!(kinds(&found), [what, "damaged"], "{found:?}");
        assert_eq!(found[0]["to"], segments[2].0, "{found:?}");
        assert_eq!(found[1]["to"], segments[4].0, "{found:?}");
        let gap = client_gap(&server, &large);
        assert!(gap.is_some(), "a reader meets a gap, too");
        fs::write(&second.1, &whole).expect("written");
        flip(&fourth.1, 100_000);
    }
    intact(&mut server.connect(), &large);
}

/// The first gap that a reader meets, unless only a record behind the bytes is damaged.
fn client_gap(server: &Server, job: &Value) -> Option<Value> {
    server
        .connect()
        .whole(job)
        .gaps
        .first()
        .map(|gap| json!(gap))
}

/// Where the checksum was made right again only the digest tells: the states that were stored with
/// it narrow it down to the segment.
#[test]
fn a_segment_that_was_rewritten_with_a_right_checksum_is_named() {
    let Used {
        mut server, large, ..
    } = used();
    let segments = segments(&server, &large);
    let (first, path) = &segments[2];
    let mut bytes = fs::read(path).expect("a segment");
    // The first record behind the file's header: 40 bytes of header, then its bytes.
    let begin = (0..64)
        .find(|at| {
            bytes[*at..*at + 4] == 65_536_u32.to_le_bytes()
                && bytes[at + 16..at + 24] == first.to_le_bytes()
        })
        .expect("a record");
    let end = begin + 40 + 65_536;
    bytes[end - 1] ^= 1;
    let sum = crc32c::crc32c(&bytes[begin + 8..end]);
    bytes[begin + 4..begin + 8].copy_from_slice(&sum.to_le_bytes());
    fs::write(path, bytes).expect("written");
    server.restart();
    let found = problems(&server, &large);
    assert_eq!(kinds(&found), ["changed", "digest"], "{found:?}");
    assert_eq!(
        (&found[0]["from"], &found[0]["to"]),
        (&json!(first), &json!(segments[3].0))
    );
    let name = path.file_name().and_then(|name| name.to_str());
    assert_eq!(found[0]["segment"].as_str(), name);
}

#[test]
fn whatever_is_changed_in_the_database_is_found() {
    let Used {
        mut server,
        small,
        twice,
        large,
    } = used();
    let good = fs::read(database(&server)).expect("the database");
    let (third, path) = segments(&server, &large)[2].clone();
    let segment = fs::read(&path).expect("a segment");
    for (job, change, expected) in [
        (
            &small,
            "UPDATE output_chunks SET data = x'736d616c6d0a' WHERE job = ?",
            &["changed", "digest"][..],
        ),
        (
            &twice,
            "UPDATE output_chunks SET data = x'617474656d7074203131' WHERE job = ? AND attempt = 1",
            &["changed", "digest"],
        ),
        (
            &twice,
            "UPDATE output_chunks SET data = x'617474656d7074203332' WHERE job = ? AND attempt = 2",
            &["changed", "digest"],
        ),
        (
            &small,
            "DELETE FROM output_chunks WHERE job = ?",
            &["missing"],
        ),
        (
            &twice,
            "DELETE FROM output_chunks WHERE job = ? AND attempt = 1",
            &["missing"],
        ),
        (
            &twice,
            "UPDATE output_chunks SET attempt = 1 WHERE job = ?",
            &["attempts"],
        ),
        (
            &large,
            &format!("DELETE FROM segments WHERE job = ? AND first_offset = {third}"),
            &["missing"],
        ),
        (
            &large,
            &format!(
                "UPDATE segments SET end_offset = end_offset + 1 WHERE job = ? AND first_offset = {third}"
            ),
            &["length"],
        ),
        (
            &large,
            &format!(
                "UPDATE segments SET hash_state = (SELECT hash_state FROM segments WHERE job = ? AND first_offset = 0) WHERE job = ? AND first_offset = {third}"
            ),
            &["changed"],
        ),
        (
            &small,
            "UPDATE jobs SET output_bytes = output_bytes + 1 WHERE number = ?",
            &["attempts", "missing"],
        ),
        (
            &large,
            "UPDATE jobs SET output_bytes = 1000 WHERE number = ?",
            &["attempts", "length"],
        ),
        (
            &small,
            "UPDATE jobs SET output_sha256 = replace(output_sha256, substr(output_sha256, 1, 1), 'x') WHERE number = ?",
            &["digest"],
        ),
        (
            &small,
            "UPDATE jobs SET output_sha256 = NULL WHERE number = ?",
            &["digest"],
        ),
        (
            &small,
            "UPDATE jobs SET dropped_bytes = 1 WHERE number = ?",
            &["dropped"],
        ),
        (
            &small,
            "UPDATE output_chunks SET data = NULL, stream = NULL, at = NULL, gap = 'power_loss' WHERE job = ?",
            &["digest"],
        ),
        (
            &small,
            "UPDATE jobs SET state = 'failed', reason = 'timeout' WHERE number = ?",
            &["events"],
        ),
        (
            &small,
            "UPDATE jobs SET attempt = 2 WHERE number = ?",
            &["attempts", "events"],
        ),
        (
            &twice,
            "DELETE FROM attempts WHERE job = ? AND attempt = 1",
            &["attempts", "attempts"],
        ),
        (&small, "DELETE FROM events WHERE job = ?", &["events"]),
        (
            &small,
            "DELETE FROM events WHERE id = (SELECT min(id) FROM events WHERE job = ?)",
            &["events"],
        ),
        (
            &small,
            "DELETE FROM events WHERE id = (SELECT max(id) FROM events WHERE job = ?)",
            &["events"],
        ),
        (
            &twice,
            "DELETE FROM events WHERE to_state = 'queued' AND attempt = 1 AND job = ?",
            &["events"],
        ),
        (
            &twice,
            "UPDATE events SET to_state = 'cancelled' WHERE to_state = 'queued' AND attempt = 1 AND job = ?",
            &["events", "events"],
        ),
    ] as [(&Value, &str, &[&str]); 23]
    {
        let number = job["number"].to_string();
        sql(&server, &change.replace('?', &number));
        server.restart();
        let found = problems(&server, job);
        let mut found_kinds = kinds(&found);
        found_kinds.dedup();
        let mut expected = expected.to_vec();
        expected.dedup();
        assert_eq!(found_kinds, expected, "{change}: {found:?}");
        for other in [&small, &twice, &large]
            .into_iter()
            .filter(|other| *other != job)
        {
            intact(&mut server.connect(), other);
        }
        let (status, _) = server.stop();
        assert!(status.success());
        fs::write(database(&server), &good).expect("written");
        // A start has unlinked what no row named.
        fs::write(&path, &segment).expect("written");
    }
    server.restart();
    for job in [&small, &twice, &large] {
        intact(&mut server.connect(), job);
    }
}

/// The row is named where it can be but one, else the attempt.
#[test]
fn a_changed_row_is_named_as_closely_as_the_digests_tell() {
    let Used {
        mut server,
        small,
        twice,
        ..
    } = used();
    let row = |job: &Value, data: &str, attempt: u32| {
        let number = &job["number"];
        sql(
            &server,
            &format!(
                "UPDATE output_chunks SET data = {data} WHERE job = {number} AND attempt = {attempt}"
            ),
        );
    };
    row(&small, "x'536d616c6c0a'", 1);
    row(&twice, "x'617474656d7074203132'", 2);
    server.restart();
    let found = problems(&server, &small);
    assert_eq!(
        (&found[0]["row"], &found[0]["attempt"]),
        (&json!(0), &json!(1))
    );
    let found = problems(&server, &twice);
    assert_eq!(
        (&found[0]["from"], &found[0]["to"]),
        (&json!(10), &json!(20))
    );
    assert_eq!(
        (&found[0]["row"], &found[0]["attempt"]),
        (&json!(10), &json!(2))
    );
}

#[test]
fn claims_are_answered_with_their_places() {
    let Used {
        mut server,
        small,
        large,
        ..
    } = used();
    server.restart();
    let mut client = server.connect();
    let bytes = content(7, 0, 5_000_000, false);
    // Across the end of a segment, and across that of a record.
    let border = segments(&server, &large)[1].0 as usize;
    let text = |from: usize, to: usize| String::from_utf8(bytes[from..to].to_vec()).expect("text");
    let over = text(border - 40, border + 40);
    let place = bytes
        .windows(80)
        .position(|window| window == over.as_bytes());
    assert_eq!(place, Some(border - 40), "the text is there once");
    let line: String = text(128, 191)
        .bytes()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    let claims = json!([
        {"contains": over},
        {"regex": format!("^{line}$")},
        {"sha256": large["output_sha256"].as_str().map(str::to_uppercase)},
        {"contains": "a line that nobody ever printed"},
        {"regex": "never (seen|heard)"},
        {"sha256": small["output_sha256"]},
    ]);
    let verdict = client.ok(
        "transcript.verify",
        json!({"job": large["id"], "claims": claims}),
    );
    assert_eq!(verdict["intact"], true);
    let expected = json!([
        {"found": true, "offset": border - 40, "end": border + 40},
        {"found": true, "offset": 128, "end": 191},
        {"found": true},
        {"found": false}, {"found": false}, {"found": false},
    ]);
    assert_eq!(verdict["claims"], expected);
}

#[test]
fn wrong_requests_are_refused_and_the_session_goes_on() {
    let server = Server::start();
    let mut client = server.connect();
    client.refused(-32003, "transcript.verify", json!({"job": 1}));
    client.refused(-32602, "transcript.verify", json!({}));
    client.refused(-32602, "transcript.verify", json!({"job": 1, "claim": []}));
    let params = json!({"job": 1, "claims": [{"contains": "a"}, {"sha256": "a"}]});
    let refused = client.refused(-32602, "transcript.verify", params);
    assert_eq!(refused["data"]["index"], 1, "{refused}");
    let claims = vec![json!({"contains": "a"}); 65];
    let refused = client.refused(
        -32005,
        "transcript.verify",
        json!({"job": 1, "claims": claims}),
    );
    assert_eq!(refused["data"]["limit"], "claims_max");
    client.still_works();
}

/// A pattern that takes thousands of steps for each byte: for 6 MB it needs minutes.
fn evil() -> Value {
    json!([{"regex": "(?:a?){900}a{900}b"}])
}

/// A job whose output that pattern begins to match everywhere.
fn letters(client: &mut Client) -> Value {
    let line = "head -c 6000000 /dev/zero | tr '\\0' a";
    let job = client.submit(json!({"shell": line}));
    client.finished(&job)
}

#[test]
fn a_hard_pattern_has_a_deadline_and_others_take_their_turns_meanwhile() {
    let server = Server::with(&["--verify-timeout-s", "86400"], &[]);
    let mut client = server.connect();
    let large = letters(&mut client);
    let small = client.submit(json!({"argv": ["echo", "small"]}));
    client.finished(&small);
    let params = json!({"job": large["id"], "claims": evil()});
    // Several sessions, and several of one.
    let mut hard: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = server.connect();
            client.begin("transcript.verify", params.clone());
            client.begin("transcript.verify", params.clone());
            client
        })
        .collect();
    let mut other = server.connect();
    intact(&mut other, &small);
    let wait = json!({"jobs": [small["id"]], "until": {"regex": "small"}, "timeout_s": 60});
    assert_eq!(other.ok("job.wait", wait)["met"], true);
    for client in &mut hard {
        let answer = client.frame_within(Duration::from_millis(1));
        assert_eq!(answer, None, "a hard one is still on its way");
    }
    // All of them are given up, so that the one with a deadline has the processor.
    drop(hard);
    let server = Server::with(&["--verify-timeout-s", "1"], &[]);
    let mut client = server.connect();
    let large = letters(&mut client);
    let params = json!({"job": large["id"], "claims": evil()});
    let error = client.refused(-32005, "transcript.verify", params);
    assert_eq!(error["data"]["limit"], "verify_timeout_s", "{error}");
    client.still_works();
}

#[test]
fn more_verifications_than_may_wait_are_refused() {
    let args = ["--verifies-max", "1", "--verifies-waiting-max", "0"];
    let server = Server::with(&args, &[]);
    let mut client = server.connect();
    let large = letters(&mut client);
    let small = client.submit(json!({"argv": ["echo", "small"]}));
    client.finished(&small);
    let params = json!({"job": large["id"], "claims": evil()});
    let mut other = server.connect();
    until("a refusal", || {
        // The other one may have been faster, and this one was refused: a small one is over soon.
        client.begin("transcript.verify", params.clone());
        let asked = other.call("transcript.verify", json!({"job": small["id"]}));
        let error = asked.err()?;
        assert_eq!(error["data"]["limit"], "verifies_waiting_max", "{error}");
        Some(())
    });
    // One whose client has left gives its place back, within a turn.
    drop(client);
    until("the place", || {
        let asked = other.call("transcript.verify", json!({"job": small["id"]}));
        asked.ok()
    });
}

#[test]
fn patterns_that_take_too_much_room_together_are_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let claims = vec![json!({"regex": "(?:[a-z]{5}x?){400}"}); 64];
    let params = json!({"job": 1, "claims": claims});
    let error = client.refused(-32005, "transcript.verify", params);
    assert_eq!(
        error["data"]["limit"], "claims_compiled_bytes_max",
        "{error}"
    );
}

/// A search without an end keeps nobody else from searching, nor from verifying.
#[test]
fn a_wait_for_a_hard_pattern_takes_turns_with_others() {
    let server = Server::start();
    let mut client = server.connect();
    let large = letters(&mut client);
    let small = client.submit(json!({"argv": ["echo", "small"]}));
    client.finished(&small);
    let mut hard = server.connect();
    for _ in 0..8 {
        let until = json!({"regex": "(?:a?){900}a{900}b"});
        hard.begin("job.wait", json!({"jobs": [large["id"]], "until": until}));
    }
    intact(&mut client, &small);
    let wait = json!({"jobs": [small["id"]], "until": {"regex": "small"}});
    assert_eq!(client.ok("job.wait", wait)["met"], true);
}

/// A long verification keeps nobody waiting: not the requests behind it, and not the server's stop.
#[test]
fn a_verification_runs_beside_the_others_and_ends_with_its_session() {
    let mut server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "8",
        "--bytes",
        "40000000",
        "--chunk",
        "65536:65536"
    ]);
    let job = client.submit(json!({"argv": argv}));
    client.finished(&job);
    // Of a pattern that begins everywhere each byte is looked at.
    let claims: Vec<_> = (0..8)
        .map(|n| json!({"regex": format!("[^{n}]{{300}}never")}))
        .collect();
    let params = json!({"job": job["id"], "claims": claims});
    let asked = client.begin("transcript.verify", params.clone());
    let info = client.ok("server.info", json!({}));
    assert!(info["version"].is_string());
    let others = [0; 3].map(|_| client.begin("transcript.verify", params.clone()));
    assert!(client.get(&job)["number"].is_number());
    drop(client);
    let mut client = server.connect();
    // The places of those that are gone are free.
    let small = client.submit(json!({"argv": ["true"]}));
    client.finished(&small);
    until("a turn", || {
        let verdict = verify(&mut client, &small);
        (verdict["intact"] == true).then_some(())
    });
    let _ = (asked, others);
    client.begin("transcript.verify", params);
    let (status, _) = server.stop();
    assert!(status.success());
}
