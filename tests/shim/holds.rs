//! A paused job stands still whoever wants it to go on, and its end lets go on those that the pause
//! has stopped; whom the kernel does not let the shim signal is told, not passed over.

use std::{path::PathBuf, time::Duration};

use cc_executor::{
    job::{ExitFacts, JobState, StopCause},
    spool::{AttemptRef, FromShim, RunSpec, ToShim},
};
use nix::{
    sys::signal::{Signal, kill as send},
    unistd::Pid,
};

use crate::{
    failing::Failing,
    harness::{
        Server, Shim, cancel, code, is_alive, kill, pause, pid_in, resume, shell, state_of, until,
    },
};

fn told(server: &mut Server, paused: bool) {
    server.wait_for("a pause or its end", |m| match (m, paused) {
        (FromShim::Paused { .. }, true) | (FromShim::Resumed { .. }, false) => Some(()),
        _ => None,
    });
}

/// A leader, a child in a session of its own, and one below that; all are busy.
struct Three {
    spec: RunSpec,
    pids: [PathBuf; 3],
}

fn three(shim: &Shim) -> Three {
    let pids = ["a", "b", "c"].map(|name| shim.dir.path().join(name));
    let [a, b, c] = pids.each_ref().map(|path| path.display());
    // Without children: one that waits for its vfork does not run after SIGCONT either.
    let count = "while :; do :; done";
    let line = format!(
        "echo $$ > {a}; setsid sh -c 'echo $$ > {b}; setsid sh -c \"echo \\$\\$ > {c}; {count}\" & \
         {count}' & {count}"
    );
    Three {
        spec: shell(&line),
        pids,
    }
}

fn is_still(pid: i32) -> bool {
    // `D`: a vfork whose child has been stopped before its exec.
    matches!(state_of(pid), Some('T' | 'D'))
}

#[test]
fn whoever_is_let_go_on_by_others_in_a_pause_is_stopped_again() {
    let shim = Shim::start();
    let Three { spec, pids } = three(&shim);
    let (mut server, _) = shim.hello(1);
    server.run(spec);
    let pids = pids.map(|path| pid_in(&path));
    server.send(&pause());
    told(&mut server, true);
    for round in 0..3 {
        for pid in pids {
            until("it stands still", || is_still(pid));
            // Before it is let go on: it may be stopped again at once.
            let before = switches(pid);
            send(Pid::from_raw(pid), Signal::SIGCONT).expect("sent");
            until("it has gone on", || switches(pid) != before);
            until("it is stopped again", || is_still(pid));
        }
        eprintln!("round {round}");
    }
    server.send(&resume());
    told(&mut server, false);
    for pid in pids {
        until("it goes on", || matches!(state_of(pid), Some('S' | 'R')));
    }
    server.send(&kill());
    server.exited();
}

/// How often a process has been given a processor.
fn switches(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
    lines.collect()
}

#[test]
fn signals_of_job_control_do_not_end_a_pause() {
    let shim = Shim::start();
    let (mut server, _) = shim.hello(1);
    server.run(shell("while :; do sleep 0.01; done"));
    let leader = server.started();
    server.send(&pause());
    told(&mut server, true);
    until("it stands still", || is_still(leader));
    let before = switches(leader);
    for signal in [libc::SIGCONT, libc::SIGSTOP, libc::SIGTSTP] {
        let about = AttemptRef::default();
        server.send(&ToShim::Signal { about, signal });
    }
    // It is answered behind them.
    server.send(&pause());
    told(&mut server, true);
    assert!(is_still(leader) && switches(leader) == before);
    server.send(&resume());
    told(&mut server, false);
    until("it goes on", || switches(leader) != before);
    server.send(&kill());
    server.exited();
}

#[test]
fn a_resume_wakes_nobody_who_had_stopped_by_itself() {
    for apart in ["", "setsid "] {
        let shim = Shim::start();
        let file = shim.dir.path().join("pid");
        let line = format!(
            "{apart}sh -c 'echo $$ > {}; kill -STOP $$; exec sleep 600' & \
             while :; do sleep 0.01; done",
            file.display()
        );
        let (mut server, _) = shim.hello(1);
        server.run(shell(&line));
        let leader = server.started();
        let stood = pid_in(&file);
        until("it has stopped itself", || state_of(stood) == Some('T'));
        for _ in 0..3 {
            server.send(&pause());
            told(&mut server, true);
            until("the leader stands still", || is_still(leader));
            server.send(&resume());
            told(&mut server, false);
            let before = switches(leader);
            until("the leader goes on", || switches(leader) != before);
            assert_eq!(state_of(stood), Some('T'), "with {apart:?}");
        }
        // A resume of what is not paused wakes nobody either.
        server.send(&resume());
        told(&mut server, false);
        assert_eq!(state_of(stood), Some('T'));
        // A cancel does: it is to act on it.
        server.send(&cancel(60_000));
        assert_eq!(server.exited().outcome().0, JobState::Cancelled);
    }
}

