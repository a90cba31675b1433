//! What stands before every handler: `Host`, `Origin`, file modes; and the two open routes.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::harness::Server;

fn get_with(server: &Server, headers: &str) -> u16 {
    let text = format!("GET /health HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    server.http(&text).status
}

fn port(server: &Server) -> String {
    let (_, port) = server.listen().rsplit_once(':').expect("a port");
    port.to_owned()
}

#[test]
fn health_needs_no_token() {
    let server = Server::start();
    server.connect().submit(json!({"argv": ["true"]}));
    let answer = server.get("/health");
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["status"], "ok");
    assert_eq!(body["version"], server.ready["version"]);
    assert!(body["uptime_s"].is_number(), "{body}");
    assert!(body["sessions"].is_u64(), "{body}");
    assert!(body["jobs"]["queued"].is_u64(), "{body}");
    assert!(body["jobs"]["running"].is_u64(), "{body}");
    ready_with_token(&server);
}

#[test]
fn exactly_one_host_is_needed() {
    let server = Server::start();
    let listen = server.listen().to_owned();
    assert_eq!(get_with(&server, ""), 400);
    let twice = format!("Host: {listen}\r\nHost: {listen}\r\n");
    assert_eq!(get_with(&server, &twice), 400);
}

#[test]
fn only_our_own_hosts_are_let_in() {
    let server = Server::start();
    let port = port(&server);
    for good in ["localhost", "127.0.0.1", "[::1]"] {
        let with_port = format!("Host: {good}:{port}\r\n");
        assert_eq!(get_with(&server, &with_port), 200, "{with_port}");
    }
    for bad in [
        "evil.com",
        "localhost.evil.com",
        "0.0.0.0",
        "127.0.0.1.evil.com",
        "evil.com@localhost",
    ] {
        let header = format!("Host: {bad}:{port}\r\n");
        let status = get_with(&server, &header);
        assert!(status == 403 || status == 400, "{header} got {status}");
    }
    assert_eq!(
        get_with(&server, &format!("Host: evil.com:{port}\r\n")),
        403
    );
}

#[test]
fn only_our_own_origins_are_let_in() {
    let server = Server::start();
    let (listen, port) = (server.listen().to_owned(), port(&server));
    let status =
        |origin: &str| get_with(&server, &format!("Host: {listen}\r\nOrigin: {origin}\r\n"));
    assert_eq!(status(&format!("http://localhost:{port}")), 200);
    assert_eq!(status(&format!("http://127.0.0.1:{port}")), 200);
    for bad in [
        "null",
        "http://evil.com",
        "http://localhost.evil.com",
        &format!("http://localhost.evil.com:{port}"),
        "http://localhost",
        "http://localhost:1",
    ] {
        assert_eq!(status(bad), 403, "{bad}");
    }
}

#[test]
fn a_foreign_origin_gets_no_websocket_even_with_a_token() {
    let server = Server::start();
    let (host, token) = (server.listen(), server.token());
    let answer = server.http(&format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.com\r\n\
         Authorization: Bearer {token}\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ));
    assert_eq!(answer.status, 403);
}

/// A HEAD once got a session.
#[test]
fn a_session_begins_with_get_and_nothing_else() {
    let server = Server::start();
    let (host, token) = (server.listen(), server.token());
    for path in ["/ws", "/ws/mcp"] {
        for method in ["HEAD", "POST", "PUT", "OPTIONS", "DELETE", "get", "QUERY"] {
            let answer = server.http(&format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nConnection: close\r\n\r\n"
            ));
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET"), "{method} {path}");
        }
    }
    let old = server.http(&format!(
        "GET /ws HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ));
    assert_eq!(old.status, 426);
    assert_eq!(server.connect().ok("server.info", json!({}))["sessions"], 1);
}

#[test]
fn an_address_beyond_this_machine_is_listened_on_only_where_that_is_meant() {
    let place = Server::stopped(&[], &[]);
    for far in ["0.0.0.0:0", "[::]:0"] {
        let refused = place.cli("serve").args(["--listen", far]).run();
        assert_ne!(refused.code(), 0);
        assert!(
            refused.err().contains("--insecure-listen"),
            "{}",
            refused.err()
        );
        assert!(!place.data_dir().exists(), "nothing was made");
    }
    let said = |words: &[&str], variable: &str| {
        let mut call = place.cli("serve").args(["--listen", "0.0.0.0:0"]);
        if !variable.is_empty() {
            call = call.env("CC_EXECUTOR_INSECURE_LISTEN", variable);
        }
        let running = call.args(words).spawn();
        crate::harness::until_true("a server", || place.cli("status").run().status.success());
        running.signal(nix::sys::signal::Signal::SIGTERM);
        running.finish().out()
    };
    for (words, variable) in [(&["--insecure-listen"][..], ""), (&[], "true")] {
        let ready = said(words, variable);
        assert!(ready.contains("\"listen\":\"0.0.0.0:"), "{ready}");
    }
}

#[test]
fn secrets_and_sockets_are_for_the_owner_only() {
    let server = Server::start();
    let mode = |path: &std::path::Path| {
        let meta = fs::metadata(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        meta.permissions().mode() & 0o777
    };
    let token_file = server.ready["token_file"].as_str().expect("token_file");
    assert_eq!(mode(token_file.as_ref()), 0o600);
    assert_eq!(mode(&server.socket()), 0o600);
    assert_eq!(mode(&server.data_dir()) & 0o077, 0);
}

#[test]
fn the_ready_line_tells_where_everything_is() {
    let server = Server::start();
    let ready = &server.ready;
    assert_eq!(ready["pid"], server.pid());
    assert_eq!(
        ready["data_dir"],
        server.data_dir().to_str().expect("UTF-8")
    );
    assert!(server.listen().starts_with("127.0.0.1:"));
    assert!(server.token().len() >= 32, "a token that can be guessed");
}

#[test]
fn what_is_not_there_is_404() {
    let server = Server::start();
    assert_eq!(server.get("/no-such-thing").status, 404);
}

#[test]
fn connections_that_never_finish_their_request_harm_nobody() {
    let server = Server::start();
    let half_open: Vec<std::net::TcpStream> = (0..200)
        .map(|n| {
            let mut stream = std::net::TcpStream::connect(server.listen()).expect("connect");
            let begin = &b"GET /ws HTTP/1.1\r\nHost: "[..n % 25];
            std::io::Write::write_all(&mut stream, begin).expect("send");
            stream
        })
        .collect();
    server.connect().still_works();
    assert_eq!(server.get("/health").status, 200);
    drop(half_open);
}

/// Everything but `/health` and the greeting needs a token.
fn ready_with_token(server: &Server) {
    assert_eq!(server.get("/ready").status, 401);
    let (host, token) = (server.listen(), server.token());
    let answer = server.http(&format!(
        "GET /ready HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    ));
    assert_eq!(answer.status, 200);
}
