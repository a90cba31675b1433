//! Conversations with interactive jobs: what is sent arrives, in order, once, whatever happens to
//! the server in between.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Client, Frame, Frozen, Server, assert_bytes, content, until, until_true};

/// Most bytes that wait for a process.
const WAITING_MAX: usize = 1 << 20;

/// Submits an interactive job that waits to be started or runs.
fn interactive(server: &Server, client: &mut Client, mut job: Value) -> Value {
    job["interactive"] = json!(true);
    client.submit(server.marked(job))
}

/// Sends an input that must be taken.
fn say(client: &mut Client, job: &Value, text: &str) {
    let reply = client.ok("job.input", json!({"job": job["id"], "data": text}));
    assert_eq!(reply, json!({"accepted_bytes": text.len()}));
}

fn end(client: &mut Client, job: &Value) {
    let reply = client.ok("job.input", json!({"job": job["id"], "eof": true}));
    assert_eq!(reply, json!({"accepted_bytes": 0}));
}

/// Reads on from `from` until so many bytes are there.
fn hear(client: &mut Client, job: &Value, from: usize, bytes: usize) -> String {
    let mut heard = String::new();
    while heard.len() < bytes {
        let at = from + heard.len();
        let read = json!({"job": job["id"], "from": at, "wait_ms": 60_000});
        for chunk in client.ok("job.read", read)["chunks"]
            .as_array()
            .expect("chunks")
        {
            heard += chunk["data"].as_str().expect("text");
        }
    }
    heard
}

/// Jobs in every slot of the default queue, so that the next one waits.
fn occupy(server: &Server, client: &mut Client) -> Vec<Value> {
    let mut running = Vec::new();
    until("a job that has to wait", || {
        let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
        running.push(job.clone());
        let params = json!({"jobs": [job["id"]], "until": "running", "timeout_s": 1});
        (client.ok("job.wait", params)["met"] == false).then_some(())
    });
    running
}

#[test]
fn a_conversation_is_question_and_answer() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "echo ready; while read -r l; do echo \"you said $l\"; done; echo bye; exit 3";
    let job = interactive(&server, &mut client, json!({"shell": line}));
    assert_eq!(job["interactive"], true);
    assert_eq!(hear(&mut client, &job, 0, 6), "ready\n");
    let mut at = 6;
    for word in ["one", "zwei", "três"] {
        say(&mut client, &job, &format!("{word}\n"));
        let answer = format!("you said {word}\n");
        assert_eq!(hear(&mut client, &job, at, answer.len()), answer);
        at += answer.len();
    }
    end(&mut client, &job);
    let transcript = client.whole(&job);
    assert!(transcript.bytes.ends_with(b"\nbye\n"));
    assert_eq!(transcript.verified()["exit_code"], 3);
    let late = json!({"job": job["id"], "data": "x"});
    let error = client.refused(-32004, "job.input", late);
    assert_eq!(error["data"]["kind"], "conflict");
}

#[test]
fn inputs_in_a_pipeline_keep_their_order_from_before_the_start_on() {
    let server = Server::start();
    let mut client = server.connect();
    let seen = json!({"argv": ["cat"], "stdin": "first "});
    let job = interactive(&server, &mut client, seen);
    let mut expected = "first ".to_owned();
    let mut sent = Vec::new();
    // As many as may be in flight, begun while the job is on its way to its start.
    for round in 0..8 {
        for at in 0..60 {
            let word = format!("{round}.{at} ");
            sent.push(client.begin("job.input", json!({"job": job["id"], "data": word})));
            expected += &word;
        }
        for id in sent.drain(..) {
            client.reply(id).expect("taken");
        }
    }
    end(&mut client, &job);
    let transcript = client.whole(&job);
    assert_eq!(String::from_utf8_lossy(&transcript.bytes), expected);
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn a_job_that_waits_keeps_what_it_is_sent_across_a_kill() {
    let mut server = Server::start();
    let mut client = server.connect();
    let occupants = occupy(&server, &mut client);
    let job = interactive(&server, &mut client, json!({"argv": ["cat"]}));
    let named = |data: &str| json!({"job": job["id"], "data": data, "write_id": data});
    client.ok("job.input", named("one "));
    server.kill_9();
    server.restart();
    let mut client = server.connect();
    client.ok("job.input", named("one "));
    client.ok("job.input", named("two "));
    assert_eq!(client.get(&job)["state"], "queued");
    let much = json!({"job": job["id"], "data": "x".repeat(600_000)});
    client.ok("job.input", much.clone());
    let error = client.refused(-32005, "job.input", much);
    assert_eq!(error["data"]["limit"], "input_bytes_max", "{error}");
    let end = json!({"job": job["id"], "data": "end", "eof": true});
    client.ok("job.input", end);
    let late = json!({"job": job["id"], "data": "x"});
    client.refused(-32004, "job.input", late);
    for occupant in &occupants {
        client.control(occupant, "kill");
    }
    let expected = format!("one two {}end", "x".repeat(600_000));
    let transcript = client.whole(&job);
    assert_bytes(&transcript.bytes, expected.as_bytes(), "what was kept");
    assert_eq!(transcript.verified()["state"], "succeeded");
}

#[test]
fn a_repeat_is_written_once_across_kills_of_the_server() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = interactive(&server, &mut client, json!({"argv": ["cat"]}));
    client.started(&job);
    let mut expected = String::new();
    for at in 0..4 {
        let word = format!("word {at}\n");
        expected += &word;
        let input = json!({"job": job["id"], "data": word, "write_id": format!("w{at}")});
        for _ in 0..2 {
            let reply = client.ok("job.input", input.clone());
            assert_eq!(reply, json!({"accepted_bytes": word.len()}));
        }
        // Sent, and the server killed before anybody can know what became of it.
        let unknown = format!("unknown {at}\n");
        expected += &unknown;
        let input = json!({"job": job["id"], "data": unknown, "write_id": format!("u{at}")});
        client.begin("job.input", input.clone());
        server.kill_9();
        server.restart();
        client = server.connect();
        for _ in 0..2 {
            client.ok("job.input", input.clone());
        }
        let known = json!({"job": job["id"], "data": word, "write_id": format!("w{at}")});
        client.ok("job.input", known);
    }
    end(&mut client, &job);
    let transcript = client.whole(&job);
    assert_eq!(String::from_utf8_lossy(&transcript.bytes), expected);
    assert_eq!(transcript.verified()["attempts"], 1);
}

