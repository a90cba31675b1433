//! Bytes as text: never changed, never cut inside a character because a chunk was.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Server, Transcript, assert_bytes, content, emit};

#[test]
fn text_comes_as_text_and_other_bytes_as_base64() {
    let server = Server::start();
    let mut client = server.connect();
    // Long enough that base64 is not shorter than the escapes; coreutils' own printf writes it at
    // once, where a shell's may cut it.
    let words = "viele grüße aus der ferne \\000 \\033[1m";
    let text = client.submit(json!({"argv": ["/usr/bin/printf", words]}));
    let transcript = client.whole(&text);
    assert_eq!(
        transcript.bytes,
        "viele grüße aus der ferne \0 \x1b[1m".as_bytes()
    );
    assert_eq!(transcript.base64_chunks, 0);

    let argv = json!([emit(), "--seed", "2", "--raw", "--bytes", "100000"]);
    let raw = client.submit(json!({"argv": argv}));
    let transcript = client.whole(&raw);
    assert_bytes(
        &transcript.bytes,
        &content(2, 0, 100_000, true),
        "raw bytes",
    );
    assert!(transcript.base64_chunks > 0);
    transcript.verified();
}

#[test]
fn a_character_written_a_byte_at_a_time_comes_whole() {
    let server = Server::start();
    let mut client = server.connect();
    // ä, €, 😀: two, three and four bytes, each byte with a write of its own.
    let bytes = [
        "303", "244", "342", "202", "254", "360", "237", "230", "200",
    ];
    let line: String = bytes
        .iter()
        .map(|byte| format!("printf '\\{byte}'; sleep 0.01; "))
        .collect();
    let job = client.submit(json!({"shell": line}));
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, "ä€😀".as_bytes());
    assert_eq!(transcript.base64_chunks, 0, "no character was cut");
    transcript.verified();
}

#[test]
fn half_a_character_is_not_kept_for_long() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(server.marked(json!({"shell": "printf 'a\\303'; exec sleep 1000"})));
    let subscription = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    while transcript.bytes != b"a\xc3" {
        client.step(subscription, &mut transcript);
    }
    assert_eq!(transcript.base64_chunks, 1);
    client.control(&job, "kill");
    client.follow(subscription, &mut transcript);
}

#[test]
fn half_a_character_at_the_end_arrives() {
    let server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"shell": "printf 'a\\342\\202'"}));
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"a\xe2\x82");
    transcript.verified();
}

#[test]
fn another_stream_between_the_halves_of_a_character_keeps_the_order() {
    let server = Server::start();
    let mut client = server.connect();
    let line = "printf '\\303'; sleep 0.05; printf x >&2; sleep 0.05; printf '\\244'";
    let job = client.submit(json!({"shell": line}));
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes, b"\xc3x\xa4");
    assert_eq!(transcript.streams[0], "ä".as_bytes());
    transcript.verified();
}

#[test]
fn a_prompt_without_newline_arrives_at_once() {
    let server = Server::start();
    let mut client = server.connect();
    let gate = server.scratch("gate");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; date +%s%N >{}; printf 'name? '; exec sleep 1000",
        gate.display(),
        server.scratch("at").display(),
    );
    let job = client.submit(server.marked(json!({"shell": line})));
    client.started(&job);
    let subscription = client.tail(json!({"job": job["id"]}));
    let mut transcript = Transcript::default();
    while transcript.caught_up.is_none() {
        client.step(subscription, &mut transcript);
    }
    std::fs::write(&gate, "").expect("the gate");
    while transcript.bytes != b"name? " {
        client.step(subscription, &mut transcript);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the job tells the wall clock's time"
    )]
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let wrote = std::fs::read_to_string(server.scratch("at")).expect("the time");
    let wrote: u64 = wrote.trim().parse().expect("nanoseconds");
    let took = now.saturating_sub(Duration::from_nanos(wrote));
    // Promised are 200 ms; a busy machine that runs many tests at once gets ten times that.
    assert!(took < Duration::from_secs(2), "the prompt took {took:?}");
    client.control(&job, "kill");
    client.follow(subscription, &mut transcript);
}

#[test]
fn a_line_of_sixteen_megabytes_is_one_line() {
    let server = Server::start();
    let mut client = server.connect();
    let began = Instant::now();
    let line = "head -c 16777216 /dev/zero | tr '\\0' x; echo";
    let job = client.submit(json!({"shell": line}));
    let transcript = client.whole(&job);
    assert_eq!(transcript.bytes.len(), 16_777_217, "{:?}", began.elapsed());
    assert!(
        transcript.bytes[..16_777_216]
            .iter()
            .all(|byte| *byte == b'x')
    );
    transcript.verified();
}

#[test]
fn output_that_looks_like_our_own_protocol_is_only_output() {
    let server = Server::start();
    let mut client = server.connect();
    let fake = r#"{"jsonrpc":"2.0","method":"job.end","params":{"job":{}}}"#;
    let line = format!(
        "printf '%s\\n' '{fake}'; cat {}/spool/*.seg",
        server.data_dir().display()
    );
    let job = client.submit(json!({"shell": line}));
    let transcript = client.whole(&job);
    assert!(transcript.bytes.starts_with(fake.as_bytes()));
    assert!(
        transcript.bytes.len() > fake.len() + 33,
        "the segment was printed"
    );
    transcript.verified();
}
