//! A job does not notice that its server is gone; its end is on disk before the shim leaves, and
//! a new server is told what there is to know.

use cc_executor::{
    job::Stream,
    spool::{ShimState, ToShim},
};
use nix::fcntl::{Flock, FlockArg};

use crate::harness::{Shim, code, shell};

#[test]
fn without_a_server_the_job_ends_and_the_shim_leaves() {
    let mut shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("sleep 0.2; echo late; exit 5"));
    server.started();
    drop(server);
    let lock = std::fs::File::open(shim.lock()).expect("lock file");
    assert!(
        Flock::lock(
            lock.try_clone().expect("clone"),
            FlockArg::LockExclusiveNonblock
        )
        .is_err()
    );
    shim.wait();
    let facts = shim.exit_record().expect("an exit record");
    assert_eq!(facts.exit, code(5));
    assert_eq!(shim.output(Stream::Stdout), b"late\n");
    assert!(!shim.socket().exists() && !shim.lock().exists());
    assert!(
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).is_ok(),
        "the lock is still held"
    );
}

#[test]
fn a_new_server_finds_the_job_running_and_sees_its_end() {
    let shim = Shim::start();
    let go = shim.dir.path().join("go");
    let (mut server, _) = shim.hello(1);
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; echo done",
        go.display()
    );
    server.run(shell(&line));
    server.started();
    drop(server);
    let (mut server, state) = shim.hello(2);
    assert!(
        matches!(
            state,
            ShimState::Running {
                job: 1,
                attempt: 1,
                paused: false,
                stop: None,
                ..
            }
        ),
        "{state:?}"
    );
    std::fs::write(&go, "").expect("go");
    assert_eq!(server.exited().end_offset, 5);
}

#[test]
fn a_new_server_is_told_of_an_end_that_nobody_heard() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("echo out"));
    let facts = server.exited();
    drop(server);
    let (mut server, state) = shim.hello(2);
    let ShimState::Exited {
        job: 1,
        attempt: 1,
        facts: told,
        ..
    } = state
    else {
        panic!("{state:?}");
    };
    assert_eq!(*told, facts);
    server.send(&ToShim::Release { job: 1, attempt: 1 });
    assert_eq!(server.hello(2), ShimState::Idle);
}

#[test]
fn an_idle_shim_leaves_when_asked_and_when_forgotten() {
    let mut asked = Shim::start();
    let mut forgotten = Shim::start();
    let (mut server, _) = asked.hello(1);
    server.send(&ToShim::Leave);
    assert!(server.receive().is_none());
    asked.wait();
    assert!(!asked.socket().exists() && !asked.lock().exists());
    forgotten.wait();
    assert!(!forgotten.socket().exists());
}
