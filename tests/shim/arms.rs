//! `grew` is said once for each time that the server asks.

use std::time::Duration;

use cc_executor::spool::FromShim;

use crate::harness::{Server, Shim, arm, cancel, shell, until};

fn grew(server: &mut Server) -> u64 {
    server.wait_for("grew", |message| match message {
        FromShim::Grew { offset, .. } => Some(*offset),
        _ => None,
    })
}

#[test]
fn growth_is_told_once_per_arming() {
    let shim = Shim::start();
    let go = shim.dir.path().join("go");
    let (mut server, _) = shim.hello(1);
    let line = format!(
        "printf one; while [ ! -e {0} ]; do sleep 0.01; done; printf two; printf three; sleep 60",
        go.display()
    );
    server.run(shell(&line));
    server.started();
    server.send(&arm(0));
    assert_eq!(grew(&mut server), 3);
    // Armed behind the end: nothing is said before there is more.
    server.send(&arm(3));
    assert!(server.receive_within(Duration::from_millis(100)).is_err());
    std::fs::write(&go, "").expect("go");
    assert!(grew(&mut server) > 3);
    // Not armed again: growth is no news.
    until("all is stored", || {
        shim.output(cc_executor::job::Stream::Stdout) == b"onetwothree"
    });
    assert!(server.receive_within(Duration::from_millis(50)).is_err());
    // Armed before the end: it is said at once.
    server.send(&arm(5));
    assert_eq!(grew(&mut server), 11);
    server.send(&cancel(0));
    assert_eq!(server.exited().end_offset, 11);
}