/// A job that ends with 0 once the file is there, and takes no notice of TERM.
fn deaf(shim: &Shim) -> (RunSpec, PathBuf) {
    let go = shim.dir.path().join("go");
    let line = format!(
        "trap '' TERM; while [ ! -e {} ]; do sleep 0.01; done; exit 0",
        go.display()
    );
    (shell(&line), go)
}

/// The kernel refuses every signal, as for a job that has become another user's.
fn refusing(shim: &Shim) -> Option<Failing> {
    Failing::calls(shim.pid(), "kill,pidfd_send_signal", "EPERM")
}

fn assert_spared(facts: &ExitFacts, leader: i32, cause: StopCause) {
    assert_eq!(facts.outcome(), (JobState::Succeeded, None), "{facts:?}");
    let stop = facts.stop.as_ref().expect("a stop");
    assert_eq!(stop.cause, cause);
    assert_eq!((stop.signals.len(), stop.killed), (0, false));
    assert!(stop.refused.iter().any(|refused| refused.pid == leader));
}

#[test]
fn a_stop_that_the_kernel_refuses_is_told_and_decides_nothing() {
    for wish in [cancel(100), kill()] {
        let shim = Shim::start();
        let (job, go) = deaf(&shim);
        let (mut server, _) = shim.hello(1);
        server.run(job);
        let leader = server.started();
        let Some(_refusing) = refusing(&shim) else {
            return;
        };
        server.send(&wish);
        server.wait_for("a word for the log", |m| match m {
            FromShim::Trouble { message } if message.contains("EPERM") => Some(()),
            _ => None,
        });
        let refused = server.wait_for("a refusal", |m| match m {
            FromShim::StopRefused { refused, .. } => Some(refused.clone()),
            _ => None,
        });
        assert!(refused.iter().any(|refused| refused.pid == leader));
        // It is told again to a server that comes later.
        let (mut server, _) = shim.hello(2);
        server.wait_for("the refusal", |m| {
            matches!(m, FromShim::StopRefused { .. }).then_some(())
        });
        std::fs::write(&go, "").expect("go");
        let facts = server.exited();
        let cause = facts.stop.as_ref().map(|stop| stop.cause);
        assert_spared(&facts, leader, cause.expect("a stop"));
    }
}

#[test]
fn a_timeout_that_the_kernel_refuses_decides_nothing() {
    let shim = Shim::start();
    let (mut job, go) = deaf(&shim);
    job.timeout_ms = Some(2000);
    job.grace_ms = 100;
    let (mut server, _) = shim.hello(1);
    server.run(job);
    let leader = server.started();
    let Some(_refusing) = refusing(&shim) else {
        return;
    };
    server.wait_for("a refusal", |m| {
        matches!(m, FromShim::StopRefused { .. }).then_some(())
    });
    std::fs::write(&go, "").expect("go");
    assert_spared(&server.exited(), leader, StopCause::Timeout);
}

#[test]
fn a_stop_that_is_allowed_in_the_end_is_one() {
    let shim = Shim::start();
    let (job, _) = deaf(&shim);
    let (mut server, _) = shim.hello(1);
    server.run(job);
    server.started();
    let Some(refusing) = refusing(&shim) else {
        return;
    };
    server.send(&cancel(0));
    server.wait_for("a refusal", |m| {
        matches!(m, FromShim::StopRefused { .. }).then_some(())
    });
    drop(refusing);
    let facts = server.exited();
    assert_eq!(facts.outcome().0, JobState::Cancelled);
    let stop = facts.stop.expect("a stop");
    assert_eq!(stop.signals, ["SIGKILL"]);
    assert!(stop.killed && !stop.spared && stop.refused.is_empty());
}

#[test]
fn a_pause_that_the_kernel_refuses_is_not_told_as_done() {
    let shim = Shim::start();
    let (job, go) = deaf(&shim);
    let (mut server, _) = shim.hello(1);
    server.run(job);
    let leader = server.started();
    let Some(refusing) = refusing(&shim) else {
        return;
    };
    server.send(&pause());
    let why = server.wait_for("a refusal", |m| match m {
        FromShim::PauseRefused { why, .. } => Some(why.clone()),
        FromShim::Paused { .. } => panic!("it is not paused"),
        _ => None,
    });
    assert!(
        why.contains("EPERM") && why.contains(&leader.to_string()),
        "{why}"
    );
    assert!(is_alive(leader) && state_of(leader) != Some('T'));
    drop(refusing);
    assert!(server.receive_within(Duration::from_millis(300)).is_err());
    server.send(&pause());
    told(&mut server, true);
    server.send(&resume());
    std::fs::write(&go, "").expect("go");
    assert_eq!(server.exited().exit, code(0));
}
