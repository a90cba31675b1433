//! With `leftover: keep` survivors are named and left alone; the shim stays their parent, takes
//! no more work, and leaves when they are gone.

use std::time::Duration;

use cc_executor::{
    job::{JobState, Leftover, Stream},
    spool::{FromShim, ShimState, ToShim},
};

use crate::harness::{Shim, code, is_alive, kill, pid_in, shell, spec, until};

#[test]
fn survivors_are_named_and_the_shim_retires() {
    let mut shim = Shim::start();
    let file = shim.dir.path().join("pid");
    let mut job = shell(&format!(
        "sh -c 'echo $$ > {0}; exec yes' & \
         while [ \"$(cat /proc/$(cat {0})/comm)\" != yes ]; do sleep 0.01; done 2>/dev/null; exit 4",
        file.display()
    ));
    job.leftover = Leftover::Keep;
    let (mut server, _) = shim.hello(1);
    server.run(job);
    let (facts, reusable) = server.wait_for("exited", |message| match message {
        FromShim::Exited {
            facts, reusable, ..
        } => Some((facts.clone(), *reusable)),
        _ => None,
    });
    let survivor = pid_in(&file);
    assert_eq!((facts.exit.clone(), facts.leaked), (code(4), 0));
    assert!(!reusable);
    assert_eq!(facts.survivors.len(), 1);
    assert_eq!(facts.survivors[0].pid, survivor);
    assert_eq!(facts.survivors[0].comm, "yes");
    let stored = shim.output(Stream::Stdout).len() as u64;
    assert_eq!(stored, facts.end_offset);

    server.send(&ToShim::Release { job: 1, attempt: 1 });
    let mut more = spec(&["true"]);
    more.job = 2;
    server.run(more);
    server.wait_for("refused", |message| {
        matches!(message, FromShim::Refused { job: 2, .. }).then_some(())
    });
    // It still writes, into a pipe that is still read.
    let cpu = || std::fs::read_to_string(format!("/proc/{survivor}/io")).unwrap_or_default();
    let before = cpu();
    until("the survivor goes on", || cpu() != before);
    assert_eq!(shim.hello(2).1, ShimState::Retired);

    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(survivor),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill");
    shim.wait();
    assert!(!shim.socket().exists() && !shim.lock().exists());
    assert_eq!(shim.output(Stream::Stdout).len() as u64, stored);
}

#[test]
fn a_stop_ends_them_all_the_same() {
    let shim = Shim::start();
    let file = shim.dir.path().join("pid");
    let mut job = shell(&format!(
        "sh -c 'echo $$ > {}; exec sleep 600' & wait",
        file.display()
    ));
    job.leftover = Leftover::Keep;
    let (mut server, _) = shim.hello(1);
    server.run(job);
    let child = pid_in(&file);
    server.send(&kill());
    let facts = server.exited();
    assert_eq!(facts.outcome().0, JobState::Cancelled);
    assert!(facts.survivors.is_empty());
    assert!(!is_alive(child));
    assert!(server.receive_within(Duration::from_millis(20)).is_err());
}
