//! The server as a service: what it tells a service manager, and that nobody else hears of it.

use std::{fs, os::unix::net::UnixDatagram};

use serde_json::json;

use crate::harness::{CEILING, Cli, Server};

/// What has been told to a service manager.
fn next(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = manager.recv(&mut bytes).expect("a message");
    String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
}

fn manager(at: &std::path::Path) -> UnixDatagram {
    let manager = UnixDatagram::bind(at).expect("a socket");
    manager.set_read_timeout(Some(CEILING)).expect("a timeout");
    manager
}

#[test]
fn a_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let place = tempfile::tempdir().expect("a directory");
    let at = place.path().join("notify");
    let manager = manager(&at);
    let path = at.to_str().expect("a UTF-8 path");
    let mut server = Server::with(&[], &[("NOTIFY_SOCKET", path)]);
    assert_eq!(next(&manager), "READY=1");
    let mut client = server.connect();
    let job = client.submit(json!({"shell": "echo \"<$NOTIFY_SOCKET>\""}));
    client.finished(&job);
    assert_eq!(client.download(&job, 4096), b"<>\n", "it is not for jobs");
    assert_eq!(server.stop().0.code(), Some(0));
    assert_eq!(next(&manager), "STOPPING=1");
}

#[test]
fn a_server_that_a_command_line_starts_tells_no_manager() {
    let place = tempfile::tempdir().expect("a directory");
    let at = place.path().join("notify");
    let manager = manager(&at);
    manager.set_nonblocking(true).expect("a socket");
    let server = Server::stopped(&[], &[]);
    let run = || server.cli("run").env("NOTIFY_SOCKET", &at);
    assert_eq!(run().args(["--", "true"]).run().code(), 0);
    let stopped = Cli::new(&server.data_dir(), "stop").run();
    assert_eq!(stopped.code(), 0, "{}", stopped.err());
    let heard = manager.recv(&mut [0; 256]).expect_err("nothing");
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock);
    assert!(fs::exists(&at).expect("the socket"), "it was there to tell");
}