#[test]
fn inputs_around_the_start_survive_kills() {
    let mut server = Server::start();
    let ledger = server.scratch("ledger");
    let line = format!("echo start >>{}; cat", ledger.display());
    let mut client = server.connect();
    for round in 0..6 {
        let job = interactive(&server, &mut client, json!({"shell": line}));
        let input = |at: i32| {
            let word = format!("{round}.{at} ");
            json!({"job": job["id"], "data": word, "write_id": word})
        };
        // Some taken, some on their way, the job claimed, sent to its shim, or running.
        let taken = round % 3;
        for at in 0..taken {
            client.ok("job.input", input(at));
        }
        for at in taken..4 {
            client.begin("job.input", input(at));
        }
        server.kill_9();
        server.restart();
        client = server.connect();
        for at in 0..5 {
            client.ok("job.input", input(at));
        }
        end(&mut client, &job);
        let transcript = client.whole(&job);
        let expected: String = (0..5).map(|at| format!("{round}.{at} ")).collect();
        assert_eq!(String::from_utf8_lossy(&transcript.bytes), expected);
        assert_eq!(transcript.verified()["attempts"], 1);
    }
    let starts = fs::read_to_string(&ledger).expect("the ledger");
    assert_eq!(starts.lines().count(), 6, "each ran exactly once");
}

#[test]
fn any_bytes_arrive() {
    let server = Server::start();
    let mut client = server.connect();
    let job = interactive(&server, &mut client, json!({"argv": ["cat"]}));
    let bytes = content(31, 0, 700_000, true);
    use base64::{Engine, engine::general_purpose::STANDARD};
    let input = json!({"job": job["id"], "data_base64": STANDARD.encode(&bytes), "eof": true});
    let reply = client.ok("job.input", input);
    assert_eq!(reply["accepted_bytes"], bytes.len());
    let transcript = client.whole(&job);
    assert_bytes(&transcript.bytes, &bytes, "stdin through cat");
    transcript.verified();
}

#[test]
fn a_job_that_does_not_read_has_a_bound() {
    let server = Server::start();
    let mut client = server.connect();
    let go = server.scratch("go");
    let line = format!("until [ -e {} ]; do sleep 0.02; done; cat", go.display());
    let job = interactive(&server, &mut client, json!({"shell": line}));
    client.started(&job);
    let piece = "p".repeat(100_000);
    let input = json!({"job": job["id"], "data": piece, "write_id": "last"});
    let mut taken = 0;
    let error = loop {
        let mut input = input.clone();
        input["write_id"] = json!(taken.to_string());
        match client.call("job.input", input) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    // What went into the pipe does not wait.
    assert!(
        (10..=11).contains(&taken),
        "{taken} of 100,000 bytes were taken"
    );
    assert_eq!(
        (&error["code"], &error["data"]["limit"]),
        (&json!(-32005), &json!("input_bytes_max"))
    );
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains("again") && message.contains(&WAITING_MAX.to_string()),
        "{message}"
    );
    fs::write(&go, "").expect("go");
    until_true("there is room", || {
        client.call("job.input", input.clone()).is_ok()
    });
    end(&mut client, &job);
    let transcript = client.whole(&job);
    assert_bytes(
        &transcript.bytes,
        piece.repeat(taken + 1).as_bytes(),
        "what was taken",
    );
}

#[test]
fn a_job_that_is_stopped_is_fed_when_it_goes_on() {
    let server = Server::start();
    let mut client = server.connect();
    let job = interactive(&server, &mut client, json!({"argv": ["cat"]}));
    client.started(&job);
    client.control(&job, "pause");
    say(&mut client, &job, "while paused\n");
    end(&mut client, &job);
    assert_eq!(client.get(&job)["state"], "paused");
    client.control(&job, "resume");
    assert_eq!(client.whole(&job).bytes, b"while paused\n");
}

