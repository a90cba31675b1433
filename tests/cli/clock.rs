//! The command line where the wall clock jumps: pages stay readable, waits keep their length, and a
//! server that was started by itself is found again.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::harness::{Cli, DAY_S, Finished, Server, WallClock, until_true};

/// A command that goes by that clock.
fn by(clock: &WallClock, cli: Cli) -> Cli {
    let env = clock.env();
    env.into_iter()
        .fold(cli, |cli, (name, value)| cli.env(&name, value))
}

#[track_caller]
fn fine(done: Finished) -> String {
    assert_eq!(done.code(), 0, "{}", done.err());
    done.out()
}

/// The line of a page that begins with this word.
fn line<'a>(page: &'a str, word: &str) -> Option<&'a str> {
    page.lines().find(|line| line.starts_with(word))
}

#[test]
fn jobs_that_ended_before_they_began_are_shown() {
    let clock = WallClock::new();
    let env = clock.env();
    let env: Vec<_> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let server = Server::with(&[], &env);
    let gate = server.scratch("gate");
    let script = format!(
        "echo one; while [ ! -e {} ]; do sleep 0.02; done; echo two",
        gate.display()
    );
    let job = fine(server.cli("submit").args(["--shell", &script]).run());
    let job = job.trim();
    fine(server.cli("wait").args(["--until", "regex:one", job]).run());
    // Running since tomorrow.
    clock.jump_to(-DAY_S);
    let page = fine(by(&clock, server.cli("ls")).run());
    assert!(page.contains("running"), "{page}");
    fs::write(&gate, "").expect("the gate");
    fine(server.cli("wait").args([job]).run());

    let page = fine(server.cli("show").args([job]).run());
    assert_eq!(line(&page, "time"), None, "nobody knows how long: {page}");
    for word in ["submitted", "started", "finished"] {
        assert!(line(&page, word).is_some(), "{page}");
    }
    let page = fine(by(&clock, server.cli("show")).args([job]).run());
    let submitted = line(&page, "submitted").expect("a moment");
    assert!(
        submitted.contains("(in 23h59m)") || submitted.contains("(in 1d00h)"),
        "{page}"
    );
    for words in [&[][..], &["--utc"], &["--all"], &["--state", "succeeded"]] {
        let page = fine(by(&clock, server.cli("ls")).args(words).run());
        assert!(page.contains("succeeded"), "{page}");
    }
    let listed = server.cli("ls").args(["--json"]).run().json();
    let (began, ended) = (&listed[0]["started_at"], &listed[0]["finished_at"]);
    assert!(
        began.as_str() > ended.as_str(),
        "the test's point: {listed}"
    );
    let tail = fine(server.cli("tail").args(["--timestamps", job]).run());
    assert_eq!(tail.lines().count(), 2, "{tail}");
}

#[test]
fn a_wait_on_the_command_line_keeps_its_length() {
    let (clock, server) = (WallClock::new(), Server::start());
    let job = fine(server.cli("submit").args(["--", "sleep", "1000"]).run());
    for shift_s in [DAY_S, -DAY_S] {
        let began = Instant::now();
        let wait = by(&clock, server.cli("wait")).args(["--timeout", "2.5", job.trim()]);
        let wait = wait.spawn();
        until_true("its clock", || {
            let maps = fs::read_to_string(format!("/proc/{}/maps", wait.child.id()));
            maps.is_ok_and(|maps| maps.contains("shift.so"))
        });
        clock.jump_to(shift_s);
        assert_ne!(wait.finish().code(), 0, "it is not over");
        assert!(began.elapsed() >= Duration::from_millis(2500), "too early");
        clock.jump_to(0);
    }
}

/// The commands' clock alone jumps: a server that was started by itself takes no preloaded library
/// from a shell. How long it stays is tested with the server's own option.
#[test]
fn a_server_that_was_started_by_itself_is_found_again() {
    let clock = WallClock::new();
    let place = Server::stopped(&[], &[]);
    fine(by(&clock, place.cli("run")).args(["--", "true"]).run());
    let status = || place.cli("status").args(["--json"]).run().json();
    let pid = status()["pid"].as_i64().expect("a pid");
    for shift_s in [DAY_S, -DAY_S] {
        clock.jump_to(shift_s);
        let done = by(&clock, place.cli("run"));
        let done = done.args(["--", "sh", "-c", "echo on; exit 3"]).run();
        assert_eq!((done.code(), done.out().as_str()), (3, "on\n"));
        assert_eq!(status()["pid"], pid, "the same server");
    }
}
