//! Submits whose reply does not come: what is known of the jobs is said, and the same command with the key
//! that it names makes no second one.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Cli, Client, Fate, Finished, Proxy, Running, Server, until, until_true};

/// A verb on the server at this address.
fn at(listen: &str, server: &Server, verb: &str) -> Cli {
    let url = format!("ws://{listen}");
    Cli::bare(verb, &server.data_dir()).args(["--server", &url, "--token", &server.token()])
}

fn jobs(client: &mut Client) -> Vec<Value> {
    let page = client.ok("job.list", json!({}));
    page["jobs"].as_array().expect("jobs").clone()
}

/// The key that a message names.
fn key(told: &str) -> String {
    let (_, rest) = told
        .split_once("--key ")
        .unwrap_or_else(|| panic!("no key in {told:?}"));
    rest.split_whitespace().next().expect("a key").to_owned()
}

/// Interrupts it until it ends.
fn interrupted(mut running: Running) -> Finished {
    until_true("it to end", || {
        let has_ended = running.child.try_wait().expect("our child").is_some();
        if !has_ended {
            running.signal(Signal::SIGINT);
        }
        has_ended
    });
    running.finish()
}

#[test]
fn an_interrupt_before_the_reply_says_that_the_job_may_run() {
    let server = Server::start();
    let mut client = server.connect();
    let words = ["--", "sh", "-c", "echo once"];
    for (nth, verb) in [(1, "run"), (2, "submit")] {
        let proxy = Proxy::start(server.listen(), |_| Fate::Mute);
        let running = at(&proxy.listen, &server, verb).args(words).spawn();
        until("the job", || (jobs(&mut client).len() == nth).then_some(()));
        let done = interrupted(running);
        assert_eq!(done.code(), 130, "{verb}: {}", done.err());
        let told = done.err();
        assert_eq!(told.lines().count(), 1, "{verb}: {told}");
        assert!(
            told.contains("unknown whether the job was submitted"),
            "{verb}: {told}"
        );
        let again = at(server.listen(), &server, verb).args(["--key", &key(&told)]);
        let again = again.args(words).run();
        assert_eq!(again.code(), 0, "{verb}: {}", again.err());
        assert_eq!(jobs(&mut client).len(), nth, "{verb}: no second job");
        if verb == "run" {
            assert_eq!(again.out(), "once\n");
        }
    }
}

#[test]
fn an_interrupt_before_anything_is_sent_says_nothing_about_a_job() {
    let server = Server::start();
    let file = server.scratch("jobs");
    std::fs::write(&file, "{\"argv\":[\"true\"]}\n").expect("a file");
    let file = file.display().to_string();
    let mut client = server.connect();
    for words in [
        &["run", "--", "true"][..],
        &["submit", "--", "true"],
        &["submit", "--many", &file],
    ] {
        // The upgrade is never answered.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let listen = listener.local_addr().expect("an address").to_string();
        let running = at(&listen, &server, words[0]).args(&words[1..]).spawn();
        let peer = listener.accept().expect("a client");
        let done = interrupted(running);
        drop(peer);
        assert_eq!(done.code(), 130, "{words:?}");
        assert!(!done.err().contains("unknown"), "{words:?}: {}", done.err());
    }
    assert!(jobs(&mut client).is_empty());
}

/// The reply is lost, and the server cannot be reached again.
fn lost(server: &Server) -> Proxy {
    Proxy::start(server.listen(), |n| match n {
        0 => Fate::ReplyLost,
        _ => Fate::Refused,
    })
}

#[test]
fn jobs_of_a_lost_reply_are_found_again_by_the_key_that_is_named() {
    let server = Server::start();
    let mut client = server.connect();
    let file = server.scratch("jobs");
    let lines = "{\"argv\":[\"true\"]}\n{\"argv\":[\"true\"],\"after\":[{\"job\":\"#0\"}]}\n";
    std::fs::write(&file, lines).expect("a file");
    let many = ["--many".to_owned(), file.display().to_string()];
    let one = ["--", "true"].map(str::to_owned);
    for (count, words, expected) in [(2, &many, "1\n2\n"), (3, &one, "")] {
        let proxy = lost(&server);
        let done = at(&proxy.listen, &server, "submit").args(words).run();
        let told = done.err();
        assert_eq!((done.code(), done.out().as_str()), (1, ""), "{told}");
        assert!(
            told.contains("unknown whether the job") && !told.contains("nothing was"),
            "{told}"
        );
        assert_eq!(jobs(&mut client).len(), count);
        let again = at(server.listen(), &server, "submit").args(["--key", &key(&told)]);
        let again = again.args(words).run();
        assert_eq!(again.code(), 0, "{}", again.err());
        assert!(again.out().contains(expected), "{}", again.out());
        assert_eq!(jobs(&mut client).len(), count, "no second job");
    }
    // Without the key each call makes jobs of its own.
    let again = at(server.listen(), &server, "submit").args(&many).run();
    assert_eq!((again.code(), again.out().as_str()), (0, "4\n5\n"));
}

#[test]
fn a_reply_that_is_lost_once_is_asked_for_again() {
    let server = Server::start();
    let mut client = server.connect();
    let file = server.scratch("jobs");
    std::fs::write(&file, "{\"argv\":[\"true\"]}\n").expect("a file");
    let file = file.display().to_string();
    for (count, words) in [
        (1, &["submit", "--many", &file][..]),
        (2, &["submit", "--", "true"]),
        (3, &["run", "--", "true"]),
    ] {
        let proxy = Proxy::start(server.listen(), |n| match n {
            0 => Fate::ReplyLost,
            _ => Fate::Lives,
        });
        let done = at(&proxy.listen, &server, words[0]).args(&words[1..]).run();
        assert_eq!((done.code(), done.err().as_str()), (0, ""), "{words:?}");
        assert_eq!(jobs(&mut client).len(), count, "{words:?}");
    }
}

#[test]
fn what_was_refused_was_not_submitted() {
    let server = Server::start();
    let mut client = server.connect();
    let file = server.scratch("jobs");
    std::fs::write(&file, "{\"argv\":[\"true\"]}\n{\"argv\":[]}\n").expect("a file");
    let file = file.display().to_string();
    for words in [&["--many", &file][..], &["--queue", "none", "--", "true"]] {
        let done = at(server.listen(), &server, "submit").args(words).run();
        assert_eq!(done.code(), 1, "{words:?}");
        assert!(
            !done.err().contains("unknown whether"),
            "{words:?}: {}",
            done.err()
        );
    }
    assert!(jobs(&mut client).is_empty());
}

#[test]
fn a_flow_of_a_lost_reply_is_named() {
    let server = Server::start();
    let mut client = server.connect();
    let file = server.scratch("flow.toml");
    std::fs::write(
        &file,
        "name = \"f\"\n[[step]]\nname = \"a\"\nshell = \"true\"\n",
    )
    .expect("a file");
    let proxy = lost(&server);
    let url = format!("ws://{}", proxy.listen);
    let done = Cli::bare("flow", &server.data_dir())
        .args(["run", "--server", &url, "--token", &server.token()])
        .args([file.display().to_string()])
        .run();
    let told = done.err();
    assert_eq!(done.code(), 1, "{told}");
    let (_, rest) = told
        .split_once("flow show ")
        .unwrap_or_else(|| panic!("{told}"));
    let id = rest.split('`').next().expect("an id");
    assert_eq!(jobs(&mut client)[0]["labels"]["flow"], id);
}
