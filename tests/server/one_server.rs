//! One server on a data directory, whatever is removed or moved under it; and a way to end it.

use std::{fs, process::Command};

use serde_json::json;

use crate::harness::{BINARY, Cli, Client, Server, until, until_true};

#[test]
fn a_removed_lock_lets_no_second_server_start() {
    let server = Server::start();
    for names in [&["lock"][..], &["lock", "server.sock"]] {
        for name in names {
            fs::remove_file(server.data_dir().join(name)).expect("removed");
        }
        let second = Command::new(BINARY)
            .args(["serve", "--listen", "none", "--data-dir"])
            .arg(server.data_dir())
            .output()
            .expect("the binary starts");
        assert!(!second.status.success());
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(said.contains(&server.pid().to_string()), "{said}");
        until_true("the lock to be made again", || {
            let told = fs::read_to_string(server.data_dir().join("lock"));
            told.is_ok_and(|pid| pid == server.pid().to_string())
        });
    }
}

#[test]
fn a_removed_socket_is_made_again() {
    let server = Server::start();
    let job = server.connect().submit(json!({"argv": ["true"]}));
    for _ in 0..2 {
        fs::remove_file(server.socket()).expect("removed");
        let listed = server.cli("ls").args(["--json"]).run().json();
        assert_eq!(listed[0]["id"], job["id"], "the same server answers");
        until("the socket", || Client::try_unix(&server.socket()).ok());
    }
    let status = server.cli("status").args(["--json"]).run().json();
    assert_eq!(status["pid"], server.pid());
}

#[test]
fn a_server_without_socket_and_lock_can_be_stopped_and_restarted() {
    let place = Server::stopped(&[], &[]);
    assert_eq!(place.cli("run").args(["--", "true"]).run().code(), 0);
    let pid = || {
        let status = place.cli("status").args(["--json"]).run();
        status.json()["pid"].clone()
    };
    let forget = || {
        for name in ["lock", "server.sock"] {
            let _ = fs::remove_file(place.data_dir().join(name));
        }
    };
    let first = pid();
    forget();
    let restarted = place.cli("restart").run();
    assert_eq!(restarted.code(), 0, "{}", restarted.err());
    assert_ne!(pid(), first);
    let last = pid();
    forget();
    let stopped = place.cli("stop").run();
    assert!(
        stopped.out().contains(&last.to_string()),
        "{}",
        stopped.err()
    );
    assert_eq!(place.cli("status").run().code(), 1);
}

#[test]
fn a_server_whose_directory_is_replaced_ends_and_leaves_the_new_one_alone() {
    let mut server = Server::start();
    let data_dir = server.data_dir();
    let aside = server.scratch("aside");
    fs::rename(&data_dir, &aside).expect("moved");
    fs::create_dir(&data_dir).expect("made");
    let done = Cli::new(&data_dir, "run").args(["--", "echo", "new"]).run();
    assert_eq!(done.out(), "new\n", "{}", done.err());
    assert!(!server.ended().success());
    let status = Cli::new(&data_dir, "status").args(["--json"]).run();
    assert_eq!(status.code(), 0, "the new one's socket is still there");
    assert_eq!(Cli::new(&data_dir, "stop").run().code(), 0);
    until_true("shims to leave", || server.shims().is_empty());
}
