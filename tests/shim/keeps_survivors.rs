//! With `leftover: keep` survivors are named and left alone; the shim stays their parent, takes
//! no more work, and leaves when they are gone.

use std::time::Duration;

use cc_executor::{
    job::{JobState, Leftover, Stream},
    spool::{FromShim, ShimState, ToShim},
};

use crate::harness::{Shim, code, is_alive, kill, pause, pid_in, shell, spec, state_of, until};

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

#[test]
fn what_was_paused_goes_on_when_it_is_kept() {
    let shim = Shim::start();
    let file = shim.dir.path().join("pid");
    let mut job = shell(&format!(
        "setsid sh -c 'echo $$ > {}; while :; do sleep 0.01; done' & while :; do sleep 0.01; done",
        file.display()
    ));
    job.leftover = Leftover::Keep;
    let (mut server, _) = shim.hello(1);
    server.run(job);
    let leader = server.started();
    let kept = pid_in(&file);
    server.send(&pause());
    server.wait_for("paused", |m| {
        matches!(m, FromShim::Paused { .. }).then_some(())
    });
    until("it has stopped", || {
        matches!(state_of(kept), Some('T' | 'D'))
    });
    // The leader alone is killed, by somebody else.
    let pid = nix::unistd::Pid::from_raw(leader);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
    let facts = server.exited();
    assert!(facts.survivors.iter().any(|s| s.pid == kept), "{facts:?}");
    until("it goes on", || matches!(state_of(kept), Some('S' | 'R')));
    let pid = nix::unistd::Pid::from_raw(kept);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
}

#[test]
fn a_shim_that_said_that_it_takes_no_more_work_leaves() {
    // Processes that are just ending when the exit is told: they are no survivors, and not gone.
    let mut retired = 0;
    for _ in 0..60 {
        let mut shim = Shim::start();
        let mut job =
            shell("for i in 1 2 3 4 5 6; do (sleep 0.00$i; exec true) & done; sleep 0.004");
        job.leftover = Leftover::Keep;
        let (mut server, _) = shim.hello(1);
        server.run(job);
        let (facts, reusable) = server.wait_for("exited", |message| match message {
            FromShim::Exited {
                facts, reusable, ..
            } => Some((facts.clone(), *reusable)),
            _ => None,
        });
        // A server that comes now is told the same.
        let (mut server, state) = shim.hello(2);
        let same =
            matches!(state, ShimState::Exited { reusable: Some(told), .. } if told == reusable);
        assert!(same, "{state:?}");
        server.send(&ToShim::Release { job: 1, attempt: 1 });
        if reusable {
            assert!(facts.survivors.is_empty());
        } else {
            retired += u32::from(facts.survivors.is_empty());
            shim.wait();
        }
    }
    eprintln!("{retired} of 60 took no more work and had no survivors");
}

#[test]
fn a_process_whose_first_thread_has_ended_is_alive() {
    // `/proc` calls it a zombie.
    let line = "import ctypes, os, threading, time\n\
                os.setsid() if os.getpid() != os.getsid(0) else None\n\
                threading.Thread(target=time.sleep, args=(600,)).start()\n\
                print(os.getpid(), flush=True)\n\
                ctypes.CDLL(None).pthread_exit(None)";
    for keep in [true, false] {
        let shim = Shim::start();
        let mut job = shell(&format!(
            "python3 -c '{line}' & read pid < /dev/null; \
             until grep -q 'State:.Z' /proc/$!/status; do sleep 0.01; done; exit 3"
        ));
        job.leftover = if keep { Leftover::Keep } else { Leftover::Kill };
        let (mut server, _) = shim.hello(1);
        server.run(job);
        let facts = server.exited();
        assert_eq!(facts.exit, code(3));
        let (named, leaked) = if keep { (1, 0) } else { (0, 1) };
        assert_eq!((facts.survivors.len(), facts.leaked), (named, leaked));
        if let Some(survivor) = facts.survivors.first() {
            let pid = nix::unistd::Pid::from_raw(survivor.pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
        }
    }
}
