//! The first segment is the right to start: who finds it taken starts nothing.

use cc_executor::spool::{FromShim, SegmentName, ShimState};

use crate::harness::{Server, Shim, cancel, code, shell, spec};

fn refused(server: &mut Server) {
    server.wait_for("refused", |message| match message {
        FromShim::Refused { .. } => Some(()),
        FromShim::Started { .. } => panic!("it was started"),
        _ => None,
    });
}

#[test]
fn a_taken_right_is_refused() {
    let shim = Shim::start();
    let name = SegmentName {
        job: 1,
        attempt: 1,
        first_offset: 0,
    };
    let file = shim.layout.spool().join(name.to_string());
    std::fs::write(&file, "taken").expect("write");
    let witness = shim.dir.path().join("witness");
    let (mut server, _) = shim.hello(1);
    server.run(shell(&format!("touch {}", witness.display())));
    refused(&mut server);
    assert_eq!(server.hello(1), ShimState::Idle);
    assert_eq!(std::fs::read(&file).expect("read"), b"taken");
    // It is free for other work.
    let mut other = spec(&["true"]);
    other.attempt = 2;
    server.run(other);
    assert_eq!(server.exited().exit, code(0));
    assert!(!witness.exists());
}

#[test]
fn a_busy_shim_refuses() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("exec sleep 600"));
    server.started();
    let mut other = spec(&["true"]);
    other.job = 2;
    server.run(other);
    refused(&mut server);
    server.send(&cancel(0));
    server.exited();
}

#[test]
fn a_wish_that_came_before_the_start_starts_nothing() {
    let shim = Shim::start();
    let witness = shim.dir.path().join("witness");
    let mut spec = shell(&format!("touch {}", witness.display()));
    spec.stop = Some(cc_executor::job::StopRequest {
        by: "test".into(),
        cause: cc_executor::job::StopCause::Cancel,
        asked_at_us: 1,
        grace_ms: 0,
    });
    let facts = shim.run_to_end(spec);
    assert_eq!(facts.outcome().0, cc_executor::job::JobState::Cancelled);
    assert_eq!(facts.started_at_us, None);
    assert_eq!(shim.exit_record(), Some(facts));
    assert!(!witness.exists());
}

#[test]
fn a_run_that_is_repeated_is_neither_refused_nor_run_twice() {
    let shim = Shim::start();
    let witness = shim.dir.path().join("witness");
    let go = shim.dir.path().join("go");
    let line = format!(
        "echo x >> {}; while [ ! -e {} ]; do sleep 0.01; done",
        witness.display(),
        go.display()
    );
    let (mut server, _) = shim.hello(1);
    server.run(shell(&line));
    server.started();
    server.run(shell(&line));
    let mut other = spec(&["true"]);
    other.job = 2;
    server.run(other);
    let refused = server.wait_for("refused", |message| match message {
        FromShim::Refused { job, .. } => Some(*job),
        _ => None,
    });
    assert_eq!(refused, 2);
    std::fs::write(&go, "").expect("go");
    assert_eq!(server.exited().exit, code(0));
    // The exit has been told: a repetition still means nothing.
    server.run(shell(&line));
    assert!(matches!(server.hello(1), ShimState::Exited { job: 1, .. }));
    assert_eq!(std::fs::read(&witness).expect("read"), b"x\n");
}
