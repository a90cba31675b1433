//! A process that cannot be looked at (no descriptor is left for `/proc`) is not one that is gone: a
//! kill reaches it all the same, and what has to know everybody waits until it can.

use std::{path::PathBuf, time::Duration};

use cc_executor::{
    job::{JobState, Leftover},
    spool::{FromShim, RunSpec},
};

use crate::harness::{
    Shim, cancel, code, descriptors, is_alive, kill, pause, pid_in, shell, state_of, until,
};

/// So long nothing is heard of a shim that cannot look.
const STILL: Duration = Duration::from_millis(300);

/// Two processes that do not listen to TERM, one of them in a session of its own; the leader ends
/// once the second file is there.
fn pair(shim: &Shim) -> (RunSpec, PathBuf, PathBuf) {
    let (pid, go) = (shim.dir.path().join("pid"), shim.dir.path().join("go"));
    let line = format!(
        "trap '' TERM HUP; setsid sh -c 'echo $$ > {}; while :; do sleep 0.01; done' & \
         while [ ! -e {} ]; do sleep 0.01; done; exit 3",
        pid.display(),
        go.display()
    );
    (shell(&line), pid, go)
}

#[test]
fn a_kill_reaches_everybody_without_a_descriptor() {
    for order in [kill(), cancel(100)] {
        let shim = Shim::start();
        let (job, pid, _) = pair(&shim);
        let (mut server, _) = shim.hello(1);
        server.run(job);
        server.started();
        let other = pid_in(&pid);
        descriptors(shim.pid(), "3");
        server.send(&order);
        let facts = server.exited();
        assert_eq!(facts.outcome(), (JobState::Cancelled, None));
        assert!(facts.survivors.is_empty() && !is_alive(other));
    }
}

#[test]
fn nobody_is_left_behind_unnamed() {
    let shim = Shim::start();
    let (mut job, pid, go) = pair(&shim);
    job.leftover = Leftover::Keep;
    let (mut server, _) = shim.hello(1);
    server.run(job);
    let leader = server.started();
    let other = pid_in(&pid);
    descriptors(shim.pid(), "3");
    std::fs::write(&go, "").expect("go");
    until("the leader has ended", || !is_alive(leader));
    assert!(
        server.receive_within(STILL).is_err(),
        "who stays is not known yet"
    );
    descriptors(shim.pid(), "1024");
    let facts = server.exited();
    assert_eq!(facts.exit, code(3));
    assert!(facts.survivors.iter().any(|s| s.pid == other), "{facts:?}");
    let other = nix::unistd::Pid::from_raw(other);
    nix::sys::signal::kill(other, nix::sys::signal::Signal::SIGKILL).expect("kill");
}

#[test]
fn a_pause_is_told_once_everybody_stands_still() {
    let shim = Shim::start();
    let (job, pid, _) = pair(&shim);
    let (mut server, _) = shim.hello(1);
    server.run(job);
    server.started();
    let other = pid_in(&pid);
    descriptors(shim.pid(), "3");
    server.send(&pause());
    assert!(
        server.receive_within(STILL).is_err(),
        "not all could be looked at"
    );
    descriptors(shim.pid(), "1024");
    server.wait_for("paused", |m| {
        matches!(m, FromShim::Paused { .. }).then_some(())
    });
    until("it has stopped", || {
        matches!(state_of(other), Some('T' | 'D'))
    });
    server.send(&kill());
    server.exited();
}
