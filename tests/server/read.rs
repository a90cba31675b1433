//! `job.read`: exact cuts, waiting, and the end.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{Client, Server, assert_bytes, content, emit, sha256};

fn data(chunk: &Value) -> Vec<u8> {
    match chunk["data"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => STANDARD
            .decode(chunk["data_base64"].as_str().expect("data or data_base64"))
            .expect("base64"),
    }
}

fn all_data(reply: &Value) -> Vec<u8> {
    let chunks = reply["chunks"].as_array().expect("chunks");
    chunks.iter().flat_map(data).collect()
}

#[test]
fn cuts_are_exact() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([emit(), "--seed", "9", "--bytes", "50000", "--raw"]);
    let job = client.submit(json!({"argv": argv}));
    client.finished(&job);
    let all = content(9, 0, 50_000, true);
    for (from, max) in [
        (0, 1),
        (0, 4096),
        (1, 4095),
        (17, 30_000),
        (49_999, 10),
        (0, 524_288),
    ] {
        let params = json!({"job": job["id"], "from": from, "max_bytes": max});
        let reply = client.ok("job.read", params);
        let end = all.len().min(from + max);
        assert_bytes(&all_data(&reply), &all[from..end], "a cut");
        assert_eq!(reply["next_offset"], end);
        assert_eq!(reply["end"].is_object(), end == all.len(), "{reply:.200}");
    }
}

#[test]
fn a_download_has_the_digest_of_the_end() {
    let server = Server::start();
    let mut client = server.connect();
    let argv = json!([
        emit(),
        "--seed",
        "10",
        "--bytes",
        "3000000",
        "--err-bytes",
        "99999",
        "--chunk",
        "1:50000"
    ]);
    let job = client.submit(json!({"argv": argv}));
    let bytes = client.download(&job, 524_288);
    assert_eq!(bytes.len(), 3_099_999);
    assert_eq!(client.get(&job)["output_sha256"], sha256(&bytes));
    assert_bytes(
        &client.download(&job, 100_001),
        &bytes,
        "again, cut otherwise",
    );
}

#[test]
fn without_a_size_it_is_64_kib() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": [emit(), "--bytes", "100000"]}));
    client.finished(&job);
    let reply = client.ok("job.read", json!({"job": job["id"], "from": 0}));
    assert_eq!(reply["next_offset"], 65_536);
    assert!(reply.get("end").is_none_or(Value::is_null));
}

#[test]
fn sizes_and_waits_have_bounds() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    client.finished(&job);
    for (key, value) in [
        ("max_bytes", json!(524_289)),
        ("max_bytes", json!(-1)),
        ("max_bytes", json!("1")),
        ("wait_ms", json!(60_001)),
        ("wait_ms", json!(-1)),
        ("colour", json!(1)),
    ] {
        let mut params = json!({"job": job["id"], "from": 0});
        params[key] = value;
        client.refused(-32602, "job.read", params);
    }
    client.refused(-32602, "job.read", json!({"job": job["id"]}));
}

#[test]
fn a_read_waits_for_the_first_byte_beside_other_requests() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; printf late",
        gate.display()
    );
    let job = client.submit(json!({"shell": line}));
    let waiting = client.begin(
        "job.read",
        json!({"job": job["id"], "from": 0, "wait_ms": 60_000}),
    );
    client.still_works();
    std::fs::write(&gate, "").expect("the gate");
    let reply = client.reply(waiting).expect("a read");
    assert_eq!(all_data(&reply), b"late");
}

#[test]
fn a_read_gives_up_after_its_wait() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"argv": ["sleep", "1000"]})));
    let began = Instant::now();
    let params = json!({"job": job["id"], "from": 0, "wait_ms": 300});
    let reply = client.ok("job.read", params);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(reply["chunks"], json!([]));
    assert_eq!(reply["next_offset"], 0);
}