#[test]
fn a_shim_that_does_not_answer_is_told_and_a_repeat_is_safe() {
    let server = Server::start();
    let mut client = server.connect();
    let job = interactive(&server, &mut client, json!({"argv": ["cat"]}));
    client.started(&job);
    let leader = server.job_processes();
    let shim = crate::harness::parent(leader[0]).expect("a shim");
    let Some(frozen) = Frozen::process(shim) else {
        return;
    };
    let input = json!({"job": job["id"], "data": "once\n", "write_id": "w"});
    let error = client.refused(-32006, "job.input", input.clone());
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("write_id"), "{message}");
    drop(frozen);
    until_true("the shim answers", || {
        client.call("job.input", input.clone()).is_ok()
    });
    end(&mut client, &job);
    assert_eq!(client.whole(&job).bytes, b"once\n");
}

#[test]
fn who_takes_no_input_says_so() {
    let server = Server::start();
    let mut client = server.connect();
    let input = |job: &Value| json!({"job": job["id"], "data": "x"});

    let plain = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    let error = client.refused(-32004, "job.input", input(&plain));
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("interactive"), "{message}");

    let line = "exec 0<&-; echo closed; exec sleep 1000";
    let deaf = interactive(&server, &mut client, json!({"shell": line}));
    hear(&mut client, &deaf, 0, 7);
    let error = client.refused(-32004, "job.input", input(&deaf));
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("closed"), "{message}");

    let done = interactive(&server, &mut client, json!({"argv": ["true"]}));
    client.finished(&done);
    let error = client.refused(-32004, "job.input", input(&done));
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("succeeded"), "{message}");

    client.refused(-32003, "job.input", json!({"job": 4711, "data": "x"}));
    for wrong in [
        json!({"data": "x"}),
        json!({"job": deaf["id"]}),
        json!({"job": deaf["id"], "data": "x", "data_base64": "eA=="}),
        json!({"job": deaf["id"], "data_base64": "?"}),
        json!({"job": deaf["id"], "data": "x", "write_id": ""}),
        json!({"job": deaf["id"], "data": "x", "write_id": "w".repeat(300)}),
        json!({"job": deaf["id"], "data": "x", "colour": 1}),
    ] {
        client.refused(-32602, "job.input", wrong);
    }
}

/// A process may read a line of a long input and end while the rest is still being written to it:
/// that input was taken, and whoever sent it must not be told that it was not.
#[test]
fn an_input_that_ends_its_process_was_taken() {
    let server = Server::start();
    let mut client = server.connect();
    let data = format!("5\n{}", "x".repeat(800_000));
    for nth in 0..25 {
        let job = json!({"shell": "read -r word; exit \"$word\"", "interactive": true});
        let job = client.submit(server.marked(job));
        client.started(&job);
        let input = json!({"job": job["id"], "data": data, "write_id": "w"});
        let taken = client.call("job.input", input);
        let taken = taken.unwrap_or_else(|why| panic!("the {nth}th: {why}"));
        assert_eq!(taken["accepted_bytes"], data.len());
        assert_eq!(client.finished(&job)["exit_code"], 5);
    }
}

/// What the session hears of other jobs does not wait for the shim of this one.
#[test]
fn a_shim_that_does_not_answer_silences_no_other_job() {
    let server = Server::with(&["--shim-answer-ms", "20000"], &[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    let asked = interactive(&server, &mut client, json!({"argv": ["cat"]}));
    client.started(&asked);
    let leader = server.job_processes();
    let shim = crate::harness::parent(leader[0]).expect("a shim");
    let heard = interactive(&server, &mut client, json!({"argv": ["cat"]}));
    client.started(&heard);
    // Several tails of the job that is asked, so that none of them may keep the turn of the others.
    for job in [&asked, &asked, &asked, &heard] {
        client.tail(json!({"job": job["id"]}));
        assert_eq!(client.notification()["method"], "job.caught_up");
    }
    for (method, keys) in [
        ("job.input", json!({"data": "late\n", "write_id": "w"})),
        ("job.control", json!({"action": "pause"})),
    ] {
        let Some(frozen) = Frozen::process(shim) else {
            return;
        };
        let mut params = keys;
        params["job"] = asked["id"].clone();
        let waiting = client.begin(method, params);
        for word in ["one\n", "two\n", "three\n"] {
            say(&mut other, &heard, word);
            let told = client.notification();
            assert_eq!(told["params"]["job"], heard["id"], "{method}: {told}");
            assert_eq!(told["params"]["data"], word, "{method}");
        }
        drop(frozen);
        // Nothing that the request causes comes before its reply.
        let first = client.frame();
        let Frame::Json(first) = first else {
            panic!("{first:?}");
        };
        assert_eq!(first["id"], waiting, "{method}: {first}");
        assert!(first["result"].is_object(), "{method}: {first}");
        for _ in 0..3 {
            assert_eq!(client.notification()["params"]["job"], asked["id"]);
        }
    }
}
