//! A pause stops the whole tree and the clocks; a paused job can be cancelled.

use std::time::Duration;

use cc_executor::{
    job::{JobState, StopCause},
    spool::{FromShim, RunSpec, ShimState},
};

use crate::harness::{
    Server, Shim, arm, cancel, code, pause, pid_in, resume, shell, state_of, until,
};

/// Two processes, one of them in a session of its own.
fn pair(shim: &Shim) -> (RunSpec, std::path::PathBuf) {
    let file = shim.dir.path().join("pid");
    let line = format!(
        "setsid sh -c 'echo $$ > {}; while :; do sleep 0.01; done' & while :; do sleep 0.01; done",
        file.display()
    );
    (shell(&line), file)
}

fn paused(server: &mut Server) {
    server.wait_for("paused", |m| {
        matches!(m, FromShim::Paused { .. }).then_some(())
    });
}

#[test]
fn the_whole_tree_stands_still_and_goes_on() {
    let shim = Shim::start();
    let (spec, file) = pair(&shim);
    let (mut server, _) = shim.hello(1);
    server.run(spec);
    let leader = server.started();
    let other = pid_in(&file);
    server.send(&pause());
    paused(&mut server);
    for pid in [leader, other] {
        // `D`: a vfork whose child has been stopped before its exec; it stands still as well.
        until("it has stopped", || {
            matches!(state_of(pid), Some('T' | 'D'))
        });
    }
    let (mut server, state) = shim.hello(2);
    assert!(
        matches!(state, ShimState::Running { paused: true, .. }),
        "{state:?}"
    );
    server.send(&resume());
    server.wait_for("resumed", |m| {
        matches!(m, FromShim::Resumed { .. }).then_some(())
    });
    for pid in [leader, other] {
        until("it goes on", || matches!(state_of(pid), Some('S' | 'R')));
    }
    server.send(&cancel(10_000));
    assert_eq!(server.exited().outcome().0, JobState::Cancelled);
}

#[test]
fn a_paused_job_can_act_on_a_cancel() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell(
        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done",
    ));
    server.started();
    server.send(&arm(0));
    server.wait_for("grew", |m| matches!(m, FromShim::Grew { .. }).then_some(()));
    server.send(&pause());
    paused(&mut server);
    server.send(&cancel(60_000));
    let facts = server.exited();
    assert_eq!(facts.exit, code(9));
    let stop = facts.stop.expect("a stop");
    assert_eq!(stop.signals, ["SIGTERM", "SIGCONT"]);
    assert!(!stop.killed);
}

#[test]
fn the_clocks_stand_still_in_a_pause() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    let mut spec = shell("sleep 0.5; echo done");
    spec.timeout_ms = Some(1500);
    spec.stall_timeout_ms = Some(1400);
    server.run(spec);
    server.started();
    server.send(&pause());
    paused(&mut server);
    // Longer than both bounds.
    assert!(server.receive_within(Duration::from_millis(2500)).is_err());
    server.send(&resume());
    let facts = server.exited();
    assert_eq!((facts.exit, facts.stop), (code(0), None));
}

#[test]
fn a_job_that_stops_itself_can_be_cancelled() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("trap 'exit 8' TERM; kill -STOP $$; exec sleep 600"));
    let leader = server.started();
    until("it has stopped", || state_of(leader) == Some('T'));
    server.send(&cancel(60_000));
    let facts = server.exited();
    assert_eq!(facts.exit, code(8));
    assert_eq!(facts.stop.map(|stop| stop.cause), Some(StopCause::Cancel));
}
