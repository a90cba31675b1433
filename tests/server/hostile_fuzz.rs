//! Arbitrary bytes behind the upgrade, against the real server: it lives, and an honest session
//! beside notices nothing. More cases with `PROPTEST_CASES`.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use proptest::{prelude::*, test_runner::TestRunner};

use crate::harness::{CEILING, Server, text_frame};

/// Cases where nobody asks for more, and the share of what is asked for: each is a connection.
const CASES: u32 = 48;
const SHARE: u32 = 20;

/// Frames, right and wrong ones, and bytes that are none.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = || proptest::collection::vec(any::<u8>(), 0..300);
    let request = proptest::sample::select(vec![
        r#"{"jsonrpc":"2.0","id":1,"method":"server.info"}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"job.list","params":{"limit":1}}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"job.tail","params":{"job":1}}"#,
        "[]",
        "{",
    ]);
    let frame = prop_oneof![
        4 => request.prop_map(|text| text_frame(text.as_bytes())),
        2 => payload().prop_map(|payload| text_frame(&payload)),
        // Any head: reserved bits, opcodes, lengths, with or without a mask.
        2 => (any::<[u8; 2]>(), payload()).prop_map(|(head, payload)| [&head[..], &payload].concat()),
        // Text in fragments, control frames between them.
        1 => payload().prop_map(|payload| {
            let mut frame = text_frame(&payload);
            frame[0] = 0x01;
            [frame, vec![0x89, 0x80, 0, 0, 0, 0], vec![0x80, 0x80, 0, 0, 0, 0]].concat()
        }),
        1 => payload(),
    ];
    proptest::collection::vec(frame, 0..6).prop_map(|frames| frames.concat())
}

#[test]
fn fuzz_frames() {
    let server = Server::start();
    let config = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(CASES * SHARE),
    };
    let config = ProptestConfig {
        cases: (config.cases / SHARE).max(CASES),
        failure_persistence: None,
        ..config
    };
    let outcome = TestRunner::new(config).run(&frames(), |bytes| {
        let mut stream = UnixStream::connect(server.socket()).expect("it answers");
        stream.set_read_timeout(Some(CEILING)).expect("a timeout");
        let head = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head).expect("an upgrade");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte).expect("an upgrade");
            answer.extend(byte);
        }
        prop_assert!(answer.starts_with(b"HTTP/1.1 101 "));
        // It may hang up in the middle.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let ended = stream.read_to_end(&mut answer);
        let stuck = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        prop_assert!(!stuck, "the session does not end");
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    server.connect().still_works();
    assert!(!server.said().contains("panicked"), "{}", server.said());
}
