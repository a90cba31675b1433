//! What clients are refused stands in the log: of each peer and reason the first, then a count, so that
//! no client can fill it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    thread,
};

use serde_json::{Value, json};

use crate::harness::{CEILING, Client, Server, connect_refused, request, until};

/// Lines of the newest server about this reason.
fn told(server: &Server, reason: &str) -> Vec<Value> {
    let said = server.said_last();
    let lines = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| line["reason"] == reason)
        .collect()
}

/// All that was counted of them, the first one included.
fn counted(lines: &[Value]) -> u64 {
    let counts = lines.iter().map(|line| line["count"].as_u64().unwrap_or(1));
    counts.sum()
}

/// Waits until so many are told, in no more than a few lines.
#[track_caller]
fn all_told(server: &Server, reason: &str, count: u64) -> Vec<Value> {
    let lines = until(reason, || {
        let lines = told(server, reason);
        (counted(&lines) >= count).then_some(lines)
    });
    assert_eq!(counted(&lines), count, "{lines:?}");
    assert!(lines.len() <= 6, "{lines:?}");
    lines
}

/// So many requests with these headers, over one connection, all answered with this status.
#[track_caller]
fn flood(server: &Server, headers: &str, times: usize, status: u16) {
    let mut stream = TcpStream::connect(server.listen()).expect("connect");
    stream.set_read_timeout(Some(CEILING)).expect("set");
    let mut answers = BufReader::new(stream.try_clone().expect("cloned"));
    for _ in 0..times {
        let request = format!("GET /ready HTTP/1.1\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        assert_eq!(answer(&mut answers), status);
    }
}

/// Reads one answer; its status.
fn answer(answers: &mut impl BufRead) -> u16 {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        answers.read_line(&mut line).expect("a line");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
        head.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body).expect("a body");
    let status = head.split(' ').nth(1).expect("a status");
    status.parse().expect("a number")
}

#[test]
fn floods_of_foreign_requests_are_told_and_do_not_fill_the_log() {
    let server = Server::start();
    let host = server.listen().to_owned();
    let foreign = format!("Host: {host}\r\nOrigin: http://evil.com\r\n");
    let wrong = format!("Host: {host}\r\nAuthorization: Bearer wrong\r\n");
    flood(&server, "Host: evil.com\r\n", 3000, 403);
    flood(&server, &foreign, 3000, 403);
    flood(&server, &wrong, 3000, 401);
    flood(&server, &format!("Host: {host}\r\n"), 3000, 401);
    for reason in ["host", "origin", "wrong_bearer", "no_token"] {
        let lines = all_told(&server, reason, 3000);
        assert_eq!(lines[0]["peer"], "127.0.0.1");
        assert_eq!(lines[0]["level"], "WARN");
    }
    let bytes = server.said_last().len();
    assert!(bytes < 20_000, "{bytes} bytes");
}

#[test]
fn wrong_tokens_are_told_wherever_they_are_shown() {
    let server = Server::start();
    for _ in 0..3 {
        assert_eq!(connect_refused(server.listen(), Some("wrong")).0, 401);
    }
    let mut client = Client::tcp(server.listen(), None);
    for _ in 0..200 {
        client.refused(-32001, "session.authenticate", json!({"token": "wrong"}));
    }
    for _ in 0..4 {
        client.refused(-32001, "server.info", json!({}));
    }
    let host = server.listen();
    for _ in 0..5 {
        let answer = server.http(&format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: cc-executor, cc-executor.bearer.wrong\r\n\r\n"
        ));
        assert_eq!(answer.status, 401);
    }
    all_told(&server, "wrong_bearer", 3);
    all_told(&server, "wrong_token", 200);
    all_told(&server, "no_token", 4);
    all_told(&server, "wrong_sub_protocol", 5);
    let said = server.said_last();
    assert!(!said.contains(&server.token()), "a token is in the log");
}

#[test]
fn counts_that_are_not_told_yet_are_told_at_a_stop() {
    let mut server = Server::start();
    flood(&server, "Host: evil.com\r\n", 50, 403);
    server.stop();
    assert_eq!(counted(&told(&server, "host")), 50);
    server.restart();
}

#[test]
fn what_breaks_the_protocol_is_told_without_a_line_for_each() {
    let server = Server::start();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(server.listen()).expect("connect");
        stream
            .write_all(b"\x16\x03\x01\x02\x00\r\n\r\n")
            .expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    for _ in 0..50 {
        let mut client = server.connect();
        client.try_send_raw(&[0xff; 16]).expect("sent");
        assert_eq!(client.closed(), Some(1002));
    }
    for _ in 0..20 {
        let mut client = server.connect();
        let header = [0x81, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        client.try_send_raw(&header).expect("sent");
        assert_eq!(client.closed(), Some(1009));
    }
    all_told(&server, "malformed", 300);
    all_told(&server, "frame", 50);
    all_told(&server, "message_bytes_max", 20);
}

#[test]
fn connections_beyond_the_bound_are_told_without_a_line_for_each() {
    let server = Server::with(&[], &[("CC_EXECUTOR_TCP_CONNECTIONS_MAX", "4")]);
    let mut known: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for _ in 0..300 {
        let answer = server.get("/health");
        assert_eq!(answer.status, 503);
    }
    all_told(&server, "connections_max", 300);
    known.iter_mut().for_each(Client::still_works);
    drop(known);
}

/// The socket is open to all here, so that only the look at the peer is left.
#[test]
fn another_user_on_the_socket_is_refused_and_told() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    let server = Server::start();
    let open = |place: &std::path::Path, mode: u32| {
        fs::set_permissions(place, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let socket = server.socket();
    open(&server.scratch(""), 0o755);
    open(&server.data_dir(), 0o755);
    open(&socket, 0o666);
    // Of this thread alone.
    let stranger = thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).expect("another");
        for _ in 0..100 {
            let stream = UnixStream::connect(&socket).expect("connect");
            let asked = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            assert_eq!(request(stream, asked).status, 403);
        }
    });
    stranger.join().expect("refused");
    open(&server.data_dir(), 0o700);
    open(&server.scratch(""), 0o700);
    let lines = all_told(&server, "other_user", 100);
    assert_eq!(lines[0]["peer"], "unix uid 65534");
}
