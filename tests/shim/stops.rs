//! The stop ladder: TERM, grace, KILL, for the whole tree; and a stop that comes too late.

use std::time::{Duration, Instant};

use cc_executor::{
    job::{Exit, JobState, StopCause},
    spool::{AttemptRef, FromShim, ToShim},
};
use nix::sys::signal::Signal;

use crate::harness::{
    Shim, arm, cancel, code, is_alive, kill, pause, pid_in, resume, shell, state_of, until,
};

#[test]
fn a_job_that_listens_ends_within_its_grace() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("exec sleep 600"));
    server.started();
    server.send(&cancel(60_000));
    let by = server.wait_for("stopping", |message| match message {
        FromShim::Stopping { request: wish, .. } => Some(wish.by.clone()),
        _ => None,
    });
    assert_eq!(by, "test");
    let facts = server.exited();
    assert_eq!(facts.exit, Exit::Signal(15));
    assert_eq!(facts.outcome(), (JobState::Cancelled, None));
    let stop = facts.stop.expect("a stop");
    assert_eq!((stop.cause, stop.asked_at_us), (StopCause::Cancel, 1));
    assert_eq!(
        (stop.signals, stop.killed),
        (vec!["SIGTERM".to_owned()], false)
    );
}

#[test]
fn a_job_that_does_not_listen_is_killed_after_its_grace() {
    let shim = Shim::start();
    let file = shim.dir.path().join("pid");
    let line = format!(
        "trap '' TERM HUP; setsid sh -c 'echo $$ > {}; while :; do sleep 1; done' & \
         while :; do sleep 1; done",
        file.display()
    );
    let (mut server, _) = shim.hello(1);
    server.run(shell(&line));
    server.started();
    let other = pid_in(&file);
    let begun = Instant::now();
    server.send(&cancel(400));
    let facts = server.exited();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(facts.exit, Exit::Signal(9));
    let stop = facts.stop.expect("a stop");
    assert_eq!(
        (stop.signals, stop.killed),
        (vec!["SIGTERM".to_owned(), "SIGKILL".to_owned()], true)
    );
    assert!(!is_alive(other));
}

#[test]
fn a_kill_hastens_a_cancel() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("trap '' TERM; echo ready; while :; do sleep 1; done"));
    server.started();
    server.send(&arm(0));
    server.wait_for("grew", |m| matches!(m, FromShim::Grew { .. }).then_some(()));
    server.send(&cancel(600_000));
    server.send(&cancel(600_000));
    server.send(&kill());
    let facts = server.exited();
    assert_eq!(facts.exit, Exit::Signal(9));
    assert_eq!(facts.stop.map(|stop| stop.cause), Some(StopCause::Cancel));
}

#[test]
fn a_stop_behind_the_exit_changes_nothing() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let go = shim.dir.path().join("go");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exit 6",
        go.display()
    );
    server.run(shell(&line));
    let leader = server.started();
    // The shim sees the exit and the wish at once, and the exit came first.
    shim.signal(Signal::SIGSTOP);
    until("the shim has stopped", || state_of(shim.pid()) == Some('T'));
    std::fs::write(&go, "").expect("go");
    until("the leader has exited", || !is_alive(leader));
    server.send(&cancel(0));
    shim.signal(Signal::SIGCONT);
    let facts = server.exited();
    assert_eq!((facts.exit, facts.stop), (code(6), None));
}

#[test]
fn a_stop_right_behind_the_start_is_heard() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    for job in 1..=30 {
        let mut spec = shell("exec sleep 600");
        spec.job = job;
        server.run(spec);
        server.send(&cancel(600_000));
        let facts = server.exited();
        assert_eq!(facts.exit, Exit::Signal(15));
        assert_eq!(facts.outcome().0, JobState::Cancelled);
    }
}

#[test]
fn a_signal_goes_to_the_leaders_group() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let line = "trap 'exit 11' USR1; echo ready; while :; do sleep 0.01; done";
    server.run(shell(line));
    server.started();
    server.send(&arm(0));
    server.wait_for("grew", |m| matches!(m, FromShim::Grew { .. }).then_some(()));
    server.send(&ToShim::Signal {
        about: AttemptRef::default(),
        signal: libc::SIGUSR1,
    });
    let facts = server.exited();
    assert_eq!((facts.exit, facts.stop), (code(11), None));
}

#[test]
fn wishes_may_race_with_each_other_and_with_the_end() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    for job in 1..=100_u64 {
        let mut spec = shell("sleep 0.01 & sleep 0.00$((RANDOM % 9)); wait; exit 5");
        spec.job = job as i64;
        server.run(spec);
        let mut wishes = [pause(), resume(), cancel(1000), cancel(1000), pause()];
        // Another order for every job.
        wishes.rotate_left((job % 5) as usize);
        if job.is_multiple_of(2) {
            wishes.reverse();
        }
        for wish in &wishes {
            server.send(wish);
        }
        let facts = server.exited();
        let expected = match &facts.stop {
            Some(stop) => {
                assert_eq!(stop.cause, StopCause::Cancel);
                JobState::Cancelled
            }
            None => JobState::Failed,
        };
        assert_eq!(facts.outcome().0, expected, "job {job}: {facts:?}");
        assert!(!facts.stop.is_some_and(|stop| stop.killed), "job {job}");
    }
}
