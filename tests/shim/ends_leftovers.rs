//! Processes that outlive the leader end with it, wherever they have hidden, and are counted; what
//! they wrote until then is stored, and nobody waits for their end of the pipe.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use cc_executor::{
    job::{JobState, Leftover, Stream},
    spool::FromShim,
};

use crate::harness::{Shim, arm, code, is_alive, pid_in, shell};

#[test]
fn a_double_fork_in_its_own_session_ends_and_is_counted() {
    let shim = Shim::start();
    let file = shim.dir.path().join("pid");
    let daemon = "trap \"\" TERM HUP; echo $$ > FILE; exec sleep 600"
        .replace("FILE", file.to_str().expect("utf-8"));
    let line = format!(
        "(setsid sh -c '{daemon}' </dev/null >/dev/null 2>&1 &) ; while [ ! -s {} ]; do sleep 0.01; done",
        file.display()
    );
    let facts = shim.run_to_end(shell(&line));
    assert_eq!(facts.exit, code(0));
    assert_eq!(facts.leaked, 1);
    assert_eq!(facts.outcome(), (JobState::Succeeded, None));
    assert!(!is_alive(pid_in(&file)), "the daemon lives");
}

#[test]
fn a_grandchild_with_the_pipe_does_not_hold_up_the_end() {
    let shim = Shim::start();
    let begun = Instant::now();
    let facts = shim.run_to_end(shell("sleep 600 & echo out"));
    assert_eq!((facts.exit, facts.leaked), (code(0), 1));
    assert_eq!(shim.output(Stream::Stdout), b"out\n");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_leftovers_write_in_their_last_moments_is_stored() {
    let shim = Shim::start();
    let line = "sh -c 'trap \"echo bye; exit\" TERM; echo ready; while :; do sleep 0.01; done' & \
                sleep 0.2; echo leader";
    let facts = shim.run_to_end(shell(line));
    assert!(facts.leaked >= 1);
    let text = String::from_utf8(shim.output(Stream::Stdout)).expect("text");
    assert!(text.ends_with("bye\n"), "{text:?}");
}

#[test]
fn processes_that_fork_in_a_loop_end_too() {
    let shim = Shim::start();
    let line = "f() { while :; do setsid sh -c 'trap \"\" TERM; sleep 0.05' & sleep 0.01; done; }; \
                trap '' TERM; f & setsid sh -c \"trap '' TERM; while :; do sleep 0.01 & done\" & sleep 0.3";
    let mut spec = shell(line);
    spec.leftover = Leftover::Kill;
    let facts = shim.run_to_end(spec);
    assert!(facts.leaked > 0);
    let children = format!("/proc/{0}/task/{0}/children", shim.pid());
    assert_eq!(std::fs::read_to_string(children).expect("children"), "");
}

#[test]
fn a_descriptor_that_escaped_does_not_hold_up_the_end() {
    // The test itself takes hold of the job's stdout, as a foreign process could, and writes
    // without end.
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("echo out; sleep 0.3; exit 3"));
    let leader = server.started();
    server.send(&arm(3));
    server.wait_for("grew", |m| matches!(m, FromShim::Grew { .. }).then_some(()));
    let mut stolen = std::fs::File::options()
        .write(true)
        .open(format!("/proc/{leader}/fd/1"))
        .expect("steal stdout");
    let writer = thread::spawn(move || while stolen.write_all(&[b'x'; 4096]).is_ok() {});
    let facts = server.exited();
    assert_eq!(facts.exit, code(3));
    let stored = shim.output(Stream::Stdout);
    assert!(stored.starts_with(b"out\nxxx"));
    assert_eq!(stored.len() as u64, facts.end_offset);
    writer.join().expect("the pipe is closed");
}
