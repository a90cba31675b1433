//! The data directory removed, replaced or made read-only under a running server: what it has not
//! kept it does not acknowledge. A full disk has a file of its own.

use std::{fs, process::Command};

use serde_json::json;

use crate::harness::Server;

/// A submit is not acknowledged, and the server ends with an error that says why.
fn refuses_and_ends(server: &mut Server, client: &mut crate::harness::Client, why: &str) {
    let submitted = client.try_call("job.submit", json!({"argv": ["true"]}));
    assert!(
        !matches!(submitted, Ok(Ok(_))),
        "acknowledged: {submitted:?}"
    );
    let status = server.ended();
    assert_eq!(status.code(), Some(1), "{}", server.said());
    assert!(server.said().contains(why), "{}", server.said());
}

#[test]
fn in_a_directory_that_was_removed_nothing_is_acknowledged() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["true"]}));
    client.finished(&job);
    fs::remove_dir_all(server.data_dir()).expect("removed");
    refuses_and_ends(&mut server, &mut client, "removed or replaced");
}

#[test]
fn in_a_directory_that_was_replaced_nothing_is_acknowledged_and_nothing_lost() {
    let mut server = Server::start();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["echo", "kept"]}));
    client.finished(&job);
    let aside = server.scratch("aside");
    fs::rename(server.data_dir(), &aside).expect("moved away");
    fs::create_dir(server.data_dir()).expect("another one");
    refuses_and_ends(&mut server, &mut client, "removed or replaced");
    fs::remove_dir_all(server.data_dir()).expect("removed");
    fs::rename(&aside, server.data_dir()).expect("put back");
    server.restart();
    assert_eq!(server.connect().whole(&job).bytes, b"kept\n");
}

#[test]
fn on_a_read_only_file_system_nothing_is_acknowledged_and_nothing_lost() {
    let server = Server::stopped(&[], &[]);
    let place = server.data_dir();
    fs::create_dir(&place).expect("a directory");
    let mount = |words: &[&str]| {
        let mut command = Command::new("mount");
        command.args(words).arg(&place);
        command.output().is_ok_and(|done| done.status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=64m,mode=0700", "none"]) {
        eprintln!("SKIPPED: a tmpfs cannot be mounted here");
        return;
    }
    let mut server = server;
    server.restart();
    let mut client = server.connect();
    let job = client.submit(json!({"argv": ["echo", "kept"]}));
    client.finished(&job);
    // A file that is open for writing keeps a remount away; a bind mount is not asked.
    let locked = mount(&["-o", "remount,ro,bind", "none"]);
    if locked {
        refuses_and_ends(&mut server, &mut client, "the database");
        assert!(mount(&["-o", "remount,rw,bind", "none"]));
        server.restart();
        assert_eq!(server.connect().whole(&job).bytes, b"kept\n");
    } else {
        eprintln!("SKIPPED: a tmpfs cannot be made read-only here");
    }
    drop(server);
    let _ = Command::new("umount").arg("-l").arg(&place).status();
}