#[test]
fn a_read_of_a_job_that_ends_silently_returns_the_end() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"shell": "sleep 0.2"}));
    let params = json!({"job": job["id"], "from": 0, "wait_ms": 60_000});
    let reply = client.ok("job.read", params);
    assert_eq!(reply["end"]["state"], "succeeded", "{reply}");
}

#[test]
fn one_stream_alone() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "printf a; sleep 0.05; printf b >&2; sleep 0.05; printf c";
    let job = client.submit(json!({"shell": line}));
    client.finished(&job);
    for (stream, text) in [("stdout", "ac"), ("stderr", "b")] {
        let params = json!({"job": job["id"], "from": 0, "streams": [stream]});
        let reply = client.ok("job.read", params);
        assert_eq!(all_data(&reply), text.as_bytes());
        assert_eq!(reply["next_offset"], 3, "{reply}");
        assert!(reply["end"].is_object());
    }
}

#[test]
fn a_read_that_reaches_the_last_byte_of_a_final_job_tells_the_end() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["printf", "12345"]}));
    client.finished(&job);
    let mut read = |max_bytes: u64| {
        let params = json!({"job": job["id"], "from": 0, "max_bytes": max_bytes});
        client.ok("job.read", params)
    };
    assert_eq!(read(5)["end"]["state"], "succeeded");
    assert_eq!(read(4)["end"], Value::Null);
}

/// A job whose stdout stays behind so many bytes of stderr, until it is sent a line.
fn behind_stderr(server: &Server, client: &mut Client, bytes: u64) -> Value {
    let line = format!("{} --seed 5 --err-bytes {bytes}; exec cat", emit());
    let job = client.submit(server.marked(json!({"shell": line, "interactive": true})));
    let written = json!({"jobs": [job["id"]], "until": {"bytes": bytes}, "timeout_s": 60});
    assert_eq!(client.ok("job.wait", written)["met"], true);
    job
}

/// Byte by byte these reads would take longer than the ceiling.
#[test]
fn a_read_of_one_stream_goes_past_the_other_in_large_steps() {
    const BYTES: u64 = 48_000_000;
    let server = Server::start();
    let mut client = server.connect();
    let job = behind_stderr(&server, &mut client, BYTES);
    let read = |keys: Value| {
        let mut params = json!({"job": job["id"], "from": 0, "streams": ["stdout"]});
        let object = params.as_object_mut().expect("an object");
        object.extend(keys.as_object().cloned().expect("an object"));
        params
    };
    // It waits no longer than it may, and says how far it looked.
    for keys in [json!({"wait_ms": 300}), json!({"max_bytes": 1})] {
        let mut reply = client.ok("job.read", read(keys.clone()));
        while reply["next_offset"] != BYTES {
            assert_eq!(reply["chunks"], json!([]), "{keys}");
            let on = json!({"job": job["id"], "from": reply["next_offset"], "streams": ["stdout"]});
            reply = client.ok("job.read", on);
        }
        assert_eq!(reply["chunks"], json!([]), "{keys}");
    }
    let waiting = client.begin("job.read", read(json!({"wait_ms": 60_000})));
    client.ok("job.input", json!({"job": job["id"], "data": "hi\n"}));
    let reply = client.reply(waiting).expect("a line");
    assert_eq!(reply["chunks"][0]["offset"], BYTES, "{reply}");
    assert_eq!(all_data(&reply), b"hi\n");
    let first = client.ok("job.read", read(json!({"max_bytes": 1})));
    assert_eq!(all_data(&first), b"h");
    assert_eq!(first["next_offset"], BYTES + 1);
    client.ok("job.input", json!({"job": job["id"], "eof": true}));
    let all = client.ok(
        "job.read",
        read(json!({"from": BYTES + 3, "wait_ms": 60_000})),
    );
    assert_eq!(
        (&all["chunks"], &all["end"]["state"]),
        (&json!([]), &json!("succeeded"))
    );
}
