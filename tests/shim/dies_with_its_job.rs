//! When a shim is killed, its job's leader dies with it: no process runs that nobody holds.

use nix::sys::signal::Signal;

use crate::harness::{Shim, is_alive, shell, until};

#[test]
fn the_leader_dies_with_its_shim() {
    let mut shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("trap '' TERM HUP INT; while :; do sleep 1; done"));
    let leader = server.started();
    assert!(is_alive(leader));
    shim.signal(Signal::SIGKILL);
    shim.wait();
    until("the leader is gone", || !is_alive(leader));
    // The lock is free: whoever holds it may read the segments.
    let lock = std::fs::File::open(shim.lock()).expect("lock file");
    until("the lock is free", || {
        nix::fcntl::Flock::lock(
            lock.try_clone().expect("clone"),
            nix::fcntl::FlockArg::LockExclusiveNonblock,
        )
        .is_ok()
    });
    assert!(shim.exit_record().is_none());
}

#[test]
fn other_signals_do_not_end_a_shim() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("echo ready; sleep 0.1; echo done"));
    server.started();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
    ] {
        shim.signal(signal);
    }
    assert_eq!(server.exited().end_offset, 11);
}
